//! What is recovered after a crash is the state after a prefix of the writes, and the prefix holds every
//! write that was acknowledged: random operations of three replicas on one disk, crashed at any step.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod reference;
mod world;

use std::path::Path;
use std::time::Duration;

use fastrand::Rng;
use quorate_storage::{OpenError, RocksOptions, SimDisk, Storage, StorageError};

use crate::world::{History, World};

/// How many runs it takes until the rarest thing below has happened many times.
const SIM_RUNS: u64 = 300;
const ROCKS_RUNS: u64 = 6;

/// What the runs must have seen; a suite that never lost a write has shown nothing.
#[derive(Debug, Default)]
struct Coverage {
    lost: usize,
    kept: usize,
    kills: usize,
    closes: usize,
    failures: usize,
}

#[test]
fn a_simulated_disk_crashed_at_any_step_recovers_a_prefix() {
    let mut coverage = Coverage::default();
    for seed in 0..SIM_RUNS {
        fastrand::seed(seed);
        println!("seed {seed}");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(crash_repeatedly(seed, &mut coverage));
    }
    println!("{coverage:?}");
    assert!(
        coverage.lost > 100
            && coverage.kept > 100
            && coverage.kills > 20
            && coverage.closes > 20
            && coverage.failures > 20,
        "{coverage:?}"
    );
}

async fn crash_repeatedly(seed: u64, coverage: &mut Coverage) {
    let mut rng = Rng::with_seed(seed);
    let disk = SimDisk::new(|| Duration::from_micros(fastrand::u64(0..1000)));
    let mut history = History::new();
    for _life in 0..5 {
        let storage = disk.open(Path::new("sim")).unwrap();
        let world = World::open(&storage).await.unwrap();
        let lost = history.recovered(&world.found().await);
        if lost > 0 {
            coverage.lost += 1
        } else {
            coverage.kept += 1
        }

        for _step in 0..rng.usize(0..40) {
            world.step(&mut history, &mut rng).await;
            match rng.u32(0..10) {
                // Lets the writer come to any point of a commit.
                0..3 => tokio::time::sleep(Duration::from_micros(rng.u64(0..1500))).await,
                3 => world.vote_and_wait(&mut history, &mut rng).await,
                _ => {}
            }
        }
        match rng.u32(0..10) {
            0 => {
                coverage.kills += 1;
                disk.kill();
            }
            1 => {
                coverage.closes += 1;
                world.settle(&history).await;
                storage.close().await;
            }
            2 => {
                coverage.failures += 1;
                fail(&disk, &storage, &world, &mut history, &mut rng).await;
                disk.crash();
            }
            _ => _ = disk.crash(),
        }
    }
}

/// A write fails among others: the storage says so, and acknowledges nothing of what follows.
async fn fail(disk: &SimDisk, storage: &Storage, world: &World, history: &mut History, rng: &mut Rng) {
    disk.fail_after(rng.u64(0..4));
    for _write in 0..20 {
        world.write(history, rng);
        tokio::time::sleep(Duration::from_micros(rng.u64(0..1500))).await;
    }
    let failure = storage.failed().await;
    assert!(matches!(&failure, StorageError::Io { detail } if detail == "injected failure"), "{failure}");
    assert_eq!(storage.commit(vec![]).await, Err(failure));
}

/// The same operations on the real engine: closed and opened again, nothing may be missing.
#[test]
fn rocksdb_closed_and_opened_again_has_everything() {
    for seed in 0..ROCKS_RUNS {
        println!("seed {seed}");
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut rng = Rng::with_seed(seed);
            let mut history = History::new();
            for _life in 0..4 {
                let storage = open(dir.path()).unwrap();
                let world = World::open(&storage).await.unwrap();
                assert_eq!(history.recovered(&world.found().await), 0);
                run_steps(&world, &mut history, &mut rng).await;
                storage.close().await;
            }
        });
    }
}

/// The files of a running database, copied, are what a killed process leaves; with its log cut short they
/// are what a power loss leaves. Either a prefix is recovered, or the loss of a durable write is noticed.
#[test]
fn rocksdb_killed_or_cut_short_recovers_a_prefix_or_refuses() {
    let mut refused = 0;
    let mut shortened = 0;
    for seed in 0..ROCKS_RUNS {
        println!("seed {seed}");
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut rng = Rng::with_seed(seed);
            let mut history = History::new();
            let storage = open(dir.path()).unwrap();
            let world = World::open(&storage).await.unwrap();
            run_steps(&world, &mut history, &mut rng).await;
            // So that the copies are of files at rest.
            world.settle(&history).await;
            let killed = copy(dir.path());
            let cut = copy(dir.path());
            storage.close().await;

            let storage = open(killed.path()).unwrap();
            let world = World::open(&storage).await.unwrap();
            assert_eq!(&world.found().await, history.latest(), "the page cache keeps everything");
            storage.close().await;

            shorten_wal(cut.path(), &mut rng);
            // The disk lied about the last writes, so none of them counts as acknowledged here.
            history.forget_acknowledgements();
            match open(cut.path()) {
                Ok(storage) => {
                    let world = World::open(&storage).await.unwrap();
                    shortened += usize::from(history.recovered(&world.found().await) > 0);
                    storage.close().await;
                }
                Err(error) => {
                    assert!(matches!(error, OpenError::LostWrites { .. }), "{error}");
                    refused += 1;
                }
            }
        });
    }
    println!("{shortened} shortened, {refused} refused");
    assert!(shortened + refused > 0);
}

fn open(dir: &Path) -> Result<Storage, OpenError> {
    // A small buffer, so that rows also come back from files and blobs.
    Storage::open_rocks(dir, &RocksOptions { memory_bytes: 1 << 20, ..RocksOptions::default() })
}

async fn run_steps(world: &World, history: &mut History, rng: &mut Rng) {
    for step in 0..100 {
        world.step(history, rng).await;
        if step % 10 == 0 {
            world.vote_and_wait(history, rng).await;
        }
    }
}

fn copy(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    std::fs::create_dir(copy.path().join("db")).unwrap();
    for part in ["", "db"] {
        for file in std::fs::read_dir(dir.join(part)).unwrap() {
            let file = file.unwrap();
            if file.file_type().unwrap().is_file() {
                std::fs::copy(file.path(), copy.path().join(part).join(file.file_name())).unwrap();
            }
        }
    }
    copy
}

/// Takes some bytes off the end of the newest write-ahead log.
fn shorten_wal(dir: &Path, rng: &mut Rng) {
    let files = std::fs::read_dir(dir.join("db")).unwrap().map(|file| file.unwrap().path());
    let newest = files.filter(|path| path.extension().is_some_and(|extension| extension == "log")).max().unwrap();
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&newest).unwrap();
    let len = file.metadata().unwrap().len();
    file.set_len(len - rng.u64(1..=len.min(20_000))).unwrap();
}

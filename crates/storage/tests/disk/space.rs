//! The space of deleted entries comes back, also if they shared their files with others that stay.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_model::ReplicaId;
use quorate_storage::{Completion, EntryKind, LogEntry, RaftLog, RocksOptions, Storage, TailCacheLimits};

use crate::journal::{folder_in_memory, id};

const ENTRY_BYTES: u64 = 16 << 10;
const ENTRIES: u64 = 100;

/// Replicas whose entries alternate in every write, and fill many buffers.
struct Logs {
    dir: tempfile::TempDir,
    storage: Storage,
    logs: Vec<RaftLog>,
}

impl Logs {
    async fn written(replicas: u64) -> Logs {
        let dir = folder_in_memory();
        let delay = Duration::from_millis(20);
        // Buffers of 1 MiB and blob files of 32 KiB.
        let options = RocksOptions { memory_bytes: 4 << 20, reclaim_delay: delay, ..RocksOptions::default() };
        let storage = Storage::open_rocks(dir.path(), &options).unwrap();
        let mut logs = Vec::new();
        for replica in 1..=replicas {
            let cache = TailCacheLimits { bytes: 0 };
            logs.push(RaftLog::open(&storage, ReplicaId::new(replica), cache).await.unwrap());
        }
        for index in 0..ENTRIES {
            for log in &logs {
                log.append(vec![entry(log, index)], Completion::None);
            }
            storage.commit(Vec::new()).await.unwrap();
        }
        Logs { dir, storage, logs }
    }

    fn written_bytes(&self) -> u64 {
        self.logs.len() as u64 * ENTRIES * ENTRY_BYTES
    }

    /// Waits until the log's files hold at most `kept` bytes and the share of garbage that is allowed.
    async fn shrink_to(&self, kept: u64) {
        let started = Instant::now();
        let most = kept * 3 / 2 + (2 << 20);
        while blob_bytes(self.dir.path()) > most {
            let now = blob_bytes(self.dir.path());
            assert!(started.elapsed() < Duration::from_secs(60), "{now} bytes are left, where {most} would do");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Every entry that was neither purged nor destroyed is there.
    async fn close_after_reading(self, logs: impl IntoIterator<Item = usize>) {
        for log in logs.into_iter().map(|number| &self.logs[number]) {
            let first = log.bounds().purged.map_or(0, |purged| purged.index + 1);
            let expected: Vec<_> = (first..ENTRIES).map(|index| entry(log, index)).collect();
            assert_eq!(log.read(0..ENTRIES, u64::MAX).await.unwrap(), expected);
        }
        self.storage.close().await;
    }
}

fn entry(log: &RaftLog, index: u64) -> LogEntry {
    let mut rng = fastrand::Rng::with_seed(log.replica().get() << 32 | index);
    let body: Bytes = std::iter::repeat_with(|| rng.u8(..)).take(ENTRY_BYTES as usize).collect();
    LogEntry { id: id(index), kind: EntryKind::Command, body }
}

fn blob_bytes(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir.join("db")).unwrap().filter_map(Result::ok);
    let blobs = files.filter(|file| file.path().extension().is_some_and(|extension| extension == "blob"));
    blobs.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
}

#[tokio::test]
async fn partitions_that_age_alike_give_their_space_back() {
    let logs = Logs::written(8).await;
    for log in &logs.logs {
        log.purge(id(ENTRIES * 3 / 4 - 1));
    }
    logs.shrink_to(logs.written_bytes() / 4).await;
    logs.close_after_reading(0..8).await;
}

/// So many that every file holds entries of several, of which every second one keeps everything.
#[tokio::test]
async fn partitions_that_do_not_age_alike_give_their_space_back() {
    let logs = Logs::written(64).await;
    for log in logs.logs.iter().step_by(2) {
        log.purge(id(ENTRIES - 2));
    }
    logs.shrink_to(logs.written_bytes() / 2).await;
    logs.close_after_reading(0..64).await;
}

#[tokio::test]
async fn deleted_replicas_give_their_space_back_and_leave_their_neighbours_alone() {
    let logs = Logs::written(64).await;
    for log in logs.logs.iter().skip(1).step_by(4) {
        logs.storage.destroy_replica(log.replica()).await.unwrap();
    }
    logs.shrink_to(logs.written_bytes() * 3 / 4 * 4 / 5).await;
    let left = (0..64).filter(|number| number % 4 != 1);
    logs.close_after_reading(left).await;
}

/// What went before a stop is not forgotten by it.
#[tokio::test]
async fn space_that_was_not_back_at_the_stop_comes_back_after_the_start() {
    let logs = Logs::written(8).await;
    let kept = logs.written_bytes() / 2;
    for log in logs.logs.iter().skip(4) {
        logs.storage.destroy_replica(log.replica()).await.unwrap();
    }
    let Logs { dir, storage, .. } = logs;
    storage.close().await;

    let options = RocksOptions { reclaim_delay: Duration::from_millis(20), ..RocksOptions::default() };
    let storage = Storage::open_rocks(dir.path(), &options).unwrap();
    let logs = Logs { dir, storage, logs: Vec::new() };
    logs.shrink_to(kept).await;
    logs.close_after_reading([]).await;
}

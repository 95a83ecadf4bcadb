//! Damage to any file of a folder. The rule: what is served afterwards is everything that was acknowledged, or
//! a refusal that names the reason; never less without a word.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use fastrand::Rng;
use quorate_storage::{Completion, OpenError, Storage};

use crate::journal::{self, Promises, Refusal, entry, next_index, verify, vote};

const CASES: u64 = 12;

/// A folder whose files are at rest, and what was acknowledged in it.
struct Folder {
    dir: tempfile::TempDir,
    promises: Promises,
}

impl Folder {
    /// With rows in all kinds of files, closed in peace.
    async fn closed() -> Folder {
        let dir = journal::folder_in_memory();
        let mut promises = Promises::new();
        for _ in 0..2 {
            let storage = journal::open(dir.path()).unwrap();
            write(&storage, &mut promises, 150).await;
            storage.close().await;
        }
        Folder { dir, promises }
    }

    /// As a kill leaves it: the newest rows are in the write-ahead log only.
    async fn killed() -> Folder {
        let Folder { dir, mut promises } = Folder::closed().await;
        let storage = journal::open(dir.path()).unwrap();
        write(&storage, &mut promises, 20).await;
        let killed = copy(dir.path());
        storage.close().await;
        Folder { dir: killed, promises }
    }

    fn copy(&self) -> Folder {
        Folder { dir: copy(self.dir.path()), promises: self.promises.clone() }
    }

    fn files(&self, kind: &str) -> Vec<PathBuf> {
        let all = std::fs::read_dir(self.dir.path().join("db")).unwrap().map(|file| file.unwrap().path());
        let is_kind = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            name.ends_with(kind) || name.starts_with(kind)
        };
        let mut files: Vec<_> = all.filter(is_kind).collect();
        files.sort();
        files
    }

    async fn verify(&self) -> Result<(), Refusal> {
        verify(self.dir.path(), &self.promises).await
    }
}

async fn write(storage: &Storage, promises: &mut Promises, entries: u64) {
    for log in journal::open_logs(storage).await.unwrap() {
        let promised = promises.entry(log.replica()).or_default();
        promised.vote += 1;
        log.save_vote(vote(promised.vote)).await.unwrap();
        let first = next_index(&log);
        for index in first..first + entries {
            log.append(vec![entry(log.replica(), index)], Completion::None);
            // Commits of a few entries.
            if index % 5 == 0 {
                storage.commit(Vec::new()).await.unwrap();
            }
        }
        storage.commit(Vec::new()).await.unwrap();
        promised.next = first + entries;
    }
}

/// The files at one moment: tried again if a compaction came between.
fn copy(dir: &Path) -> tempfile::TempDir {
    loop {
        let before = listing(dir);
        let copy = journal::folder_in_memory();
        std::fs::create_dir(copy.path().join("db")).unwrap();
        let copied = before.keys().all(|file| std::fs::copy(dir.join(file), copy.path().join(file)).is_ok());
        if copied && listing(dir) == before {
            return copy;
        }
    }
}

fn listing(dir: &Path) -> BTreeMap<PathBuf, Option<u64>> {
    let mut files = BTreeMap::new();
    for part in ["", "db"] {
        for file in std::fs::read_dir(dir.join(part)).unwrap() {
            let file = file.unwrap();
            if file.file_type().is_ok_and(|kind| kind.is_file()) {
                files.insert(Path::new(part).join(file.file_name()), file.metadata().ok().map(|found| found.len()));
            }
        }
    }
    files
}

fn flip(file: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    byte[0] ^= 1 << (at % 8);
    file.write_all_at(&byte, at).unwrap();
}

fn len(file: &Path) -> u64 {
    std::fs::metadata(file).unwrap().len()
}

fn truncate(file: &Path, len: u64) {
    OpenOptions::new().write(true).open(file).unwrap().set_len(len).unwrap();
}

/// Damages copies of the folder in `CASES` ways; how many of them were refused.
async fn refusals(folder: &Folder, kind: &str, damage: impl Fn(&Path, &mut Rng)) -> usize {
    let mut refused = 0;
    for seed in 0..CASES {
        let mut rng = Rng::with_seed(seed);
        let damaged = folder.copy();
        let files = damaged.files(kind);
        let file = rng.choice(&files).unwrap();
        damage(file, &mut rng);
        match damaged.verify().await {
            Ok(()) => println!("{kind}, seed {seed}: nothing was lost"),
            Err(refusal) => {
                println!("{kind}, seed {seed}: {refusal:?}");
                refused += 1;
                // And it stays refused: the first attempt must not have cleaned up the evidence.
                assert!(damaged.verify().await.is_err(), "the second attempt served less than was acknowledged");
            }
        }
    }
    refused
}

#[tokio::test]
async fn a_flipped_bit_in_any_kind_of_file_is_named_or_harmless() {
    let folder = Folder::closed().await;
    for kind in [".sst", ".blob", "MANIFEST", ".log"] {
        let refused = refusals(&folder, kind, |file, rng| {
            if len(file) > 0 {
                flip(file, rng.u64(0..len(file)));
            }
        });
        let refused = refused.await;
        assert!(refused > 0, "{kind}: no flip hit anything");
    }
}

/// The engine takes a record that is longer than what is left of its file for the torn end of a write.
#[tokio::test]
async fn a_flip_in_the_length_of_any_record_of_the_manifest_is_refused() {
    let folder = Folder::closed().await;
    for at in manifest_records(&folder) {
        assert_refused_without_record(&folder, at).await;
    }
}

/// Also if a flush ends while the storage is being closed.
#[tokio::test]
async fn a_flip_in_the_length_of_the_last_record_of_the_manifest_is_refused_whenever_it_was_written() {
    let mut folder = Folder::closed().await;
    for _ in 0..10 {
        let storage = journal::open(folder.dir.path()).unwrap();
        while !is_flushing(&storage) {
            write(&storage, &mut folder.promises, 10).await;
        }
        storage.close().await;
        let last = *manifest_records(&folder).last().unwrap();
        assert_refused_without_record(&folder, last).await;
    }
}

fn is_flushing(storage: &Storage) -> bool {
    storage.metrics().engine.contains(&("rocksdb.num-running-flushes", 1))
}

const LENGTH_AT: usize = 4;

/// Where each record of the manifest begins.
fn manifest_records(folder: &Folder) -> Vec<usize> {
    const HEADER: usize = 7;
    let manifest = std::fs::read(&folder.files("MANIFEST")[0]).unwrap();
    let mut records = Vec::new();
    let mut at = 0;
    while at < manifest.len() {
        records.push(at);
        at += HEADER + usize::from(manifest[at + LENGTH_AT]) + (usize::from(manifest[at + LENGTH_AT + 1]) << 8);
    }
    assert_eq!(at, manifest.len());
    records
}

async fn assert_refused_without_record(folder: &Folder, at: usize) {
    let damaged = folder.copy();
    let manifest = &damaged.files("MANIFEST")[0];
    let mut bytes = std::fs::read(manifest).unwrap();
    bytes[at + LENGTH_AT + 1] ^= 0x40;
    std::fs::write(manifest, bytes).unwrap();
    for attempt in 1..=2 {
        let refusal = damaged.verify().await.expect_err("a part of the manifest is missing");
        assert!(matches!(refusal, Refusal::Open(OpenError::Corrupt { .. })), "attempt {attempt}: {refusal:?}");
    }
}

#[tokio::test]
async fn a_truncated_file_of_any_kind_is_named_or_harmless() {
    let folder = Folder::closed().await;
    for kind in [".sst", ".blob", "MANIFEST", ".log"] {
        let refused = refusals(&folder, kind, |file, rng| truncate(file, rng.u64(0..=len(file) / 2))).await;
        assert!(refused > 0, "{kind}: no cut took anything");
    }
}

#[tokio::test]
async fn a_missing_file_of_any_kind_is_named_or_harmless() {
    let folder = Folder::closed().await;
    for kind in [".sst", ".blob", "MANIFEST", "CURRENT", ".log"] {
        let refused = refusals(&folder, kind, |file, _| std::fs::remove_file(file).unwrap()).await;
        assert!(refused > 0, "{kind}: no file was missed");
    }
    let damaged = folder.copy();
    std::fs::remove_file(damaged.dir.path().join("floor")).unwrap();
    let refusal = damaged.verify().await.unwrap_err();
    assert!(matches!(&refusal, Refusal::Open(OpenError::Corrupt { detail, .. }) if detail.contains("floor")));
}

/// Without the help of the floor, which is noted once a second: each commit says what was durable before it.
#[tokio::test]
async fn damage_before_a_later_commit_is_proved_by_that_commit() {
    let folder = Folder::killed().await;
    std::fs::write(folder.dir.path().join("floor"), []).unwrap();
    let newest = folder.files(".log").pop().unwrap();
    let data = len(&newest);
    for seed in 0..CASES {
        let mut rng = Rng::with_seed(seed);
        let damaged = folder.copy();
        // The last commits are a few KiB, and a damaged record hides what else begins in its block of 32 KiB.
        flip(&damaged.files(".log").pop().unwrap(), rng.u64(0..data - (48 << 10)));
        let refusal = damaged.verify().await.unwrap_err();
        assert!(matches!(refusal, Refusal::Open(OpenError::LostWrites { .. })), "{refusal:?}");
        assert!(damaged.verify().await.is_err(), "the second attempt finds the evidence in the floor");
    }
}

/// A write that was never acknowledged may be torn anywhere.
#[tokio::test]
async fn a_torn_end_opens() {
    let Folder { dir, promises } = Folder::killed().await;
    let storage = journal::open(dir.path()).unwrap();
    let log = journal::open_logs(&storage).await.unwrap().remove(0);
    storage.commit(Vec::new()).await.unwrap();
    let killed = Folder { dir: copy(dir.path()), promises: promises.clone() };
    let before = len(&killed.files(".log").pop().unwrap());
    log.save_committed(Some(journal::id(7)));
    // In the file as soon as it can be read, and not synced.
    let (done, readable) = tokio::sync::oneshot::channel();
    storage.write_ordered(Vec::new(), Completion::call(|result| done.send(result).unwrap()));
    readable.await.unwrap().unwrap();
    let torn = Folder { dir: copy(dir.path()), promises };
    storage.close().await;

    let newest = torn.files(".log").pop().unwrap();
    let after = len(&newest);
    assert!(after > before, "the write is there to be torn");
    for end in (before..after).step_by(3) {
        let case = torn.copy();
        truncate(&case.files(".log").pop().unwrap(), end);
        case.verify().await.unwrap();
        let case = torn.copy();
        flip(&case.files(".log").pop().unwrap(), end);
        case.verify().await.unwrap();
    }
}

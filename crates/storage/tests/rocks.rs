//! The real engine meets a folder that is in use, damaged, incomplete or of another version.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use quorate_model::{NodeId, ReplicaId};
use quorate_storage::{
    Completion, EntryId, EntryKind, LogEntry, NodeIdentity, OpenError, RaftLog, RocksOptions, RowOp, Storage,
    StorageError, Table, TailCacheLimits,
};

const REPLICA: ReplicaId = ReplicaId::new(65_536);

fn open(dir: &Path) -> Result<Storage, OpenError> {
    Storage::open_rocks(dir, &RocksOptions::default())
}

fn entries(count: u64) -> Vec<LogEntry> {
    let entry = |index| LogEntry {
        id: EntryId { term: 1, index },
        kind: EntryKind::Command,
        body: Bytes::from(vec![b'x'; 5000]),
    };
    (0..count).map(entry).collect()
}

/// Appends, and closes the storage; opening it again writes all of it to blob files.
async fn write_log(dir: &Path, count: u64) {
    let storage = open(dir).unwrap();
    let log = RaftLog::open(&storage, REPLICA, TailCacheLimits::default()).await.unwrap();
    log.append(entries(count), Completion::None);
    storage.close().await;
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let all = std::fs::read_dir(dir.join("db")).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<_> = all.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    files.sort();
    files
}

fn damage(file: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut bytes = [0; 4];
    file.read_exact_at(&mut bytes, at).unwrap();
    file.write_all_at(&bytes.map(|byte| !byte), at).unwrap();
}

#[tokio::test]
async fn a_folder_in_use_is_refused_until_it_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).unwrap();
    let error = open(dir.path()).err().unwrap();
    assert!(matches!(&error, OpenError::InUse { dir: named } if named == dir.path()), "{error}");
    assert!(error.to_string().contains("in use by another process"));

    // Another handle is left when the storage is closed; it is dead, and the folder is free.
    let left_over = storage.clone();
    storage.close().await;
    let reopened = open(dir.path()).unwrap();
    assert_eq!(left_over.commit(Vec::new()).await, Err(StorageError::Closed));
    assert_eq!(left_over.load_identity().await, Err(StorageError::Closed));
    reopened.close().await;
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_an_error_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"not a folder").unwrap();
    let error = open(&file).err().unwrap();
    assert!(matches!(error, OpenError::Io { .. }), "{error}");
    assert!(error.to_string().contains(&*file.to_string_lossy()));
}

#[tokio::test]
async fn identity_and_log_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).unwrap();
    assert_eq!(storage.load_identity().await.unwrap(), None);
    let identity = NodeIdentity { cluster: "books".to_owned(), node: NodeId::new(3), store_id: 77 };
    storage.save_identity(&identity).await.unwrap();
    storage.close().await;
    write_log(dir.path(), 50).await;

    let storage = open(dir.path()).unwrap();
    assert_eq!(storage.load_identity().await.unwrap(), Some(identity));
    let log = RaftLog::open(&storage, REPLICA, TailCacheLimits::default()).await.unwrap();
    assert_eq!(log.read(0..100, u64::MAX).await.unwrap(), entries(50));
    assert_eq!(storage.list_replicas().await.unwrap(), [REPLICA]);

    let metrics = storage.metrics();
    assert!(metrics.engine.iter().any(|(name, value)| *name == "rocksdb.total-blob-file-size" && *value > 50 * 5000));
    storage.close().await;
}

#[tokio::test]
async fn a_damaged_payload_is_corruption_and_is_never_returned() {
    let dir = tempfile::tempdir().unwrap();
    write_log(dir.path(), 50).await;
    open(dir.path()).unwrap().close().await;
    let blobs = files(dir.path(), "blob");
    damage(&blobs[0], 20_000);

    let storage = open(dir.path()).unwrap();
    let log = RaftLog::open(&storage, REPLICA, TailCacheLimits::default()).await.unwrap();
    let error = log.read(0..100, u64::MAX).await.unwrap_err();
    assert!(matches!(error, StorageError::Corruption { .. }), "{error}");
    assert_eq!(log.read(10..20, u64::MAX).await.unwrap(), entries(50)[10..20], "the others are intact");
    storage.close().await;
}

#[tokio::test]
async fn damage_in_the_middle_of_the_write_ahead_log_is_not_taken_for_a_torn_end() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).unwrap();
    let log = RaftLog::open(&storage, REPLICA, TailCacheLimits::default()).await.unwrap();
    for entry in entries(50) {
        log.append(vec![entry], Completion::None);
        storage.commit(Vec::new()).await.unwrap();
    }
    storage.close().await;
    damage(files(dir.path(), "log").last().unwrap(), 100_000);

    let error = open(dir.path()).err().unwrap();
    let OpenError::LostWrites { floor, recovered, .. } = &error else { panic!("{error}") };
    assert!(recovered < floor, "{error}");
}

#[tokio::test]
async fn a_damaged_manifest_is_corruption() {
    let dir = tempfile::tempdir().unwrap();
    write_log(dir.path(), 5).await;
    let all = std::fs::read_dir(dir.path().join("db")).unwrap().map(|file| file.unwrap().path());
    let manifest =
        all.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("MANIFEST")).max().unwrap();
    damage(&manifest, 10);
    let error = open(dir.path()).err().unwrap();
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
}

#[tokio::test]
async fn a_folder_of_another_layout_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).unwrap();
    let layout = RowOp::Put { table: Table::Node, key: vec![0], value: Bytes::from_static(&[9]) };
    storage.commit(vec![layout]).await.unwrap();
    storage.close().await;
    let error = open(dir.path()).err().unwrap();
    assert!(matches!(error, OpenError::Layout { found: 9, supported: 2, .. }), "{error}");
}

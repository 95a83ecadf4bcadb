//! Logs whose content follows from replica and index, so that whoever reads them knows what must be there.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use fastrand::Rng;
use quorate_model::ReplicaId;
use quorate_storage::{
    EntryId, EntryKind, LogEntry, OpenError, RaftLog, RocksOptions, Storage, StorageError, TailCacheLimits,
};

/// They share every file.
pub(crate) const REPLICAS: [ReplicaId; 3] = [ReplicaId::new(65_536), ReplicaId::new(65_537), ReplicaId::new(65_540)];
/// Entries that stay when the head of a log is purged.
pub(crate) const KEPT: u64 = 100;

/// Buffers so small that rows are in every kind of file soon.
pub(crate) fn open(dir: &Path) -> Result<Storage, OpenError> {
    Storage::open_rocks(dir, &RocksOptions { memory_bytes: 1 << 20, ..RocksOptions::default() })
}

/// A folder whose fsyncs cost nothing where the system has such a place: for tests that don't need them.
pub(crate) fn folder_in_memory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    folder.unwrap()
}

pub(crate) async fn open_logs(storage: &Storage) -> Result<Vec<RaftLog>, StorageError> {
    let mut logs = Vec::new();
    for replica in REPLICAS {
        logs.push(RaftLog::open(storage, replica, TailCacheLimits { bytes: 0 }).await?);
    }
    Ok(logs)
}

pub(crate) fn next_index(log: &RaftLog) -> u64 {
    log.bounds().last.map_or(0, |last| last.index + 1)
}

/// Some are blobs, some lie with their keys.
pub(crate) fn entry(replica: ReplicaId, index: u64) -> LogEntry {
    let mut rng = Rng::with_seed(replica.get() << 32 | index);
    let len = rng.usize(0..4000);
    let body: Bytes = std::iter::repeat_with(|| rng.u8(..)).take(len).collect();
    LogEntry { id: id(index), kind: EntryKind::Command, body }
}

pub(crate) fn id(index: u64) -> EntryId {
    EntryId { term: 1, index }
}

/// Votes rise, so that an older one is told from a newer one.
pub(crate) fn vote(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

/// What has been acknowledged for a replica.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    /// One past the last entry.
    pub(crate) next: u64,
    pub(crate) vote: u64,
}

pub(crate) type Promises = BTreeMap<ReplicaId, Acknowledged>;

/// Why a folder serves less than it should: what the node would say.
#[derive(Debug)]
#[allow(dead_code, reason = "printed")]
pub(crate) enum Refusal {
    Open(OpenError),
    Replica(StorageError),
}

/// Opens the folder and reads everything.
///
/// # Panics
/// If it holds less than was promised and doesn't say so, or anything that nobody wrote.
pub(crate) async fn verify(dir: &Path, promises: &Promises) -> Result<(), Refusal> {
    let storage = open(dir).map_err(Refusal::Open)?;
    let found = verify_logs(&storage, promises).await;
    storage.close().await;
    found.map_err(Refusal::Replica)
}

async fn verify_logs(storage: &Storage, promises: &Promises) -> Result<(), StorageError> {
    for log in open_logs(storage).await? {
        let replica = log.replica();
        let promised = promises.get(&replica).copied().unwrap_or_default();
        let next = next_index(&log);
        assert!(next >= promised.next, "{replica} ends before {next}, and {promised:?} was acknowledged");
        let vote = log.vote().map_or(0, |vote| u64::from_be_bytes(vote.as_ref().try_into().unwrap()));
        assert!(vote >= promised.vote, "{replica} voted {vote}, and {promised:?} was acknowledged");

        let first = log.bounds().purged.map_or(0, |purged| purged.index + 1);
        assert!(first == 0 || first + KEPT <= next, "{replica} lost more than was purged: {first}..{next}");
        let entries = log.read(first..next, u64::MAX).await?;
        assert_eq!(entries.len() as u64, next - first);
        for (index, found) in (first..).zip(entries) {
            assert_eq!(found, entry(replica, index), "{replica} holds an entry that nobody wrote");
        }
    }
    Ok(())
}

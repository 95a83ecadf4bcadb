#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::*;
use crate::entry::EntryKind;
use crate::sim::SimDisk;
use crate::state_store::StateStore;

const REPLICA: ReplicaId = ReplicaId::new(7);
/// Nothing durable stays in memory, so every read of a durable entry goes to the disk.
const NO_CACHE: TailCacheLimits = TailCacheLimits { bytes: 0 };

fn disk() -> SimDisk {
    SimDisk::new(|| Duration::from_millis(1))
}

fn open_disk(disk: &SimDisk) -> Storage {
    disk.open(Path::new("sim")).unwrap()
}

async fn log_on(storage: &Storage) -> RaftLog {
    RaftLog::open(storage, REPLICA, NO_CACHE).await.unwrap()
}

fn id(term: u64, index: u64) -> EntryId {
    EntryId { term, index }
}

fn entries(term: u64, indices: Range<u64>) -> Vec<LogEntry> {
    let entry = |index| LogEntry { id: id(term, index), kind: EntryKind::Command, body: Bytes::from(vec![0; 10]) };
    indices.map(entry).collect()
}

async fn append(log: &RaftLog, term: u64, indices: Range<u64>) {
    let (done, durable) = oneshot::channel();
    log.append(entries(term, indices), Completion::call(move |result| done.send(result).unwrap()));
    durable.await.unwrap().unwrap();
}

async fn ids(log: &RaftLog, range: Range<u64>) -> Vec<(u64, u64)> {
    let entries = log.read(range, u64::MAX).await.unwrap();
    entries.iter().map(|entry| (entry.id.term, entry.id.index)).collect()
}

#[tokio::test(start_paused = true)]
async fn entries_can_be_read_before_and_after_they_are_durable() {
    let log = log_on(&open_disk(&disk())).await;
    assert_eq!(log.bounds(), LogBounds { purged: None, last: None });
    assert_eq!(log.cached(0..10, u64::MAX), Some(Vec::new()));

    log.append(entries(1, 0..3), Completion::None);
    assert_eq!(log.bounds().last, Some(id(1, 2)));
    assert_eq!(log.cached(1..9, u64::MAX), Some(entries(1, 1..3)), "not durable, so in memory");

    append(&log, 1, 3..5).await;
    assert_eq!(log.cached(0..9, u64::MAX), None, "durable, so evicted");
    assert_eq!(log.read(0..9, u64::MAX).await.unwrap(), entries(1, 0..5));

    // A read that begins on disk and ends in memory.
    log.append(entries(1, 5..8), Completion::None);
    assert_eq!(log.read(3..7, u64::MAX).await.unwrap(), entries(1, 3..7));
}

#[tokio::test(start_paused = true)]
async fn a_read_is_bounded_by_bytes_and_returns_at_least_one_entry() {
    let log = log_on(&open_disk(&disk())).await;
    append(&log, 1, 0..600).await;
    log.append(entries(1, 600..603), Completion::None);
    for (range, bytes_max, expected) in [
        (0..603, 0, 0..1),
        (0..603, 10, 0..1),
        (0..603, 11, 0..2),
        (598..603, 40, 598..602),
        (601..603, 1, 601..602),
        (0..603, u64::MAX, 0..603),
        (603..700, u64::MAX, 0..0),
    ] {
        assert_eq!(log.read(range, bytes_max).await.unwrap(), entries(1, expected));
    }
}

#[tokio::test(start_paused = true)]
async fn completions_run_in_the_order_of_the_appends() {
    let log = log_on(&open_disk(&disk())).await;
    let completed = Arc::new(AtomicU64::new(0));
    for number in 0..20 {
        let completed = Arc::clone(&completed);
        let done = move |result: Result<(), StorageError>| {
            assert_eq!(result, Ok(()));
            assert_eq!(completed.fetch_add(1, Ordering::SeqCst), number);
        };
        log.append(entries(1, number..number + 1), Completion::call(done));
        if number % 3 == 0 {
            tokio::task::yield_now().await;
        }
    }
    append(&log, 1, 20..21).await;
    assert_eq!(completed.load(Ordering::SeqCst), 20);
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "appends entry 4 where Some(3) belongs")]
async fn a_gap_is_never_appended() {
    let log = log_on(&open_disk(&disk())).await;
    append(&log, 1, 0..3).await;
    log.append(entries(1, 4..5), Completion::None);
}

#[tokio::test(start_paused = true)]
async fn truncation_makes_room_for_another_leaders_entries() {
    let disk = disk();
    let storage = open_disk(&disk);
    let log = log_on(&storage).await;
    append(&log, 1, 0..6).await;
    log.truncate_after(Some(id(1, 9)));
    assert_eq!(log.bounds().last, Some(id(1, 5)), "beyond the end nothing happens");

    log.truncate_after(Some(id(1, 2)));
    assert_eq!(log.bounds().last, Some(id(1, 2)));
    assert_eq!(ids(&log, 0..9).await, [(1, 0), (1, 1), (1, 2)]);
    append(&log, 2, 3..5).await;
    let expected = [(1, 0), (1, 1), (1, 2), (2, 3), (2, 4)];
    assert_eq!(ids(&log, 0..9).await, expected);

    storage.close().await;
    let storage = open_disk(&disk);
    let log = log_on(&storage).await;
    assert_eq!(ids(&log, 0..9).await, expected);
    log.truncate_after(None);
    assert_eq!(log.bounds(), LogBounds { purged: None, last: None });
    append(&log, 3, 0..1).await;
    storage.close().await;
    assert_eq!(ids(&log_on(&open_disk(&disk)).await, 0..9).await, [(3, 0)]);
}

#[tokio::test(start_paused = true)]
async fn purged_entries_are_hidden_and_remembered() {
    let disk = disk();
    let storage = open_disk(&disk);
    let log = log_on(&storage).await;
    append(&log, 1, 0..6).await;
    assert_eq!(log.purge(id(1, 2)), PurgeOutcome::Trimmed);
    assert_eq!(log.purge(id(1, 1)), PurgeOutcome::Unchanged);
    assert_eq!(ids(&log, 0..9).await, [(1, 3), (1, 4), (1, 5)]);
    log.truncate_after(None);
    let emptied = LogBounds { purged: Some(id(1, 2)), last: Some(id(1, 2)) };
    assert_eq!(log.bounds(), emptied, "what is purged can't be truncated");

    storage.close().await;
    let storage = open_disk(&disk);
    let log = log_on(&storage).await;
    assert_eq!(log.bounds(), emptied);
    append(&log, 2, 3..5).await;
    assert_eq!(log.purge(id(5, 20)), PurgeOutcome::BeyondEnd);
    let beyond = LogBounds { purged: Some(id(5, 20)), last: Some(id(5, 20)) };
    assert_eq!(log.bounds(), beyond);
    storage.close().await;
    let log = log_on(&open_disk(&disk)).await;
    assert_eq!(log.bounds(), beyond);
    assert_eq!(ids(&log, 0..99).await, []);
    append(&log, 5, 21..23).await;
    assert_eq!(ids(&log, 0..99).await, [(5, 21), (5, 22)]);
}

#[tokio::test(start_paused = true)]
async fn a_hole_is_an_error_and_never_skipped() {
    let storage = open_disk(&disk());
    let log = log_on(&storage).await;
    append(&log, 1, 0..6).await;
    storage.commit(vec![RowOp::Delete { table: Table::Log, key: keys::entry(REPLICA, 3) }]).await.unwrap();
    let hole = StorageError::Hole { replica: REPLICA, expected: 3 };
    assert_eq!(log.read(3..6, u64::MAX).await, Err(hole.clone()));
    assert_eq!(log.read(0..6, u64::MAX).await, Err(hole));
    assert_eq!(ids(&log, 0..3).await, [(1, 0), (1, 1), (1, 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_does_not_join_its_purge_point_is_not_opened() {
    let storage = open_disk(&disk());
    let log = log_on(&storage).await;
    append(&log, 1, 0..6).await;
    log.purge(id(1, 2));
    storage.commit(vec![RowOp::Delete { table: Table::Log, key: keys::entry(REPLICA, 3) }]).await.unwrap();
    let hole = StorageError::Hole { replica: REPLICA, expected: 3 };
    assert_eq!(RaftLog::open(&storage, REPLICA, NO_CACHE).await.err(), Some(hole));
}

#[tokio::test(start_paused = true)]
async fn a_log_behind_its_checkpoint_is_not_opened() {
    let storage = open_disk(&disk());
    let log = log_on(&storage).await;
    append(&log, 1, 0..3).await;
    let checkpoint = |index| Checkpoint {
        last_applied: Some(id(1, index)),
        membership: Bytes::new(),
        machine: Bytes::from_static(b"state"),
    };
    let state = StateStore::new(&storage, REPLICA);
    state.save_checkpoint(&checkpoint(2));
    storage.commit(Vec::new()).await.unwrap();
    assert!(RaftLog::open(&storage, REPLICA, NO_CACHE).await.is_ok(), "at the end of the log");

    state.save_checkpoint(&checkpoint(3));
    storage.commit(Vec::new()).await.unwrap();
    let lost = StorageError::AppliedBeyondLog { replica: REPLICA, applied: id(1, 3), last: Some(id(1, 2)) };
    assert_eq!(RaftLog::open(&storage, REPLICA, NO_CACHE).await.err(), Some(lost));

    // A checkpoint from the leader may lie beyond the log, because it moves the log along.
    let outcome = state.install_checkpoint(&log, &checkpoint(10)).await.unwrap();
    assert_eq!(outcome, PurgeOutcome::BeyondEnd);
    let log = RaftLog::open(&storage, REPLICA, NO_CACHE).await.unwrap();
    assert_eq!(log.bounds(), LogBounds { purged: Some(id(1, 10)), last: Some(id(1, 10)) });
}

#[tokio::test(start_paused = true)]
async fn a_vote_is_durable_when_it_is_saved() {
    let disk = disk();
    let storage = open_disk(&disk);
    let log = log_on(&storage).await;
    assert_eq!((log.vote(), log.committed()), (None, None));
    log.save_committed(Some(id(1, 1)));
    log.save_vote(Bytes::from_static(b"term 3")).await.unwrap();
    assert_eq!(log.vote(), Some(Bytes::from_static(b"term 3")));
    disk.crash();

    let storage = open_disk(&disk);
    let log = log_on(&storage).await;
    assert_eq!(log.vote(), Some(Bytes::from_static(b"term 3")));
    assert_eq!(log.committed(), Some(id(1, 1)), "ordered before the vote, so durable with it");
    log.save_committed(None);
    storage.close().await;
    assert_eq!(log_on(&open_disk(&disk)).await.committed(), None);
}

#[tokio::test(start_paused = true)]
async fn destroying_a_replica_leaves_the_others_alone() {
    let storage = open_disk(&disk());
    let mut logs = Vec::new();
    for replica in [1, 2, 65_536] {
        let log = RaftLog::open(&storage, ReplicaId::new(replica), NO_CACHE).await.unwrap();
        append(&log, 1, 0..3).await;
        log.save_vote(Bytes::from_static(b"v")).await.unwrap();
        logs.push(log);
    }
    // This one has a vote and nothing else.
    let voter = RaftLog::open(&storage, ReplicaId::new(u64::MAX), NO_CACHE).await.unwrap();
    voter.save_vote(Bytes::from_static(b"v")).await.unwrap();
    let all = [1, 2, 65_536, u64::MAX].map(ReplicaId::new);
    assert_eq!(storage.list_replicas().await.unwrap(), all);

    storage.destroy_replica(ReplicaId::new(2)).await.unwrap();
    storage.destroy_replica(ReplicaId::new(u64::MAX)).await.unwrap();
    assert_eq!(storage.list_replicas().await.unwrap(), [1, 65_536].map(ReplicaId::new));
    assert_eq!(ids(&logs[0], 0..9).await.len(), 3);
    let fresh = RaftLog::open(&storage, ReplicaId::new(2), NO_CACHE).await.unwrap();
    assert_eq!((fresh.bounds(), fresh.vote()), (LogBounds { purged: None, last: None }, None));
}

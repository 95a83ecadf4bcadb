#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::entry::{EntryId, EntryKind, LogEntry};
use crate::sim::SimDisk;
use crate::tail_cache::TailCacheLimits;

const REPLICA: ReplicaId = ReplicaId::new(7);

fn storage() -> Storage {
    SimDisk::new(|| Duration::from_millis(1)).open(Path::new("sim")).unwrap()
}

/// Segment `number` has entries 64n.. and offsets 10n..10n+10, and its newest record is of time 100n.
fn segment(number: u64) -> IndexSegment {
    IndexSegment {
        first_index: 64 * number,
        base_offset: Offset::new(10 * number),
        accepted: 0b11,
        entries: 64,
        end_offset: Offset::new(10 * number + 10),
        max_timestamp_ms: 100 * number,
        bytes: 1000,
    }
}

async fn found(state: &StateStore, offset: u64) -> Option<u64> {
    let segment = state.find_segment(Offset::new(offset)).await.unwrap();
    segment.map(|segment| segment.base_offset.get())
}

#[tokio::test(start_paused = true)]
async fn a_segment_is_found_at_once_and_also_later() {
    let storage = storage();
    let state = StateStore::new(&storage, REPLICA);
    assert_eq!(found(&state, 0).await, None);
    state.put_segments((0..3).map(segment).collect());
    let expected = [(0, Some(0)), (9, Some(0)), (10, Some(10)), (29, Some(20)), (30, None)];
    for (offset, base) in expected {
        assert_eq!(found(&state, offset).await, base, "from memory");
    }
    storage.commit(Vec::new()).await.unwrap();
    let reopened = StateStore::new(&storage, REPLICA);
    for (offset, base) in expected {
        assert_eq!(found(&reopened, offset).await, base, "from the database");
    }
    assert_eq!(found(&StateStore::new(&storage, ReplicaId::new(6)), 5).await, None, "another replica's");
}

#[tokio::test(start_paused = true)]
async fn memory_keeps_the_newest_segments_and_all_that_are_not_readable_yet() {
    let storage = storage();
    let state = StateStore::new(&storage, REPLICA);
    let many = 3 * RECENT_SEGMENTS as u64;
    for number in 0..many {
        state.put_segments(vec![segment(number)]);
    }
    assert_eq!(state.lock().segments.len() as u64, many, "the writer has not run yet");
    storage.commit(Vec::new()).await.unwrap();
    assert_eq!(state.lock().segments.len(), RECENT_SEGMENTS);
    for number in 0..many {
        assert_eq!(found(&state, 10 * number + 5).await, Some(10 * number));
    }
}

#[tokio::test(start_paused = true)]
async fn segments_are_listed_across_memory_and_database() {
    let storage = storage();
    let state = StateStore::new(&storage, REPLICA);
    let many = 2 * RECENT_SEGMENTS as u64;
    state.put_segments((0..many).map(segment).collect());
    storage.commit(Vec::new()).await.unwrap();
    state.put_segments(vec![segment(many)]);
    let numbers = |segments: Vec<IndexSegment>| segments.iter().map(|s| s.base_offset.get() / 10).collect::<Vec<_>>();
    for (from, max, expected) in [(0, 3, 0..3), (15, 3, 1..4), (1275, 9, 127..129), (1290, 9, 0..0)] {
        let listed = state.segments_from(Offset::new(from), max).await.unwrap();
        assert_eq!(numbers(listed), expected.collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_segment_with_a_record_as_new_is_found() {
    let storage = storage();
    let state = StateStore::new(&storage, REPLICA);
    let many = SCAN_SEGMENTS as u64 + 10;
    state.put_segments((0..many).map(segment).collect());
    storage.commit(Vec::new()).await.unwrap();
    for (time_ms, from, expected) in [
        (0, 0, Some(0)),
        (1, 0, Some(1)),
        (100, 0, Some(1)),
        (101, 0, Some(2)),
        (0, 55, Some(5)),
        (100 * (many - 1), 0, Some(many - 1)),
        (100 * many, 0, None),
    ] {
        let segment = state.find_segment_by_time(time_ms, Offset::new(from)).await.unwrap();
        assert_eq!(segment.map(|segment| segment.base_offset.get() / 10), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_checkpoint_counts() {
    let storage = storage();
    let state = StateStore::new(&storage, REPLICA);
    assert_eq!(state.load_checkpoint().await.unwrap(), None);
    state.save_checkpoint(&checkpoint(1));
    state.save_checkpoint(&checkpoint(2));
    storage.commit(Vec::new()).await.unwrap();
    assert_eq!(state.load_checkpoint().await.unwrap(), Some(checkpoint(2)));
}

fn checkpoint(index: u64) -> Checkpoint {
    Checkpoint {
        last_applied: Some(EntryId { term: 1, index }),
        membership: Bytes::from_static(b"m"),
        machine: Bytes::from(vec![1; 100]),
    }
}

async fn log_of(storage: &Storage, entries: u64) -> RaftLog {
    let log = RaftLog::open(storage, REPLICA, TailCacheLimits::default()).await.unwrap();
    let entry = |index| LogEntry { id: EntryId { term: 1, index }, kind: EntryKind::Blank, body: Bytes::new() };
    log.append((0..entries).map(entry).collect(), Completion::None);
    log
}

async fn kept(state: &StateStore, indices: &[u64]) -> Vec<u64> {
    let mut found = Vec::new();
    for index in indices {
        found.extend(state.kept_checkpoint(*index).await.unwrap().map(|found| found.last_applied.unwrap().index));
    }
    found
}

/// R4: the log is purged in one write with all that only the purged part needed, and the checkpoint to go on
/// from was written before.
#[tokio::test(start_paused = true)]
async fn a_purge_takes_index_and_older_checkpoints_along() {
    let storage = storage();
    let state = StateStore::new(&storage, REPLICA);
    let log = log_of(&storage, 300).await;
    state.put_segments((0..4).map(segment).collect());
    for index in [63, 127, 191] {
        state.keep_checkpoint(&checkpoint(index));
    }
    assert_eq!(state.oldest_kept_checkpoint().await.unwrap(), Some(checkpoint(63)), "readable at once");

    let upto = checkpoint(127).last_applied.unwrap();
    assert_eq!(state.purge(&log, upto, Some(Offset::new(20))), PurgeOutcome::Trimmed);
    assert_eq!(kept(&state, &[63, 127, 191]).await, [127, 191]);
    assert_eq!(found(&state, 19).await, None);
    assert!(state.is_removed(Offset::new(19)) && !state.is_removed(Offset::new(20)));
    assert_eq!(found(&state, 20).await, Some(20));

    // So it is after a restart.
    let reopened = StateStore::new(&storage, REPLICA);
    assert_eq!(reopened.oldest_kept_checkpoint().await.unwrap(), Some(checkpoint(127)));
    assert_eq!((found(&reopened, 19).await, found(&reopened, 20).await), (None, Some(20)));
    let log = RaftLog::open(&storage, REPLICA, TailCacheLimits::default()).await.unwrap();
    assert_eq!(log.bounds().purged, Some(upto));
    // What has been purged is not purged again.
    assert_eq!(reopened.purge(&log, upto, None), PurgeOutcome::Unchanged);
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_from_the_leader_replaces_all_that_was_before_it() {
    let storage = storage();
    let state = StateStore::new(&storage, REPLICA);
    let log = log_of(&storage, 100).await;
    state.put_segments(vec![segment(0)]);
    state.keep_checkpoint(&checkpoint(50));
    let outcome = state.install_checkpoint(&log, &checkpoint(500)).await.unwrap();
    assert_eq!(outcome, PurgeOutcome::BeyondEnd);
    assert_eq!(kept(&state, &[50, 500]).await, [500]);
    assert_eq!(state.load_checkpoint().await.unwrap(), Some(checkpoint(500)));
    assert_eq!(found(&state, 5).await, None);
    assert!(state.is_removed(Offset::new(5)));
}

#[tokio::test(start_paused = true)]
async fn an_index_row_that_is_damaged_is_named() {
    let storage = storage();
    let state = StateStore::new(&storage, REPLICA);
    let row = RowOp::Put { table: Table::Index, key: keys::segment(REPLICA, 0, 0), value: Bytes::from_static(b"\x09") };
    storage.commit(vec![row]).await.unwrap();
    let error = state.find_segment(Offset::new(0)).await.unwrap_err();
    assert!(matches!(error, StorageError::MalformedRow { table: Table::Index, .. }), "{error}");
}

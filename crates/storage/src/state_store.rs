use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use quorate_model::sabotage::{Bug, is_planted};
use quorate_model::{IndexSegment, Offset, ReplicaId};
use tokio::sync::oneshot;

use crate::checkpoint::Checkpoint;
use crate::engine::{Direction, RowOp, RowReader, ScanLimit, Table};
use crate::entry::EntryId;
use crate::error::StorageError;
use crate::keys;
use crate::lanes::LaneWrites;
use crate::log_writer::Completion;
use crate::raft_log::{PurgeOutcome, RaftLog};
use crate::storage::Storage;

/// Checkpoints and offset index of one replica. Cloning gives another handle to the same rows.
///
/// Nothing here causes an fsync: all of it can be made again by applying the log, and it goes through
/// the same queue as the log, so that what is durable of it never runs ahead of the durable log.
#[derive(Clone)]
pub struct StateStore {
    storage: Storage,
    replica: ReplicaId,
    recent: Arc<Mutex<Recent>>,
    lane_writes: Arc<LaneWrites>,
}

/// The newest segments. They are read most, and the last of them are not on disk yet.
#[derive(Default)]
struct Recent {
    segments: VecDeque<IndexSegment>,
    /// Segments ever put; the last one in `segments` has this number.
    put: u64,
    /// Segments up to this number can be read from the database.
    readable: u64,
    /// Segments below this offset were removed, as far as this process knows.
    removed_to: Offset,
}

/// Readable segments to keep in memory: about 4,000 entries.
const RECENT_SEGMENTS: usize = 64;
/// Index rows fetched at a time while looking for a timestamp.
const SCAN_SEGMENTS: usize = 1024;

impl StateStore {
    /// The rows of a replica; reads nothing yet.
    pub fn new(storage: &Storage, replica: ReplicaId) -> StateStore {
        StateStore { storage: storage.clone(), replica, recent: Arc::default(), lane_writes: Arc::default() }
    }

    pub(crate) fn storage(&self) -> &Storage {
        &self.storage
    }

    pub(crate) fn reader(&self) -> &Arc<dyn RowReader> {
        self.storage.reader()
    }

    pub(crate) fn lane_writes(&self) -> &Arc<LaneWrites> {
        &self.lane_writes
    }

    /// Whose rows they are.
    pub fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// Replaces the checkpoint, in order with the log.
    pub fn save_checkpoint(&self, checkpoint: &Checkpoint) {
        self.storage.write_ordered(vec![self.checkpoint_row(checkpoint)], Completion::None);
    }

    /// Keeps a checkpoint, besides the one of [`StateStore::save_checkpoint`], until the log is purged beyond it:
    /// a follower that the log no longer reaches can go on from there.
    ///
    /// # Panics
    /// If the state contains no entry.
    pub fn keep_checkpoint(&self, checkpoint: &Checkpoint) {
        self.storage.write_ordered(vec![self.kept_row(checkpoint)], Completion::None);
    }

    /// The kept checkpoint after the entry `index`, also if it was kept a moment ago.
    pub async fn kept_checkpoint(&self, index: u64) -> Result<Option<Checkpoint>, StorageError> {
        self.written().await?;
        let row = self.storage.reader().get(Table::State, keys::kept(self.replica, index)).await?;
        row.map(|row| Checkpoint::from_row(&row)).transpose()
    }

    /// The kept checkpoint that lies furthest back: once the log was purged, the one to follow it from.
    pub async fn oldest_kept_checkpoint(&self) -> Result<Option<Checkpoint>, StorageError> {
        self.written().await?;
        let keys = keys::kept(self.replica, 0)..keys::kept(self.replica, u64::MAX);
        let limit = ScanLimit { rows: 1, bytes: 1 };
        let rows = self.storage.reader().scan(Table::State, keys, limit, Direction::Forward).await?;
        rows.first().map(|(_, row)| Checkpoint::from_row(row)).transpose()
    }

    /// Purges the log up to `upto`, and in the same write the checkpoints kept before it and, if the records before
    /// `log_start` are all behind it, their index.
    pub fn purge(&self, log: &RaftLog, upto: EntryId, log_start: Option<Offset>) -> PurgeOutcome {
        let kept_from = if is_planted(Bug::PurgeTakesCheckpoint) { upto.index + 1 } else { upto.index };
        let mut rows = vec![self.delete_kept(0, kept_from)];
        if let Some(log_start) = log_start {
            let keys = keys::segments(self.replica, 0..log_start.get());
            rows.push(RowOp::DeleteRange { table: Table::Index, from: keys.start, to: keys.end });
            self.lock().remove_to(log_start);
        }
        log.purge_and(upto, rows)
    }

    /// Whether the segment with the record at `offset` was removed, as far as this process knows.
    pub(crate) fn is_removed(&self, offset: Offset) -> bool {
        offset < self.lock().removed_to
    }

    /// Replaces the checkpoint by one from the leader, purges the log up to it, and removes the index of what lies
    /// before it, atomically; returns once that is durable. In two steps, a crash between them would leave a state
    /// ahead of its log, which looks exactly like a log that lost its end.
    pub async fn install_checkpoint(
        &self,
        log: &RaftLog,
        checkpoint: &Checkpoint,
    ) -> Result<PurgeOutcome, StorageError> {
        assert_eq!(log.replica(), self.replica, "a checkpoint and its log are one replica's");
        let row = self.checkpoint_row(checkpoint);
        let Some(upto) = checkpoint.last_applied else {
            return self.storage.commit(vec![row]).await.map(|()| PurgeOutcome::Unchanged);
        };
        // Whatever was applied here lies before it, and so does the index of it.
        if is_planted(Bug::CheckpointInTwoSteps) {
            self.storage.commit(vec![row.clone()]).await?;
        }
        let index = keys::segments(self.replica, 0..u64::MAX);
        let rows = vec![
            row,
            self.delete_kept(0, u64::MAX),
            self.kept_row(checkpoint),
            RowOp::DeleteRange { table: Table::Index, from: index.start, to: index.end },
            self.delete_lanes(),
        ];
        self.lock().remove_all();
        log.purge_with(upto, rows).await
    }

    /// The checkpoint that was saved last, as far as it has been committed.
    pub async fn load_checkpoint(&self) -> Result<Option<Checkpoint>, StorageError> {
        let row = self.storage.reader().get(Table::State, keys::checkpoint(self.replica)).await?;
        row.map(|row| Checkpoint::from_row(&row)).transpose()
    }

    /// Adds closed segments of the offset index. They can be found when this returns, so it must be
    /// called before anybody is told of the segment that follows them.
    pub fn put_segments(&self, segments: Vec<IndexSegment>) {
        if segments.is_empty() {
            return;
        }
        let op = |segment: &IndexSegment| RowOp::Put {
            table: Table::Index,
            key: keys::segment(self.replica, segment.base_offset.get(), segment.first_index),
            value: Bytes::from(segment.encode()),
        };
        let ops = segments.iter().map(op).collect();
        let put = {
            let mut recent = self.lock();
            recent.put += segments.len() as u64;
            recent.segments.extend(segments);
            recent.put
        };
        let recent = Arc::clone(&self.recent);
        let readable = move |result: Result<(), StorageError>| {
            if result.is_ok() {
                recent.lock().unwrap_or_else(PoisonError::into_inner).readable_up_to(put);
            }
        };
        self.storage.write_ordered(ops, Completion::call(readable));
    }

    /// The closed segment with the record at `offset`.
    pub async fn find_segment(&self, offset: Offset) -> Result<Option<IndexSegment>, StorageError> {
        // Memory first: a segment leaves it only after the database has it.
        if let Some(segment) = self.lock().find(offset) {
            return Ok(Some(segment));
        }
        let keys = keys::segments(self.replica, 0..offset.get().saturating_add(1));
        let rows = self.scan(keys, 1, Direction::Backward).await?;
        Ok(rows.into_iter().find(|segment| segment.offsets().contains(&offset)))
    }

    /// The closed segments from the one with the record at `offset` on, or from the first one after it;
    /// at most `segments_max`.
    pub async fn segments_from(&self, offset: Offset, segments_max: usize) -> Result<Vec<IndexSegment>, StorageError> {
        let start = self.find_segment(offset).await?.map_or(offset, |segment| segment.base_offset);
        // Memory before the database, for the same reason as above.
        let in_memory: Vec<IndexSegment> = self.lock().segments.iter().copied().collect();
        let keys = keys::segments(self.replica, start.get()..u64::MAX);
        let on_disk = self.scan(keys, segments_max, Direction::Forward).await?;

        let all = on_disk.into_iter().chain(in_memory).filter(|segment| segment.base_offset >= start);
        let in_order: BTreeMap<_, _> =
            all.map(|segment| ((segment.base_offset, segment.first_index), segment)).collect();
        Ok(in_order.into_values().take(segments_max).collect())
    }

    /// The first closed segment at or after `from` that has a record as new as `time_ms`.
    ///
    /// Producers choose timestamps, so they need not rise with the offsets, and every row from `from`
    /// on may have to be looked at: 64 entries each, some milliseconds for a log of gigabytes.
    pub async fn find_segment_by_time(&self, time_ms: u64, from: Offset) -> Result<Option<IndexSegment>, StorageError> {
        let mut next = from;
        loop {
            let segments = self.segments_from(next, SCAN_SEGMENTS).await?;
            if let Some(found) = segments.iter().find(|segment| segment.max_timestamp_ms >= time_ms) {
                return Ok(Some(*found));
            }
            match segments.last() {
                Some(last) if segments.len() == SCAN_SEGMENTS => next = last.end_offset,
                _ => return Ok(None),
            }
        }
    }

    fn checkpoint_row(&self, checkpoint: &Checkpoint) -> RowOp {
        RowOp::Put { table: Table::State, key: keys::checkpoint(self.replica), value: checkpoint.to_row() }
    }

    fn kept_row(&self, checkpoint: &Checkpoint) -> RowOp {
        let index = checkpoint.last_applied.expect("a kept checkpoint contains an entry").index;
        RowOp::Put { table: Table::State, key: keys::kept(self.replica, index), value: checkpoint.to_row() }
    }

    fn delete_kept(&self, first: u64, end: u64) -> RowOp {
        let (from, to) = (keys::kept(self.replica, first), keys::kept(self.replica, end));
        RowOp::DeleteRange { table: Table::State, from, to }
    }

    /// Returns once all that was enqueued so far is durable, the log of every replica included.
    pub async fn synced(&self) -> Result<(), StorageError> {
        self.storage.commit(Vec::new()).await
    }

    /// Waits until all that was enqueued so far can be read.
    pub(crate) async fn written(&self) -> Result<(), StorageError> {
        let (done, written) = oneshot::channel();
        // If the caller is gone there is nobody to tell.
        self.storage.write_ordered(Vec::new(), Completion::call(move |result| drop(done.send(result))));
        written.await.unwrap_or(Err(StorageError::Closed))
    }

    async fn scan(
        &self,
        keys: std::ops::Range<Vec<u8>>,
        rows: usize,
        direction: Direction,
    ) -> Result<Vec<IndexSegment>, StorageError> {
        let limit = ScanLimit { rows, bytes: u64::MAX };
        let rows = self.storage.reader().scan(Table::Index, keys, limit, direction).await?;
        let decode = |row: &Bytes| {
            IndexSegment::decode(row).map_err(|error| StorageError::malformed(Table::Index, error.to_string()))
        };
        rows.iter().map(|(_, row)| decode(row)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recent {
    fn find(&self, offset: Offset) -> Option<IndexSegment> {
        self.segments.iter().rev().find(|segment| segment.offsets().contains(&offset)).copied()
    }

    fn remove_to(&mut self, offset: Offset) {
        self.removed_to = self.removed_to.max(offset);
        self.segments.retain(|segment| segment.end_offset > offset);
    }

    fn remove_all(&mut self) {
        if let Some(last) = self.segments.back() {
            self.removed_to = self.removed_to.max(last.end_offset);
        }
        self.segments.clear();
    }

    fn readable_up_to(&mut self, number: u64) {
        self.readable = self.readable.max(number);
        let not_readable = usize::try_from(self.put - self.readable).unwrap_or(usize::MAX);
        let excess = self.segments.len().saturating_sub(not_readable.max(RECENT_SEGMENTS));
        self.segments.drain(..excess);
    }
}

#[cfg(test)]
#[path = "state_store_tests.rs"]
mod tests;

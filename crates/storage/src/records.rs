use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use quorate_model::sabotage::{Bug, is_planted};
use quorate_model::{BatchError, CodecError, IndexSegment, Offset, PartitionCommand, RecordBatch};

use crate::entry::{EntryKind, LogEntry};
use crate::error::StorageError;
use crate::raft_log::RaftLog;
use crate::state_store::StateStore;

/// Reads message batches of one replica straight out of its log, as the bytes the producer sent.
///
/// The caller supplies the open segment of the offset index, which the state machine holds; it bounds
/// the read to what has been applied, so nothing uncommitted is ever returned. Cloning is cheap.
#[derive(Clone)]
pub struct RecordReader {
    log: RaftLog,
    state: StateStore,
    /// Where recent reads ended: an index segment says which entries hold records, but not how many,
    /// so without this a reader that goes on would count from the start of the segment each time.
    ends: Arc<Mutex<VecDeque<Position>>>,
}

/// A batch with its place in the partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBatch {
    /// The offset of its first record.
    pub base_offset: Offset,
    /// How many records it has.
    pub count: u32,
    /// The record batch: a slice of the log entry, not a copy.
    pub batch: Bytes,
}

/// Why records could not be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadRecordsError {
    /// Retention has removed the records, perhaps while they were being read.
    #[error("offset {offset} is before the start of the log")]
    BeforeLogStart {
        /// The offset asked for.
        offset: Offset,
    },
    /// The log or the index could not be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// An entry that the index names as an append does not hold one.
    #[error("log entry {index} at offset {offset} is not an append: {cause}")]
    NotAnAppend {
        /// Its index in the log.
        index: u64,
        /// The offset it should have.
        offset: Offset,
        /// What is wrong with it.
        cause: String,
    },
    /// A batch is damaged.
    #[error("the batch at offset {offset} is damaged: {cause}")]
    Batch {
        /// The offset of the batch.
        offset: Offset,
        /// What is wrong with it.
        cause: BatchError,
    },
}

/// The accepted append with this offset stands at this index or after it.
#[derive(Debug, Clone, Copy)]
struct Position {
    offset: Offset,
    index: u64,
}

/// As many consumers of a partition as can go on where they stopped without counting.
const ENDS_MAX: usize = 64;

impl StoredBatch {
    /// The offset after its last record.
    pub fn end_offset(&self) -> Offset {
        after(self.base_offset, self.count)
    }
}

impl RecordReader {
    /// Reads the records of one replica.
    pub fn new(log: RaftLog, state: StateStore) -> RecordReader {
        assert_eq!(log.replica(), state.replica(), "records and their index are one replica's");
        RecordReader { log, state, ends: Arc::default() }
    }

    /// The batches from the one with the record at `from` up to the end of `open`, stopping after the one
    /// that reaches `bytes_max`. Empty only if `from` is at or beyond the end.
    pub async fn read(
        &self,
        from: Offset,
        open: &IndexSegment,
        bytes_max: u64,
    ) -> Result<Vec<StoredBatch>, ReadRecordsError> {
        let mut batches: Vec<StoredBatch> = Vec::new();
        let mut bytes_left = bytes_max.max(1);
        let mut next = from;
        while next < open.end_offset && bytes_left > 0 {
            let segment = self.segment(next, open).await?;
            let found = self.read_segment(next, &segment, bytes_left).await?;
            let bytes: u64 = found.iter().map(|batch| batch.batch.len() as u64).sum();
            bytes_left = bytes_left.saturating_sub(bytes);
            next = found.last().map_or(next, StoredBatch::end_offset);
            if is_planted(Bug::RecordSkippedAtBorder) && next == segment.end_offset {
                next = after(next, 1);
            }
            batches.extend(found);
        }
        Ok(batches)
    }

    /// The offset of the first record at or after `from` that is as new as `time_ms`; none if there is
    /// no such record up to the end of `open`.
    pub async fn offset_for_time(
        &self,
        time_ms: u64,
        from: Offset,
        open: &IndexSegment,
    ) -> Result<Option<Offset>, ReadRecordsError> {
        let mut next = from;
        loop {
            let turn = self.log.storage().catch_up_turn().await;
            let closed = self.state.find_segment_by_time(time_ms, next).await?;
            drop(turn);
            let segment = closed.unwrap_or(*open);
            next = next.max(segment.base_offset);
            // The segment may have its new record before `from`; then the search goes on behind it.
            while next < segment.end_offset {
                let Some(stored) = self.read(next, open, 1).await?.into_iter().next() else { return Ok(None) };
                if let Some(offset) = first_as_new_as(&stored, time_ms, from)? {
                    return Ok(Some(offset));
                }
                next = stored.end_offset();
            }
            if closed.is_none() {
                return Ok(None);
            }
        }
    }

    async fn segment(&self, offset: Offset, open: &IndexSegment) -> Result<IndexSegment, ReadRecordsError> {
        if offset >= open.base_offset {
            return Ok(*open);
        }
        let _turn = self.log.storage().catch_up_turn().await;
        match self.state.find_segment(offset).await? {
            Some(segment) => Ok(segment),
            // Retention was here after the reader had looked at where the log starts.
            None if self.state.is_removed(offset) => Err(ReadRecordsError::BeforeLogStart { offset }),
            None => Err(StorageError::MissingSegment { replica: self.state.replica(), offset: offset.get() }.into()),
        }
    }

    /// The batches of one segment from the one with the record at `from` on; at least that one.
    async fn read_segment(
        &self,
        from: Offset,
        segment: &IndexSegment,
        bytes_max: u64,
    ) -> Result<Vec<StoredBatch>, ReadRecordsError> {
        let mut position = self.start(from, segment);
        let mut bytes = 0;
        let mut batches = Vec::new();
        while position.offset < segment.end_offset && bytes < bytes_max {
            // Batches before `from` are only counted, so the bound is not exact; a segment is small.
            let entries = self.read_entries(position, segment, from, bytes_max - bytes).await?;
            for entry in entries {
                let index = entry.id.index;
                if segment.is_accepted(index) {
                    let stored = stored_batch(&entry, position.offset)?;
                    position.offset = stored.end_offset();
                    if position.offset > from {
                        bytes += stored.batch.len() as u64;
                        batches.push(stored);
                    }
                }
                position.index = index + 1;
            }
        }
        self.remember(position);
        Ok(batches)
    }

    /// Entries from `position` to the end of the segment; at least the first one.
    async fn read_entries(
        &self,
        position: Position,
        segment: &IndexSegment,
        from: Offset,
        bytes_max: u64,
    ) -> Result<Vec<LogEntry>, ReadRecordsError> {
        let range = position.index..segment.indices().end;
        let entries = match self.log.cached(range.clone(), bytes_max) {
            Some(entries) => entries,
            None => {
                let _turn = self.log.storage().catch_up_turn().await;
                self.log.read(range, bytes_max).await?
            }
        };
        match entries.first() {
            Some(first) if first.id.index == position.index => Ok(entries),
            // The log hides what has been purged and knows of no hole, so retention was here first.
            _ if self.log.bounds().purged.is_some_and(|purged| purged.index >= position.index) => {
                Err(ReadRecordsError::BeforeLogStart { offset: from })
            }
            _ => Err(StorageError::Hole { replica: self.log.replica(), expected: position.index }.into()),
        }
    }

    /// The nearest known place at or before `from` in the segment.
    fn start(&self, from: Offset, segment: &IndexSegment) -> Position {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let known = ends.iter().filter(|end| segment.indices().contains(&end.index) && end.offset <= from);
        let nearest = known.max_by_key(|end| end.index).copied();
        nearest.unwrap_or(Position { offset: segment.base_offset, index: segment.first_index })
    }

    fn remember(&self, end: Position) {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.retain(|known| known.index != end.index);
        if ends.len() == ENDS_MAX {
            ends.pop_front();
        }
        ends.push_back(end);
    }
}

fn stored_batch(entry: &LogEntry, base_offset: Offset) -> Result<StoredBatch, ReadRecordsError> {
    let index = entry.id.index;
    let not_an_append = |cause: String| ReadRecordsError::NotAnAppend { index, offset: base_offset, cause };
    if entry.kind != EntryKind::Command {
        return Err(not_an_append(format!("it is a {:?} entry", entry.kind)));
    }
    let command = PartitionCommand::decode(&entry.body);
    let PartitionCommand::Append { batch, .. } =
        command.map_err(|error: CodecError| not_an_append(error.to_string()))?
    else {
        return Err(not_an_append("it is a command of retention".to_owned()));
    };
    let damaged = |cause| ReadRecordsError::Batch { offset: base_offset, cause };
    let header = RecordBatch::trusted(batch.clone()).map_err(damaged)?;
    Ok(StoredBatch { base_offset, count: header.header().count, batch })
}

/// The offset of the batch's first record at or after `from` that is as new as `time_ms`.
fn first_as_new_as(stored: &StoredBatch, time_ms: u64, from: Offset) -> Result<Option<Offset>, ReadRecordsError> {
    let damaged = |cause| ReadRecordsError::Batch { offset: stored.base_offset, cause };
    let batch = RecordBatch::trusted(stored.batch.clone()).map_err(damaged)?;
    if batch.header().max_timestamp_ms < time_ms {
        return Ok(None);
    }
    let records = batch.records().map_err(damaged)?;
    let offsets = stored.base_offset.get()..;
    let as_new = offsets.zip(records).find(|(offset, record)| *offset >= from.get() && record.timestamp_ms >= time_ms);
    Ok(as_new.map(|(offset, _)| Offset::new(offset)))
}

fn after(offset: Offset, records: u32) -> Offset {
    Offset::new(offset.get() + u64::from(records))
}

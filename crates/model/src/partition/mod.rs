//! One partition: which appends are accepted, which offsets they get, and where in the log they stand.
//!
//! The Raft log is the message store, so the machine keeps no payload. It reads a batch's header, and its records only
//! where the header says that some are delivered in an order of their own.

mod deleted;
mod lanes;
mod producers;
mod rejected;
mod segment;
mod stretches;
pub mod subscription;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use deleted::{Deleted, DeletionRejected};
pub use lanes::Lanes;
pub use rejected::AppendRejected;
pub use segment::IndexSegment;
pub use stretches::{Retained, Stretch, Stretches};

use crate::batch::{BatchHeader, RecordBatch};
use crate::codec::{self, CodecError};
use crate::command::PartitionCommand;
use crate::ids::{Offset, PartitionId};
use crate::limits::CHECKPOINT_BYTES_MAX;
use crate::machine::{Applied, Change, Effect};
use crate::record::Record;
use crate::reply::Reply;
use crate::sabotage::{Bug, is_planted};
use producers::{Producers, Verdict};
use stretches::Times;
use subscription::{Lane, Place, SubscriptionChanged, SubscriptionRejected, Subscriptions};

const CHECKPOINT_VERSION: u8 = 4;

/// The answer to an append that stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appended {
    /// Offset of the batch's first record.
    pub base_offset: Offset,
    /// Number of records.
    pub count: u32,
    /// An earlier attempt had appended the batch already; this one added nothing.
    pub duplicate: bool,
}

/// The replicated state of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionMachine {
    partition: PartitionId,
    /// Log index of the last entry seen; `None` before the first.
    last_index: Option<u64>,
    next_offset: Offset,
    /// Bytes of all accepted batches, those that were trimmed included.
    appended_bytes: u64,
    /// The end of the offset index, not yet a row.
    open_segment: IndexSegment,
    producers: Producers,
    stretches: Stretches,
    /// Of the batches behind the last mark; `None` if there are none.
    open_times: Option<Times>,
    subscriptions: Subscriptions,
    lanes: Lanes,
    deleted: Deleted,
}

impl PartitionMachine {
    /// An empty partition.
    pub fn new(partition: PartitionId) -> Self {
        Self {
            partition,
            last_index: None,
            next_offset: Offset::ZERO,
            appended_bytes: 0,
            open_segment: IndexSegment::empty(0, Offset::ZERO),
            producers: Producers::default(),
            stretches: Stretches::default(),
            open_times: None,
            subscriptions: Subscriptions::default(),
            lanes: Lanes::default(),
            deleted: Deleted::default(),
        }
    }

    /// Which partition this is.
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// The oldest offset that is kept.
    pub fn log_start(&self) -> Offset {
        self.stretches.log_start()
    }

    /// The offset that the next record will get.
    pub fn next_offset(&self) -> Offset {
        self.next_offset
    }

    /// Bytes of all batches that are kept.
    pub fn bytes(&self) -> u64 {
        self.appended_bytes.saturating_sub(self.stretches.removed_bytes())
    }

    /// What retention decides by.
    pub fn retained(&self) -> Retained<'_> {
        Retained {
            stretches: &self.stretches,
            end: self.next_offset,
            appended_bytes: self.appended_bytes,
            open_since_ms: self.open_times.map(|times| times.oldest_ms),
        }
    }

    /// The part of the offset index that hasn't become a row yet.
    pub fn open_segment(&self) -> &IndexSegment {
        &self.open_segment
    }

    /// What subscriptions have settled.
    pub fn subscriptions(&self) -> &Subscriptions {
        &self.subscriptions
    }

    /// Messages with an order of their own.
    pub fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    /// Messages that were deleted.
    pub fn deleted(&self) -> &Deleted {
        &self.deleted
    }

    /// How many producers are remembered.
    pub fn producer_count(&self) -> usize {
        self.producers.len()
    }

    /// Log index of the last entry seen.
    pub fn last_index(&self) -> Option<u64> {
        self.last_index
    }

    /// Applies the command at `index`; see [`crate::machine::Machine::apply`].
    pub fn apply(&mut self, index: u64, command: PartitionCommand) -> Applied {
        match command {
            PartitionCommand::Append { time_ms, batch } => self.apply_append(index, time_ms, batch),
            PartitionCommand::TrimTo { offset } => {
                let mut changes = self.skip(index);
                if self.stretches.trim_to(offset) {
                    self.subscriptions.trim_to(self.log_start());
                    self.deleted.trim_to(self.log_start());
                    let trimmed = self.lanes.trimmed(self.log_start(), self.stretches.released_ms());
                    changes.extend((!trimmed.is_empty()).then_some(Change::LanesTrimmed(trimmed)));
                }
                self.log_start_reply(changes)
            }
            PartitionCommand::Mark => {
                let changes = self.mark(index);
                self.log_start_reply(changes)
            }
            PartitionCommand::Release { time_ms } => {
                let changes = self.skip(index);
                self.lanes.release(time_ms);
                Applied { reply: Reply::Released(self.lanes.released_ms()), changes, effects: Vec::new() }
            }
            PartitionCommand::BeginSubscription { subscription, start } => {
                let changes = self.skip(index);
                let start = start.max(self.log_start());
                subscription_reply(Ok(self.subscriptions.begin(subscription, start)), changes)
            }
            PartitionCommand::EndSubscription { subscription } => {
                let changes = self.skip(index);
                subscription_reply(Ok(self.subscriptions.end(subscription)), changes)
            }
            PartitionCommand::Settle(settlement) => {
                let changes = self.skip(index);
                subscription_reply(self.subscriptions.settle(settlement), changes)
            }
            PartitionCommand::DeadLettersSent { subscription, next } => {
                let changes = self.skip(index);
                subscription_reply(self.subscriptions.dead_letters_sent(subscription, next), changes)
            }
            PartitionCommand::Seek { subscription, request, to } => {
                let changes = self.skip(index);
                let start = self.subscriptions.seek(subscription, request, to.max(self.log_start()));
                Applied { reply: Reply::Seeked(start), changes, effects: Vec::new() }
            }
            PartitionCommand::Restore { subscription, request, snapshot } => {
                let changes = self.skip(index);
                let ends = self.lanes.ends().chain([(Lane::LOG, Place::at(self.next_offset))]).collect();
                let log = self.log_start()..self.next_offset;
                let start = self.subscriptions.restore(subscription, request, &snapshot, log, &ends);
                Applied { reply: Reply::Seeked(start), changes, effects: Vec::new() }
            }
            PartitionCommand::Delete { ranges } => {
                let changes = self.skip(index);
                let outcome = self.deleted.delete(ranges, self.log_start()..self.next_offset);
                Applied { reply: Reply::Deleted(outcome), changes, effects: Vec::new() }
            }
        }
    }

    /// Whether the append is accepted never depends on the time: only retention looks at it.
    fn apply_append(&mut self, index: u64, time_ms: u64, batch: Bytes) -> Applied {
        let before = self.next_offset;
        let judged = RecordBatch::trusted(batch)
            .map_err(AppendRejected::Malformed)
            .and_then(|batch| Ok((self.judge(batch.header())?, in_lanes(&batch)?, batch)));
        let (outcome, changes) = match judged {
            Ok((Verdict::Expected, in_lanes, batch)) => {
                let (appended, mut changes) = self.append(index, &batch);
                let rows = self.lanes.append(appended.base_offset, &in_lanes);
                changes.extend((!rows.is_empty()).then_some(Change::Lanes(rows)));
                (Ok(appended), changes)
            }
            Ok((Verdict::Duplicate { base_offset }, _, batch)) => {
                let earlier = Appended { base_offset, count: batch.header().count, duplicate: true };
                (Ok(earlier), self.skip(index))
            }
            Err(rejected) => (Err(rejected), self.skip(index)),
        };
        let mut effects = Vec::new();
        if self.next_offset > before {
            self.open_times = Some(Times::with(self.open_times, time_ms));
            effects.push(Effect::RecordsAvailable { end: self.next_offset });
        }
        Applied { reply: Reply::Partition(outcome), changes, effects }
    }

    /// Ends a stretch here. The offset index begins a new segment too, so that a segment is kept or removed whole.
    fn mark(&mut self, index: u64) -> Vec<Change> {
        let mut changes = self.skip(index);
        let Some(times) = self.open_times else { return changes };
        let stretch = Stretch {
            last_index: index,
            end: self.next_offset,
            end_bytes: self.appended_bytes,
            newest_ms: times.newest_ms,
            released_ms: self.lanes.released_ms(),
        };
        if self.stretches.mark(stretch) {
            self.open_times = None;
            changes.extend(self.close_segment(index + 1));
            changes.push(Change::Checkpoint);
        }
        changes
    }

    fn log_start_reply(&self, changes: Vec<Change>) -> Applied {
        Applied { reply: Reply::LogStart(self.log_start()), changes, effects: Vec::new() }
    }

    /// Passes over the entry at `index`; see [`crate::machine::Machine::skip`].
    pub fn skip(&mut self, index: u64) -> Vec<Change> {
        let mut changes = self.begin_entry(index);
        self.open_segment.push_skipped(index);
        changes.extend(self.close_full_segment());
        changes
    }

    /// After an entry that another replica proposed. Does nothing in an honest build.
    pub fn sabotage_followers(&mut self) {
        if is_planted(Bug::DedupLostAtFailover) {
            self.producers = Producers::default();
        }
        if is_planted(Bug::AckLostAtFailover) {
            self.subscriptions.sabotage();
        }
    }

    /// The whole state as bytes.
    pub fn checkpoint(&self) -> Bytes {
        if is_planted(Bug::DedupMissingInCheckpoint) {
            return codec::encode(CHECKPOINT_VERSION, &Self { producers: Producers::default(), ..self.clone() });
        }
        codec::encode(CHECKPOINT_VERSION, self)
    }

    /// The machine as it was when it gave this checkpoint.
    pub fn restore(partition: PartitionId, checkpoint: &Bytes) -> Result<Self, CodecError> {
        let what = "partition checkpoint";
        let machine: Self = codec::decode(what, CHECKPOINT_VERSION, CHECKPOINT_BYTES_MAX, checkpoint)?;
        if machine.partition != partition {
            return Err(CodecError::Foreign {
                what,
                actual: format!("partition {}", machine.partition),
                expected: format!("partition {partition}"),
            });
        }
        Ok(machine)
    }

    /// Decides about a batch. Changes nothing.
    fn judge(&self, header: &BatchHeader) -> Result<Verdict, AppendRejected> {
        if self.next_offset.checked_add(u64::from(header.count)).is_none() {
            return Err(AppendRejected::OffsetsExhausted { next_offset: self.next_offset });
        }
        match header.producer {
            Some(stamp) => self.producers.judge(stamp, header.count, header.crc),
            None => Ok(Verdict::Expected),
        }
    }

    fn append(&mut self, index: u64, batch: &RecordBatch) -> (Appended, Vec<Change>) {
        let header = batch.header();
        let base_offset = self.next_offset;
        let end = base_offset.checked_add(u64::from(header.count)).expect("judged before");
        let bytes = batch.len_bytes() as u64;
        if let Some(stamp) = header.producer {
            self.producers.remember(stamp, header.count, header.crc, base_offset, index);
        }
        let mut changes = self.begin_entry(index);
        self.open_segment.push_accepted(index, end, header.max_timestamp_ms, bytes);
        self.next_offset = end;
        self.appended_bytes += bytes;
        changes.extend(self.close_full_segment());
        let appended = Appended { base_offset, count: header.count, duplicate: false };
        (appended, changes)
    }

    /// Makes room for `index` in the open segment.
    fn begin_entry(&mut self, index: u64) -> Vec<Change> {
        assert!(
            self.last_index.is_none_or(|last| index > last),
            "partition {}: log index {index} applied after {:?}",
            self.partition,
            self.last_index,
        );
        self.last_index = Some(index);
        if self.open_segment.has_room_for(index) {
            return Vec::new();
        }
        self.close_segment(index)
    }

    fn close_full_segment(&mut self) -> Vec<Change> {
        if !self.open_segment.is_full() {
            return Vec::new();
        }
        self.close_segment(self.open_segment.indices().end)
    }

    /// The open segment becomes a row, unless it holds no records; the next one begins at `first_index`.
    fn close_segment(&mut self, first_index: u64) -> Vec<Change> {
        let next = IndexSegment::empty(first_index, self.next_offset);
        let closed = std::mem::replace(&mut self.open_segment, next);
        if closed.is_empty() {
            return Vec::new();
        }
        vec![Change::Segment(closed)]
    }
}

/// The records of a batch, if some of them have an order of their own. Of the others nobody but their readers looks at one.
fn in_lanes(batch: &RecordBatch) -> Result<Vec<Record>, AppendRejected> {
    if !batch.header().flags.lanes {
        return Ok(Vec::new());
    }
    batch.records().map_err(AppendRejected::Malformed)
}

fn subscription_reply(outcome: Result<SubscriptionChanged, SubscriptionRejected>, changes: Vec<Change>) -> Applied {
    Applied { reply: Reply::Subscription(outcome), changes, effects: Vec::new() }
}

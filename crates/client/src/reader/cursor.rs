//! [`Cursor`]: where a reader stands in one partition, as plain data. No IO, no clock.
//!
//! ```text
//!   Surveying ──end──▶ Reading ──▶ Done        Surveying only where the log end of the moment matters:
//!                                              to stop there, to start there, or to count back from there
//! ```
//!
//! The end is asked for once and kept, so that "everything up to now" means the same before and after
//! the loss of a leader.

use std::ops::Range;

use quorate_model::Record;
use quorate_proto::v1 as pb;

use crate::error::{Cause, ClientError};
use crate::wire::timestamp;

/// Where reading starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// The oldest record kept.
    #[default]
    Earliest,
    /// Only what is published from now on.
    Latest,
    /// This offset; it must lie between the log start and the log end, both included.
    Offset(u64),
    /// The first record whose publish time, in ms since 1970, isn't earlier.
    Time(u64),
    /// The last so many records of each partition, or all if there are fewer.
    Last(u64),
}

impl Start {
    /// As the broker is asked for it, where the broker is to say what it means.
    pub(crate) fn to_wire(self) -> pb::Position {
        use pb::position::{Earliest, Latest, Position};
        let position = match self {
            Self::Earliest => Position::Earliest(Earliest {}),
            Self::Latest => Position::Latest(Latest {}),
            Self::Offset(offset) => Position::Offset(offset),
            Self::Time(ms) => Position::Time(timestamp(ms)),
            Self::Last(records) => Position::Last(records),
        };
        pb::Position { position: Some(position) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Surveying,
    Reading,
    Done,
}

#[derive(Debug)]
pub(crate) struct Cursor {
    start: Start,
    stop_at_end: bool,
    phase: Phase,
    /// Offset of the next record to deliver; `None` until `start` has led to one.
    next: Option<u64>,
    /// Counted back from the end, `next` may lie before the log start: then the log start is meant.
    from_log_start: bool,
    /// Delivering stops here.
    end: Option<u64>,
}

/// A batch that doesn't continue where the last one ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) expected: u64,
    pub(crate) got: u64,
}

impl Gap {
    pub(crate) fn in_partition(self, partition: u32) -> ClientError {
        let message = format!("partition {partition} continues at offset {} instead of {}", self.got, self.expected);
        ClientError::new(Cause::Protocol, message)
    }
}

impl Cursor {
    pub(crate) fn new(start: Start, stop_at_end: bool) -> Self {
        let survey = stop_at_end || matches!(start, Start::Latest | Start::Last(_));
        let phase = if survey { Phase::Surveying } else { Phase::Reading };
        let next = match start {
            Start::Offset(offset) => Some(offset),
            _ => None,
        };
        Self { start, stop_at_end, phase, next, from_log_start: false, end: None }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// What to ask the broker for.
    pub(crate) fn position(&self) -> pb::Position {
        use pb::position::{Earliest, Latest, Position};
        let position = match (self.phase, self.next, self.start) {
            (Phase::Surveying, ..) => Position::Latest(Latest {}),
            (_, Some(_), _) if self.from_log_start => Position::Earliest(Earliest {}),
            (_, Some(next), _) => Position::Offset(next),
            (_, None, Start::Time(ms)) => Position::Time(timestamp(ms)),
            (_, None, _) => Position::Earliest(Earliest {}),
        };
        pb::Position { position: Some(position) }
    }

    /// The broker says that the partition ends at this offset. False if that contradicts what is known,
    /// as the answer of a node that lags behind does.
    pub(crate) fn ended(&mut self, end_offset: u64) -> bool {
        match self.phase {
            Phase::Surveying => self.surveyed(end_offset),
            Phase::Reading if end_offset < self.end.unwrap_or(0) => return false,
            Phase::Reading => self.phase = Phase::Done,
            Phase::Done => {}
        }
        true
    }

    /// The broker says that `next` lies outside the log. True if the cursor can go on from the log start.
    pub(crate) fn out_of_range(&mut self) -> bool {
        let counted_back = matches!(self.start, Start::Last(_)) && !self.from_log_start;
        self.from_log_start |= counted_back;
        counted_back
    }

    /// The records of a batch that are due, each with its offset. Batches are stored whole, so the first
    /// one may begin earlier than asked for; after a lost leader some come again.
    pub(crate) fn accept(&mut self, base_offset: u64, records: Vec<Record>) -> Result<Vec<(u64, Record)>, Gap> {
        let batch_end = base_offset + records.len() as u64;
        self.advance(base_offset..batch_end, records)
    }

    /// Records were deleted.
    pub(crate) fn pass_over(&mut self, deleted: Range<u64>) -> Result<(), Gap> {
        self.advance(deleted, Vec::new()).map(drop)
    }

    fn advance(&mut self, offsets: Range<u64>, records: Vec<Record>) -> Result<Vec<(u64, Record)>, Gap> {
        let Range { start: base_offset, end: batch_end } = offsets;
        if self.phase != Phase::Reading {
            return Ok(Vec::new());
        }
        if let Some(next) = self.next {
            if batch_end <= next {
                return Ok(Vec::new());
            }
            if base_offset > next && !self.from_log_start {
                return Err(Gap { expected: next, got: base_offset });
            }
        }
        let not_before_ms = match (self.start, self.next) {
            (Start::Time(ms), None) => ms,
            _ => 0,
        };
        let due = self.next.unwrap_or(0)..self.end.unwrap_or(u64::MAX);
        let due: Vec<_> = (base_offset..)
            .zip(records)
            .filter(|(offset, _)| due.contains(offset))
            .skip_while(|(_, record)| record.timestamp_ms < not_before_ms)
            .collect();
        // A batch that lies wholly before the time asked for leaves the start open.
        if not_before_ms == 0 || !due.is_empty() {
            self.next = Some(batch_end.min(self.end.unwrap_or(u64::MAX)));
            self.from_log_start = false;
        }
        if self.end.is_some_and(|end| batch_end >= end) {
            self.phase = Phase::Done;
        }
        Ok(due)
    }

    fn surveyed(&mut self, end_offset: u64) {
        self.phase = Phase::Reading;
        match self.start {
            Start::Latest => self.next = Some(end_offset),
            Start::Last(records) => self.next = Some(end_offset.saturating_sub(records)),
            _ => {}
        }
        if self.stop_at_end {
            self.end = Some(end_offset);
            // An offset beyond the end is still asked for: the broker says what is wrong with it.
            if end_offset == 0 && self.next.unwrap_or(0) == 0 || self.next == Some(end_offset) {
                self.phase = Phase::Done;
            }
        }
    }
}

#[cfg(test)]
#[path = "cursor_tests.rs"]
mod tests;

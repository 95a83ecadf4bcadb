//! [`Batch`]: records that travel together, and what is known about the attempts to append them.

use bytes::Bytes;
use quorate_model::Record;
use tokio::time::Instant;

use super::lane::Queued;
use crate::error::ClientError;

/// Where a batch stands in the producer's numbering of a partition's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) epoch: u32,
    /// Of the batch's first record; counts records.
    pub(crate) sequence: u64,
}

impl Stamp {
    /// A new epoch starts at sequence 0, and the broker refuses all earlier ones from then on.
    pub(crate) fn next_epoch(self) -> Self {
        Self { epoch: self.epoch + 1, sequence: 0 }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum State {
    /// To be sent, for the first time or again.
    Waiting,
    Outstanding {
        since: Instant,
    },
    /// Appended; the waiting ones have been told.
    Done,
    /// Not to be sent again; the waiting ones are told once it is the head.
    Refused(ClientError),
}

#[derive(Debug)]
pub(crate) struct Batch<T> {
    pub(crate) id: u64,
    pub(crate) stamp: Stamp,
    /// Kept until the batch is settled, because a new stamp means a new encoding.
    pub(crate) records: Vec<Record>,
    pub(crate) tickets: Vec<T>,
    pub(crate) wire: Option<Bytes>,
    pub(crate) deadline: Instant,
    pub(crate) state: State,
    /// An attempt under this stamp may have been appended without our hearing of it.
    pub(crate) lost: bool,
    attempt: u32,
    /// Attempts under this stamp whose answers may still come.
    unanswered: u32,
    /// Answers to earlier attempts are about another stamp.
    first_attempt: u32,
}

impl<T> Batch<T> {
    pub(crate) fn new(id: u64, stamp: Stamp, deadline: Instant) -> Self {
        Self {
            id,
            stamp,
            records: Vec::new(),
            tickets: Vec::new(),
            wire: None,
            deadline,
            state: State::Waiting,
            lost: false,
            attempt: 0,
            unanswered: 0,
            first_attempt: 1,
        }
    }

    pub(crate) fn push(&mut self, queued: Queued<T>) {
        self.records.push(queued.record);
        self.tickets.push(queued.ticket);
    }

    /// The stamp of the batch that follows this one.
    pub(crate) fn stamp_after(&self) -> Stamp {
        Stamp { epoch: self.stamp.epoch, sequence: self.stamp.sequence + self.records.len() as u64 }
    }

    pub(crate) fn begin_attempt(&mut self, now: Instant) -> u32 {
        self.attempt += 1;
        self.unanswered += 1;
        self.state = State::Outstanding { since: now };
        self.attempt
    }

    /// Counts an answer; false if it says nothing about the present stamp or comes after the outcome.
    pub(crate) fn take_answer(&mut self, attempt: u32) -> bool {
        if attempt < self.first_attempt || self.is_settled() {
            return false;
        }
        self.unanswered = self.unanswered.saturating_sub(1);
        true
    }

    /// Whether this attempt is the one being waited for.
    pub(crate) fn is_current(&self, attempt: u32) -> bool {
        attempt == self.attempt && matches!(self.state, State::Outstanding { .. })
    }

    pub(crate) fn lose_answers(&mut self) {
        self.lost |= self.unanswered > 0;
        self.unanswered = 0;
        if matches!(self.state, State::Outstanding { .. }) {
            self.state = State::Waiting;
        }
    }

    /// False only if every attempt under this stamp was answered by a definite no.
    pub(crate) fn may_be_appended(&self) -> bool {
        self.lost || self.unanswered > 0
    }

    /// Whether the batch needs nothing more from the broker.
    pub(crate) fn is_settled(&self) -> bool {
        matches!(self.state, State::Done | State::Refused(_))
    }

    /// Gives the batch another place in the numbering; returns the place of the next one.
    pub(crate) fn restamp(&mut self, stamp: Stamp) -> Stamp {
        self.stamp = stamp;
        self.wire = None;
        self.lost = false;
        self.unanswered = 0;
        self.first_attempt = self.attempt + 1;
        self.state = State::Waiting;
        self.stamp_after()
    }
}

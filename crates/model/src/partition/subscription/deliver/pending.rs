//! What was decided and isn't certain yet: it takes a committed [`Settlement`] to make it so.

use std::collections::BTreeMap;

use super::{KeyHash, Lane, Place, Position, Retry, Settled, WaiterId};
use crate::partition::subscription::DeadLetter;

/// What goes into the next settlement, and what follows once it is certain.
#[derive(Clone, Debug, Default)]
pub(super) struct Pending {
    pub(super) settled: BTreeMap<Lane, Settled>,
    pub(super) retries: Vec<(Position, Retry)>,
    pub(super) dead: Vec<(Position, DeadLetter)>,
    pub(super) acknowledged: u64,
    pub(super) expired: u64,
    /// Something besides messages that were passed over: somebody waits, or a message does.
    pub(super) urgent: bool,
    pub(super) then: Then,
}

/// What follows.
#[derive(Clone, Debug, Default)]
pub(super) struct Then {
    /// Attempts that may be scheduled: a later one must not be made before the earlier one is certain.
    pub(super) scheduled: Vec<Position>,
    /// Messages that leave the line of their key.
    pub(super) freed: Vec<(KeyHash, Position)>,
    pub(super) answers: Vec<Answer>,
    /// Dead letters that wait to be published from then on.
    pub(super) dead_letters: usize,
}

/// What becomes of a request about one delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whose request.
    pub waiter: WaiterId,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of one delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As was asked for.
    Done,
    /// The message had been settled before.
    AlreadySettled,
    /// Nothing: the delivery counts no more, and the message was or will be delivered again.
    LeaseLost,
}

impl Pending {
    pub(super) fn settle(&mut self, lane: Lane, places: std::ops::Range<Place>) {
        self.settled.entry(lane).or_default().insert(places);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.settled.is_empty() && self.retries.is_empty() && self.dead.is_empty()
    }
}

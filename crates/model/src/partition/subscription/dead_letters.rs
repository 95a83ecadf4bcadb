//! Messages on their way to the dead letters. They are settled, and published by the leader; whoever leads next goes on.
//!
//! Each has a number. It is published as the only record of a batch, under a producer id that follows from subscription and
//! partition, with its number as the epoch: the topic that gets it takes each number once, and takes none after a later
//! one. So it doesn't matter how often a letter is sent, or by how many leaders.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{Offset, PartitionId, ProducerId, SubscriptionId};

/// A message that was tried often enough.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Where it stands.
    pub offset: Offset,
    /// How often it was delivered.
    pub attempts: u32,
    /// When it was delivered for the first time.
    pub first_delivered_ms: u64,
    /// When it came back for the last time.
    pub returned_ms: u64,
    /// Why, in the subscriber's words. Empty: it didn't say.
    pub error: String,
}

/// Dead letters that aren't published yet, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outbox {
    letters: BTreeMap<u32, DeadLetter>,
    next: u32,
}

impl Outbox {
    /// Those that wait, in the order in which they are to be published.
    pub fn letters(&self) -> impl Iterator<Item = (u32, &DeadLetter)> {
        self.letters.iter().map(|(number, letter)| (*number, letter))
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.letters.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }

    pub(super) fn push(&mut self, letter: DeadLetter) {
        self.letters.insert(self.next, letter);
        self.next = self.next.checked_add(1).expect("nobody gives up four thousand million messages of a partition");
    }

    /// Those with numbers below `next` are published.
    pub(super) fn sent(&mut self, next: u32) {
        self.letters = self.letters.split_off(&next);
    }

    /// Who publishes the dead letters of a subscription in a partition. The highest bit is set, so that it is never zero.
    pub fn producer(subscription: SubscriptionId, partition: PartitionId) -> ProducerId {
        let mut place = Vec::with_capacity(20);
        place.extend(subscription.get().to_le_bytes());
        place.extend(partition.topic.get().to_le_bytes());
        place.extend(partition.index.to_le_bytes());
        ProducerId::new(xxhash_rust::xxh3::xxh3_64(&place) | 1 << 63)
    }
}

//! What a subscription has and hasn't done.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_proto::v1 as pb;

use super::Subscription;
use crate::wire::duration;

/// One partition of a subscription, as its leader knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubscriptionPartitionStatus {
    /// Partition number, from 0.
    pub partition: u32,
    /// `None`: the leader didn't answer in time.
    pub numbers: Option<SubscriptionNumbers>,
}

/// What a subscription has and hasn't done. Totals count since the subscription was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubscriptionNumbers {
    /// Messages that aren't settled, those in flight and delayed included.
    pub backlog_messages: u64,
    /// Age of the oldest of them, by its publish time.
    pub oldest_unacknowledged_age: Option<Duration>,
    /// Messages that subscribers have in hand.
    pub in_flight_messages: u64,
    /// Messages that wait for their next attempt.
    pub delayed_messages: u64,
    /// Messages acknowledged.
    pub acknowledged_total: u64,
    /// Attempts in vain after which there was, or will be, another.
    pub redelivered_total: u64,
    /// Messages that went to the dead letters.
    pub dead_lettered_total: u64,
    /// Messages that retention removed before they were settled.
    pub lost_total: u64,
    /// Dead letters that aren't in their topic yet.
    pub dead_letters_waiting: u64,
    /// Streams that take messages now; of several partitions, the most that any has.
    pub subscribers: u32,
    /// Messages that were tried in vain and aren't settled, by how often at most: 1, 2, 5, 10, 20, 50, 100, and
    /// [`u32::MAX`] for what was tried more often.
    pub attempts: BTreeMap<u32, u64>,
    /// By priority: messages that could be delivered, are in flight, or wait for their next attempt; and those that wait for
    /// their time.
    pub depths: BTreeMap<u32, (u64, u64)>,
    /// There are more messages with a priority or a time of their own than are counted.
    pub depths_partial: bool,
}

impl Subscription {
    /// The numbers of all partitions that answered, together. See [`Subscription::partition_status`] for those that
    /// didn't.
    #[must_use]
    pub fn numbers(&self) -> SubscriptionNumbers {
        let all = self.partition_status.iter().filter_map(|status| status.numbers.as_ref());
        all.fold(SubscriptionNumbers::default(), SubscriptionNumbers::with)
    }
}

impl SubscriptionNumbers {
    fn with(self, other: &Self) -> Self {
        let mut attempts = self.attempts;
        for (bound, messages) in &other.attempts {
            *attempts.entry(*bound).or_default() += messages;
        }
        let mut depths = self.depths;
        for (priority, (ready, waiting)) in &other.depths {
            let depth = depths.entry(*priority).or_default();
            *depth = (depth.0 + ready, depth.1 + waiting);
        }
        Self {
            backlog_messages: self.backlog_messages + other.backlog_messages,
            // `None` is less than any age.
            oldest_unacknowledged_age: self.oldest_unacknowledged_age.max(other.oldest_unacknowledged_age),
            in_flight_messages: self.in_flight_messages + other.in_flight_messages,
            delayed_messages: self.delayed_messages + other.delayed_messages,
            acknowledged_total: self.acknowledged_total + other.acknowledged_total,
            redelivered_total: self.redelivered_total + other.redelivered_total,
            dead_lettered_total: self.dead_lettered_total + other.dead_lettered_total,
            lost_total: self.lost_total + other.lost_total,
            dead_letters_waiting: self.dead_letters_waiting + other.dead_letters_waiting,
            subscribers: self.subscribers.max(other.subscribers),
            attempts,
            depths,
            depths_partial: self.depths_partial || other.depths_partial,
        }
    }
}

impl From<pb::SubscriptionPartitionStatus> for SubscriptionPartitionStatus {
    fn from(status: pb::SubscriptionPartitionStatus) -> Self {
        let numbers = SubscriptionNumbers {
            backlog_messages: status.backlog_messages,
            oldest_unacknowledged_age: status.oldest_unacknowledged_age.map(duration),
            in_flight_messages: status.in_flight_messages,
            delayed_messages: status.delayed_messages,
            acknowledged_total: status.acknowledged_total,
            redelivered_total: status.redelivered_total,
            dead_lettered_total: status.dead_lettered_total,
            lost_total: status.lost_total,
            dead_letters_waiting: status.dead_letters_waiting,
            subscribers: status.subscribers,
            attempts: status.attempts.iter().map(|bucket| (bucket.attempts_max, bucket.messages)).collect(),
            depths: status.depths.iter().map(|depth| (depth.priority, (depth.ready, depth.waiting))).collect(),
            depths_partial: status.depths_partial,
        };
        Self { partition: status.partition, numbers: (!status.unavailable).then_some(numbers) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_partitions_are_summed_and_the_oldest_counts() {
        let wire = |partition, backlog_messages, age_s: Option<i64>, unavailable| pb::SubscriptionPartitionStatus {
            partition,
            backlog_messages,
            oldest_unacknowledged_age: age_s.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
            subscribers: partition + 1,
            unavailable,
            attempts: vec![pb::AttemptsBucket { attempts_max: 2, messages: 1 }],
            depths: vec![pb::PriorityDepth { priority: 7, ready: 1, waiting: 2 }],
            ..Default::default()
        };
        let status = [wire(0, 2, Some(5), false), wire(1, 0, None, false), wire(2, 9, Some(99), true)];
        let status = status.into_iter().map(SubscriptionPartitionStatus::from).collect();
        let subscription = Subscription { partition_status: status, ..Subscription::default() };
        let expected = SubscriptionNumbers {
            backlog_messages: 2,
            oldest_unacknowledged_age: Some(Duration::from_secs(5)),
            subscribers: 2,
            attempts: BTreeMap::from([(2, 2)]),
            depths: BTreeMap::from([(7, (2, 4))]),
            ..SubscriptionNumbers::default()
        };
        assert_eq!(subscription.numbers(), expected);
        assert_eq!(subscription.partition_status[2].numbers, None);
    }
}

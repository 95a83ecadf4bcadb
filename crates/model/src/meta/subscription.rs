//! What the metadata group keeps about subscriptions, and the commands that change one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::labels;
use crate::ids::{Offset, SubscriptionId, TopicId};
use crate::limits::{ACK_DEADLINE_MS_MAX, ACK_DEADLINE_MS_MIN, DELIVERY_ATTEMPTS_MAX, FILTER_BYTES_MAX};
use crate::meta::{MetaRejected, SubscriptionRejected};
use crate::names::SubscriptionName;
use crate::policy::{DeadLetterPolicy, RetryPolicy};

/// A subscription. What was delivered and acknowledged isn't here: every partition keeps that of its own messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionInfo {
    /// Its id, for all time.
    pub id: SubscriptionId,
    /// Its name, for as long as it exists.
    pub name: SubscriptionName,
    /// The topic whose messages it gets.
    pub topic: TopicId,
    /// Where it begins, by partition; those beyond the last one here begin at 0. See [`SubscriptionInfo::start_of`].
    pub start: Vec<Offset>,
    /// How long a subscriber may keep a message.
    pub ack_deadline_ms: u64,
    /// When a message is delivered again.
    pub retry: RetryPolicy,
    /// Where messages go that were tried often enough. `None`: they are tried until they are acknowledged.
    pub dead_letter: Option<DeadLetterPolicy>,
    /// Whether messages with the same ordering key are delivered one after another.
    pub ordered: bool,
    /// Which messages it gets, in the words of its owner: whoever dispatches understands them. Empty: all.
    pub filter: String,
    /// Free text for people and programs.
    pub labels: BTreeMap<String, String>,
    /// Changes with every change of the subscription: the version of the map that brought it.
    pub etag: u64,
    /// When it was made, by the clock of the leader of that time.
    pub created_ms: u64,
}

/// A subscription to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewSubscription {
    /// The leader's wall clock when it proposed the command.
    pub time_ms: u64,
    /// Chosen by the caller; a repeated request with the same id is answered, and not carried out again. Empty: none.
    pub request_id: String,
    /// Its name.
    pub name: SubscriptionName,
    /// The topic. By its id, because the offsets in `start` are those of no later topic with the same name.
    pub topic: TopicId,
    /// As in [`SubscriptionInfo`].
    pub start: Vec<Offset>,
    /// As in [`SubscriptionInfo`].
    pub ack_deadline_ms: u64,
    /// As in [`SubscriptionInfo`].
    pub retry: RetryPolicy,
    /// As in [`SubscriptionInfo`].
    pub dead_letter: Option<DeadLetterPolicy>,
    /// As in [`SubscriptionInfo`].
    pub ordered: bool,
    /// As in [`SubscriptionInfo`].
    pub filter: String,
    /// As in [`SubscriptionInfo`].
    pub labels: BTreeMap<String, String>,
}

/// What is to change about a subscription. `None` leaves a field as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionChange {
    /// As in [`NewSubscription`].
    pub request_id: String,
    /// The subscription.
    pub name: SubscriptionName,
    /// If given, the update fails unless it is the subscription's current one.
    pub etag: Option<u64>,
    /// How long a subscriber may keep a message.
    pub ack_deadline_ms: Option<u64>,
    /// When a message is delivered again.
    pub retry: Option<RetryPolicy>,
    /// Where messages go that were tried often enough; `Some(None)`: nowhere any more.
    pub dead_letter: Option<Option<DeadLetterPolicy>>,
    /// Which messages it gets, of those that it hasn't come to; empty: all.
    pub filter: Option<String>,
    /// All labels; replaces those there are.
    pub labels: Option<BTreeMap<String, String>>,
}

impl SubscriptionInfo {
    /// Where it begins in a partition of its topic.
    pub fn start_of(&self, partition: u32) -> Offset {
        self.start.get(partition as usize).copied().unwrap_or(Offset::ZERO)
    }

    /// What it takes up in a checkpoint, at most.
    pub(super) fn bytes(&self) -> u64 {
        const NUMBER: usize = 9;
        let labels: usize = self.labels.iter().map(|(key, value)| key.len() + value.len() + 2).sum();
        let pauses = match &self.retry {
            RetryPolicy::Explicit { pauses_ms } => pauses_ms.len(),
            _ => 0,
        };
        // The name is there twice: as a key, and in the value. The rest is a dozen numbers.
        let texts = 2 * self.name.as_str().len() + self.filter.len() + labels;
        (texts + (self.start.len() + pauses + 16) * NUMBER) as u64
    }
}

impl NewSubscription {
    /// What can be judged without looking at the cluster.
    pub fn check(&self) -> Result<(), MetaRejected> {
        check_ack_deadline(self.ack_deadline_ms)?;
        check_retry(&self.retry)?;
        if let Some(policy) = &self.dead_letter {
            check_dead_letter(policy, self.topic)?;
        }
        check_filter(&self.filter)?;
        labels::check(&self.labels)
    }

    /// The subscription as it begins.
    pub(super) fn into_info(self, id: SubscriptionId, etag: u64) -> SubscriptionInfo {
        let NewSubscription {
            time_ms,
            name,
            topic,
            start,
            ack_deadline_ms,
            retry,
            dead_letter,
            ordered,
            filter,
            labels,
            ..
        } = self;
        SubscriptionInfo {
            id,
            name,
            topic,
            start,
            ack_deadline_ms,
            retry,
            dead_letter,
            ordered,
            filter,
            labels,
            etag,
            created_ms: time_ms,
        }
    }
}

impl SubscriptionChange {
    /// The subscription as it would be, or why it can't be so.
    pub(super) fn applied_to(self, present: &SubscriptionInfo) -> Result<SubscriptionInfo, MetaRejected> {
        let mut changed = present.clone();
        if let Some(ms) = self.ack_deadline_ms {
            check_ack_deadline(ms)?;
            changed.ack_deadline_ms = ms;
        }
        if let Some(retry) = self.retry {
            check_retry(&retry)?;
            changed.retry = retry;
        }
        if let Some(dead_letter) = self.dead_letter {
            if let Some(policy) = &dead_letter {
                check_dead_letter(policy, present.topic)?;
            }
            changed.dead_letter = dead_letter;
        }
        if let Some(filter) = self.filter {
            check_filter(&filter)?;
            changed.filter = filter;
        }
        if let Some(labels) = self.labels {
            labels::check(&labels)?;
            changed.labels = labels;
        }
        Ok(changed)
    }
}

fn check_ack_deadline(ms: u64) -> Result<(), SubscriptionRejected> {
    if (ACK_DEADLINE_MS_MIN..=ACK_DEADLINE_MS_MAX).contains(&ms) {
        return Ok(());
    }
    Err(SubscriptionRejected::AckDeadline { asked_ms: ms })
}

fn check_retry(retry: &RetryPolicy) -> Result<(), SubscriptionRejected> {
    retry.check().map_err(SubscriptionRejected::RetryPolicy)
}

fn check_filter(filter: &str) -> Result<(), SubscriptionRejected> {
    if filter.len() > FILTER_BYTES_MAX {
        return Err(SubscriptionRejected::FilterTooLong { bytes: filter.len() as u64 });
    }
    Ok(())
}

fn check_dead_letter(policy: &DeadLetterPolicy, topic: TopicId) -> Result<(), SubscriptionRejected> {
    if policy.max_attempts == 0 || policy.max_attempts > DELIVERY_ATTEMPTS_MAX {
        return Err(SubscriptionRejected::DeliveryAttempts { asked: policy.max_attempts });
    }
    if policy.topic == topic {
        return Err(SubscriptionRejected::DeadLettersToOwnTopic);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{FILTER_BYTES_MAX, SubscriptionRejected, check_filter};

    #[test]
    fn a_filter_has_a_length() {
        assert_eq!(check_filter(&"x".repeat(FILTER_BYTES_MAX)), Ok(()));
        let bytes = FILTER_BYTES_MAX as u64 + 1;
        assert_eq!(check_filter(&"x".repeat(FILTER_BYTES_MAX + 1)), Err(SubscriptionRejected::FilterTooLong { bytes }));
    }
}

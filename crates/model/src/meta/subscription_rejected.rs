//! Why a command about a subscription wasn't carried out. A rejected command changes nothing.

use serde::{Deserialize, Serialize};

use crate::ids::{SubscriptionId, TopicId};
use crate::limits::{
    ACK_DEADLINE_MS_MAX, ACK_DEADLINE_MS_MIN, DELIVERY_ATTEMPTS_MAX, FILTER_BYTES_MAX, SUBSCRIPTIONS_BYTES_MAX,
};
use crate::names::SubscriptionName;
use crate::policy::PolicyError;
use crate::reason::Reason;

/// One fact for each way in which a command about a subscription can be refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum SubscriptionRejected {
    /// The name is taken.
    #[error("subscription {name} exists already")]
    Exists {
        /// The name.
        name: SubscriptionName,
    },
    /// No such subscription.
    #[error("subscription {name} does not exist")]
    NotFound {
        /// The name.
        name: SubscriptionName,
    },
    /// The request was carried out before, and what it was about was deleted since.
    #[error("subscription {name} with id {id}, which this request was about, was deleted since")]
    Gone {
        /// The name.
        name: SubscriptionName,
        /// The id.
        id: SubscriptionId,
    },
    /// Somebody else changed the subscription in between.
    #[error("subscription {name} has etag {current}, the update was made for {presented}")]
    EtagMismatch {
        /// The subscription.
        name: SubscriptionName,
        /// The current etag.
        current: u64,
        /// The etag of the update.
        presented: u64,
    },
    /// The topic was deleted while the command was on its way.
    #[error("topic: the one with id {topic} does not exist")]
    TopicMissing {
        /// The topic.
        topic: TopicId,
    },
    /// Positions for partitions that the topic doesn't have.
    #[error("start has {starts} offsets, and the topic {partitions} partitions")]
    TooManyStarts {
        /// Offsets given.
        starts: u64,
        /// Partitions there are.
        partitions: u32,
    },
    /// A time to acknowledge that is too short or too long.
    #[error("ack_deadline is {asked_ms} ms; it may be {ACK_DEADLINE_MS_MIN} to {ACK_DEADLINE_MS_MAX}")]
    AckDeadline {
        /// Time asked for.
        asked_ms: u64,
    },
    /// A policy with a field that is out of bounds.
    #[error(transparent)]
    RetryPolicy(PolicyError),
    /// A number of attempts that can't be.
    #[error("dead_letter_policy.max_delivery_attempts is {asked}; it may be 1 to {DELIVERY_ATTEMPTS_MAX}")]
    DeliveryAttempts {
        /// Number asked for.
        asked: u32,
    },
    /// Dead letters would come back as new messages, for ever.
    #[error("dead_letter_policy.topic is the subscription's own topic; dead letters need another one")]
    DeadLettersToOwnTopic,
    /// The topic for dead letters doesn't exist.
    #[error("dead_letter_policy.topic: the one with id {topic} does not exist")]
    DeadLetterTopicMissing {
        /// The topic.
        topic: TopicId,
    },
    /// Too many subscriptions of one topic.
    #[error("the topic has {limit} subscriptions, which is the limit")]
    TooManyOfTopic {
        /// Number allowed.
        limit: u64,
    },
    /// Too many subscriptions.
    #[error("the cluster has {limit} subscriptions, which is the limit")]
    TooMany {
        /// Number allowed.
        limit: u64,
    },
    /// The subscriptions would take up too much.
    #[error(
        "the subscription takes up {bytes} bytes, and there is room for {room}: \
         all subscriptions together may take up {SUBSCRIPTIONS_BYTES_MAX}"
    )]
    NoRoom {
        /// What it takes up.
        bytes: u64,
        /// What is left.
        room: u64,
    },
    /// A filter that is too long.
    #[error("filter has {bytes} bytes, the limit is {FILTER_BYTES_MAX}")]
    FilterTooLong {
        /// Its length.
        bytes: u64,
    },
}

impl SubscriptionRejected {
    /// The entry of the error table.
    pub fn reason(&self) -> Reason {
        match self {
            SubscriptionRejected::Exists { .. } => Reason::SubscriptionExists,
            SubscriptionRejected::NotFound { .. } | SubscriptionRejected::Gone { .. } => Reason::SubscriptionNotFound,
            SubscriptionRejected::EtagMismatch { .. } => Reason::EtagMismatch,
            SubscriptionRejected::TopicMissing { .. } | SubscriptionRejected::DeadLetterTopicMissing { .. } => {
                Reason::TopicNotFound
            }
            SubscriptionRejected::TooManyOfTopic { .. }
            | SubscriptionRejected::TooMany { .. }
            | SubscriptionRejected::NoRoom { .. } => Reason::TooManySubscriptions,
            SubscriptionRejected::FilterTooLong { .. } => Reason::InvalidFilter,
            SubscriptionRejected::TooManyStarts { .. }
            | SubscriptionRejected::AckDeadline { .. }
            | SubscriptionRejected::RetryPolicy(_)
            | SubscriptionRejected::DeliveryAttempts { .. }
            | SubscriptionRejected::DeadLettersToOwnTopic => Reason::InvalidArgument,
        }
    }

    /// Facts for a program: the field, and the value and limit where there is one.
    pub fn metadata(&self) -> Vec<(&'static str, String)> {
        let field = |name: &str| ("field", name.to_owned());
        let bounded = |name: &str, value: u64, limit: u64| {
            vec![field(name), ("value", value.to_string()), ("limit", limit.to_string())]
        };
        match self {
            SubscriptionRejected::Exists { name }
            | SubscriptionRejected::NotFound { name }
            | SubscriptionRejected::Gone { name, .. } => vec![("subscription", name.to_string())],
            SubscriptionRejected::EtagMismatch { name, current, presented } => vec![
                ("subscription", name.to_string()),
                ("current_etag", current.to_string()),
                ("etag", presented.to_string()),
            ],
            SubscriptionRejected::TopicMissing { topic } => vec![field("topic"), ("topic_id", topic.to_string())],
            SubscriptionRejected::TooManyStarts { starts, partitions } => {
                bounded("start", *starts, (*partitions).into())
            }
            SubscriptionRejected::AckDeadline { asked_ms } => {
                let limit = if *asked_ms < ACK_DEADLINE_MS_MIN { ACK_DEADLINE_MS_MIN } else { ACK_DEADLINE_MS_MAX };
                bounded("ack_deadline", *asked_ms, limit)
            }
            SubscriptionRejected::RetryPolicy(error) => {
                bounded(&format!("retry_policy.{}", error.field), error.value, error.limit)
            }
            SubscriptionRejected::DeliveryAttempts { asked } => {
                let limit = if *asked == 0 { 1 } else { DELIVERY_ATTEMPTS_MAX };
                bounded("dead_letter_policy.max_delivery_attempts", (*asked).into(), limit.into())
            }
            SubscriptionRejected::DeadLettersToOwnTopic => vec![field("dead_letter_policy.topic")],
            SubscriptionRejected::DeadLetterTopicMissing { topic } => {
                vec![field("dead_letter_policy.topic"), ("topic_id", topic.to_string())]
            }
            SubscriptionRejected::TooManyOfTopic { limit } => bounded("subscriptions of the topic", *limit, *limit),
            SubscriptionRejected::TooMany { limit } => bounded("subscriptions", *limit, *limit),
            SubscriptionRejected::NoRoom { bytes, room } => bounded("bytes of subscriptions", *bytes, *room),
            SubscriptionRejected::FilterTooLong { bytes } => bounded("filter", *bytes, FILTER_BYTES_MAX as u64),
        }
    }
}

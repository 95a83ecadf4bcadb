//! What a subscription says about messages that were not acknowledged.

use std::time::Duration;

use quorate_proto::v1 as pb;
use quorate_proto::v1::retry_policy::{self, Backoff};

use crate::wire::{duration, wire_duration};

/// The pause before the next attempt, by the number of attempts so far. A pause is at most 12 h.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RetryPolicy {
    /// None at all.
    Immediate,
    /// Always the same.
    Fixed {
        /// The pause.
        pause: Duration,
    },
    /// Longer by the same step each time.
    Linear {
        /// The first pause.
        first: Duration,
        /// How much longer each one is.
        step: Duration,
        /// The longest one.
        maximum: Duration,
    },
    /// Twice as long each time.
    Exponential {
        /// The first pause.
        minimum: Duration,
        /// The longest one.
        maximum: Duration,
        /// By how much a pause is made shorter or longer at random, at most. Default 20.
        jitter_percent: Option<u32>,
    },
    /// As listed; the last one from then on. 1 to 32 pauses.
    Explicit {
        /// The pauses.
        pauses: Vec<Duration>,
    },
}

/// Where messages go that were tried often enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterPolicy {
    /// Another topic than the subscription's.
    pub topic: String,
    /// How often a message is delivered before it goes there: 1 to 1,000. Default 5; always given in answers.
    pub max_delivery_attempts: Option<u32>,
}

impl RetryPolicy {
    /// `None`: of a kind that only a newer client knows.
    pub(super) fn from_wire(wire: Option<pb::RetryPolicy>) -> Option<Self> {
        let or_none = |wire: Option<prost_types::Duration>| wire.map(duration).unwrap_or_default();
        Some(match wire?.backoff? {
            Backoff::Immediate(_) => Self::Immediate,
            Backoff::Fixed(fixed) => Self::Fixed { pause: or_none(fixed.pause) },
            Backoff::Linear(linear) => Self::Linear {
                first: or_none(linear.first),
                step: or_none(linear.step),
                maximum: or_none(linear.maximum),
            },
            Backoff::Exponential(exponential) => Self::Exponential {
                minimum: or_none(exponential.minimum),
                maximum: or_none(exponential.maximum),
                jitter_percent: exponential.jitter_percent,
            },
            Backoff::Explicit(explicit) => {
                Self::Explicit { pauses: explicit.pauses.into_iter().map(duration).collect() }
            }
        })
    }
}

impl From<RetryPolicy> for pb::RetryPolicy {
    fn from(policy: RetryPolicy) -> Self {
        let some = |duration| Some(wire_duration(duration));
        let backoff = match policy {
            RetryPolicy::Immediate => Backoff::Immediate(retry_policy::Immediate {}),
            RetryPolicy::Fixed { pause } => Backoff::Fixed(retry_policy::Fixed { pause: some(pause) }),
            RetryPolicy::Linear { first, step, maximum } => {
                Backoff::Linear(retry_policy::Linear { first: some(first), step: some(step), maximum: some(maximum) })
            }
            RetryPolicy::Exponential { minimum, maximum, jitter_percent } => {
                let (minimum, maximum) = (some(minimum), some(maximum));
                Backoff::Exponential(retry_policy::Exponential { minimum, maximum, jitter_percent })
            }
            RetryPolicy::Explicit { pauses } => {
                let pauses = pauses.into_iter().map(wire_duration).collect();
                Backoff::Explicit(retry_policy::Explicit { pauses })
            }
        };
        Self { backoff: Some(backoff) }
    }
}

impl From<DeadLetterPolicy> for pb::DeadLetterPolicy {
    fn from(policy: DeadLetterPolicy) -> Self {
        Self { topic: policy.topic, max_delivery_attempts: policy.max_delivery_attempts }
    }
}

impl From<pb::DeadLetterPolicy> for DeadLetterPolicy {
    fn from(policy: pb::DeadLetterPolicy) -> Self {
        Self { topic: policy.topic, max_delivery_attempts: policy.max_delivery_attempts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_comes_back_as_it_went() {
        let ms = Duration::from_millis;
        let policies = [
            RetryPolicy::Immediate,
            RetryPolicy::Fixed { pause: ms(1_500) },
            RetryPolicy::Linear { first: ms(0), step: ms(1), maximum: ms(2) },
            RetryPolicy::Exponential { minimum: ms(1), maximum: ms(2), jitter_percent: Some(0) },
            RetryPolicy::Explicit { pauses: vec![ms(1), ms(0), ms(2_001)] },
        ];
        for policy in policies {
            assert_eq!(RetryPolicy::from_wire(Some(policy.clone().into())), Some(policy));
        }
        assert_eq!(RetryPolicy::from_wire(Some(pb::RetryPolicy { backoff: None })), None);
    }
}

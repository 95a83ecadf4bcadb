//! Subscriptions between the wire's types and the model's.

use std::time::Duration;

use quorate_model::limits::ACK_DEADLINE_MS_DEFAULT;
use quorate_model::{ClusterMap, DeadLetterPolicy, Reason, RetryPolicy, SubscriptionInfo, TopicId};
use quorate_proto::v1;
use quorate_proto::v1::retry_policy::{Backoff, Explicit, Exponential, Fixed, Immediate, Linear};

use crate::api::error::ApiError;
use crate::fetch::Start;
use crate::filter::Filter;

/// Jitter of a policy that doesn't say.
const JITTER_PERCENT_DEFAULT: u32 = 20;

/// A subscription as its owner sees it, without what its partitions say. `None`: the map doesn't hold its topics.
pub(crate) fn subscription(info: &SubscriptionInfo, map: &ClusterMap) -> Option<v1::Subscription> {
    let topic_name = |id: TopicId| Some(map.topic_by_id(id)?.name.to_string());
    let dead_letters = |policy: &DeadLetterPolicy| {
        let max_delivery_attempts = Some(policy.max_attempts);
        Some(v1::DeadLetterPolicy { topic: topic_name(policy.topic)?, max_delivery_attempts })
    };
    Some(v1::Subscription {
        name: info.name.to_string(),
        subscription_id: info.id.get(),
        topic: topic_name(info.topic)?,
        ack_deadline: wire_duration(info.ack_deadline_ms),
        retry_policy: Some(wire_retry_policy(&info.retry)),
        dead_letter_policy: match &info.dead_letter {
            Some(policy) => Some(dead_letters(policy)?),
            None => None,
        },
        ordered: info.ordered,
        labels: info.labels.clone(),
        etag: info.etag.to_string(),
        partition_status: Vec::new(),
        filter: info.filter.clone(),
    })
}

/// Where a subscription begins; absent means with what is published from now on. A position of a kind that this
/// version doesn't know looks empty: the subscription must not begin elsewhere than was meant.
pub(crate) fn start(position: Option<v1::Position>) -> Result<Start, ApiError> {
    match position {
        None => Ok(Start::Latest),
        Some(v1::Position { position: None }) => {
            let expected = "an offset, a time, earliest, latest or last; or no start at all";
            Err(ApiError::invalid(Reason::InvalidPosition, "start", "", expected))
        }
        given => super::start(given, "start"),
    }
}

/// How long a subscriber may keep a message; absent: 30 s.
pub(crate) fn ack_deadline_ms(wire: Option<prost_types::Duration>) -> Result<u64, ApiError> {
    wire.map_or(Ok(ACK_DEADLINE_MS_DEFAULT), |duration| milliseconds(duration, "ack_deadline"))
}

/// Which messages it gets. Refused here if it can't be read: replicas of the metadata only look at its length.
pub(crate) fn filter(text: String) -> Result<String, ApiError> {
    if !text.is_empty() {
        Filter::compile(&text)?;
    }
    Ok(text)
}

/// When a message is delivered again; absent: the default. Its bounds are the model's to check.
pub(crate) fn retry_policy(wire: Option<v1::RetryPolicy>) -> Result<RetryPolicy, ApiError> {
    let Some(policy) = wire else { return Ok(RetryPolicy::default()) };
    let backoff = policy.backoff.ok_or_else(|| ApiError::missing("retry_policy.backoff"))?;
    Ok(match backoff {
        Backoff::Immediate(Immediate {}) => RetryPolicy::Immediate,
        Backoff::Fixed(Fixed { pause }) => RetryPolicy::Fixed { pause_ms: needed(pause, "retry_policy.fixed.pause")? },
        Backoff::Linear(Linear { first, step, maximum }) => RetryPolicy::Linear {
            first_ms: needed(first, "retry_policy.linear.first")?,
            step_ms: needed(step, "retry_policy.linear.step")?,
            maximum_ms: needed(maximum, "retry_policy.linear.maximum")?,
        },
        Backoff::Exponential(Exponential { minimum, maximum, jitter_percent }) => RetryPolicy::Exponential {
            minimum_ms: needed(minimum, "retry_policy.exponential.minimum")?,
            maximum_ms: needed(maximum, "retry_policy.exponential.maximum")?,
            jitter_percent: jitter_percent.unwrap_or(JITTER_PERCENT_DEFAULT),
        },
        Backoff::Explicit(Explicit { pauses }) => {
            let pauses = pauses.into_iter().map(|pause| milliseconds(pause, "retry_policy.explicit.pauses"));
            RetryPolicy::Explicit { pauses_ms: pauses.collect::<Result<_, _>>()? }
        }
    })
}

fn wire_retry_policy(policy: &RetryPolicy) -> v1::RetryPolicy {
    let backoff = match policy {
        RetryPolicy::Immediate => Backoff::Immediate(Immediate {}),
        RetryPolicy::Fixed { pause_ms } => Backoff::Fixed(Fixed { pause: wire_duration(*pause_ms) }),
        RetryPolicy::Linear { first_ms, step_ms, maximum_ms } => Backoff::Linear(Linear {
            first: wire_duration(*first_ms),
            step: wire_duration(*step_ms),
            maximum: wire_duration(*maximum_ms),
        }),
        RetryPolicy::Exponential { minimum_ms, maximum_ms, jitter_percent } => Backoff::Exponential(Exponential {
            minimum: wire_duration(*minimum_ms),
            maximum: wire_duration(*maximum_ms),
            jitter_percent: Some(*jitter_percent),
        }),
        RetryPolicy::Explicit { pauses_ms } => {
            Backoff::Explicit(Explicit { pauses: pauses_ms.iter().filter_map(|ms| wire_duration(*ms)).collect() })
        }
    };
    v1::RetryPolicy { backoff: Some(backoff) }
}

fn needed(duration: Option<prost_types::Duration>, field: &str) -> Result<u64, ApiError> {
    milliseconds(duration.ok_or_else(|| ApiError::missing(field))?, field)
}

fn milliseconds(duration: prost_types::Duration, field: &str) -> Result<u64, ApiError> {
    let text = format!("{} s {} ns", duration.seconds, duration.nanos);
    let malformed = || ApiError::invalid(Reason::InvalidArgument, field, &text, "a duration that isn't negative");
    let duration = Duration::try_from(duration).map_err(|_| malformed())?;
    u64::try_from(duration.as_millis()).map_err(|_| malformed())
}

/// Every duration of a subscription is bounded, so that it has a form on the wire.
fn wire_duration(ms: u64) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(Duration::from_millis(ms)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(backoff: Option<Backoff>) -> String {
        let refused = retry_policy(Some(v1::RetryPolicy { backoff })).expect_err("refused");
        assert_eq!(refused.reason(), Reason::InvalidArgument);
        refused.message().to_owned()
    }

    #[test]
    fn every_policy_comes_back_as_it_went() {
        let policies = [
            RetryPolicy::Immediate,
            RetryPolicy::Fixed { pause_ms: 1_500 },
            RetryPolicy::Linear { first_ms: 0, step_ms: 1, maximum_ms: 43_200_000 },
            RetryPolicy::Exponential { minimum_ms: 1, maximum_ms: 2, jitter_percent: 0 },
            RetryPolicy::Explicit { pauses_ms: vec![1, 0, 2_001] },
        ];
        for policy in policies {
            assert_eq!(retry_policy(Some(wire_retry_policy(&policy))).ok(), Some(policy));
        }
        assert_eq!(retry_policy(None).ok(), Some(RetryPolicy::default()));
        let exponential =
            Exponential { minimum: wire_duration(1_000), maximum: wire_duration(600_000), jitter_percent: None };
        let default = v1::RetryPolicy { backoff: Some(Backoff::Exponential(exponential)) };
        assert_eq!(retry_policy(Some(default)).ok(), Some(RetryPolicy::default()));
    }

    #[test]
    fn what_is_missing_or_malformed_is_named() {
        assert_eq!(refused(None), "retry_policy.backoff: required");
        assert_eq!(refused(Some(Backoff::Fixed(Fixed { pause: None }))), "retry_policy.fixed.pause: required");
        let linear = Linear { first: wire_duration(1), step: None, maximum: wire_duration(1) };
        assert_eq!(refused(Some(Backoff::Linear(linear))), "retry_policy.linear.step: required");
        let pauses = vec![prost_types::Duration { seconds: -1, nanos: 0 }];
        let text = refused(Some(Backoff::Explicit(Explicit { pauses })));
        assert!(text.starts_with("retry_policy.explicit.pauses: \"-1 s 0 ns\""), "{text}");
        let endless = prost_types::Duration { seconds: i64::MAX, nanos: 0 };
        assert!(ack_deadline_ms(Some(endless)).is_err());
    }

    #[test]
    fn a_start_of_an_unknown_kind_is_not_taken_for_another() {
        assert_eq!(start(None).ok(), Some(Start::Latest));
        let refused = start(Some(v1::Position { position: None })).expect_err("refused");
        assert_eq!(refused.reason(), Reason::InvalidPosition);
    }
}

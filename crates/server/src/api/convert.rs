//! Between the wire's types and the model's. Whatever a caller can get wrong is refused here, by field.

pub(crate) mod subscription;

use std::time::Duration;

use bytes::Bytes;
use prost_types::Timestamp;
use quorate_model::{DeliveryOptions, MessageId, Offset, PartitionId, Reason, Record, Retention, TopicState};
use quorate_proto::v1;
use quorate_proto::v1::position::Position as WirePosition;

use super::error::ApiError;
use crate::fetch::{Consistency, Start};

/// A message of a unary publish as a record made now.
pub(crate) fn record(message: v1::Message, now_ms: u64) -> Result<Record, ApiError> {
    let invalid = |field| move |time: Timestamp| time_ms(time, Reason::InvalidArgument, field);
    let deliver_at_ms = message.deliver_at.map(invalid("deliver_at")).transpose()?;
    let expire_at_ms = message.expire_at.map(invalid("expire_at")).transpose()?;
    let options = DeliveryOptions {
        // Too high in any case.
        priority: u8::try_from(message.priority).unwrap_or(u8::MAX),
        deliver_at_ms: deliver_at_ms.unwrap_or(0),
        expire_at_ms: expire_at_ms.map_or(0, |ms| ms.max(1)),
    };
    let record = Record::new(now_ms, Bytes::from(message.ordering_key), message.attributes, message.data);
    Ok(Record { options, ..record })
}

/// A record as readers get it.
pub(crate) fn received_message(
    topic: &str,
    partition: PartitionId,
    offset: Offset,
    record: Record,
) -> v1::ReceivedMessage {
    let time = |ms: u64| (ms > 0).then(|| timestamp(ms));
    v1::ReceivedMessage {
        message: Some(v1::Message {
            data: record.data,
            attributes: record.attributes.into_iter().collect(),
            // The front door lets only UTF-8 keys in.
            ordering_key: String::from_utf8_lossy(&record.ordering_key).into_owned(),
            priority: record.options.priority.into(),
            deliver_at: time(record.options.deliver_at_ms),
            expire_at: time(record.options.expire_at_ms),
        }),
        message_id: message_id(partition, offset),
        topic: topic.to_owned(),
        partition: partition.index,
        offset: offset.get(),
        publish_time: Some(timestamp(record.timestamp_ms)),
    }
}

pub(crate) fn message_id(partition: PartitionId, offset: Offset) -> String {
    MessageId::new(partition, offset).to_string()
}

/// Where a read begins; `field` names the position in errors. Absent means the beginning.
pub(crate) fn start(position: Option<v1::Position>, field: &str) -> Result<Start, ApiError> {
    Ok(match position.and_then(|position| position.position) {
        None | Some(WirePosition::Earliest(_)) => Start::Earliest,
        Some(WirePosition::Latest(_)) => Start::Latest,
        Some(WirePosition::Offset(offset)) => Start::Offset(Offset::new(offset)),
        Some(WirePosition::Last(count)) => Start::Last(count),
        Some(WirePosition::Time(time)) => {
            Start::Time(time_ms(time, Reason::InvalidPosition, &format!("{field}.time"))?)
        }
    })
}

/// Who may answer a read.
pub(crate) fn consistency(wire: i32) -> Result<Consistency, ApiError> {
    match v1::Consistency::try_from(wire) {
        Ok(v1::Consistency::Unspecified | v1::Consistency::Leader) => Ok(Consistency::Leader),
        Ok(v1::Consistency::Local) => Ok(Consistency::Local),
        Err(_) => {
            let expected = "a consistency that this version knows: LEADER or LOCAL";
            Err(ApiError::invalid(Reason::InvalidArgument, "consistency", &wire, expected))
        }
    }
}

/// Milliseconds since the epoch, rounded up: the first record that isn't earlier than the time.
pub(crate) fn time_ms(time: Timestamp, reason: Reason, field: &str) -> Result<u64, ApiError> {
    let malformed = || {
        let value = format!("{} s {} ns", time.seconds, time.nanos);
        let expected = "a time from 1970 on, with nanoseconds from 0 to 999999999";
        ApiError::invalid(reason, field, &value, expected)
    };
    let seconds = u64::try_from(time.seconds).map_err(|_| malformed())?;
    let nanos = u64::try_from(time.nanos).ok().filter(|nanos| *nanos < 1_000_000_000).ok_or_else(malformed)?;
    seconds.checked_mul(1_000).and_then(|ms| ms.checked_add(nanos.div_ceil(1_000_000))).ok_or_else(malformed)
}

fn timestamp(ms: u64) -> Timestamp {
    let seconds = i64::try_from(ms / 1_000).unwrap_or(i64::MAX);
    let nanos = i32::try_from(ms % 1_000 * 1_000_000).unwrap_or_default();
    Timestamp { seconds, nanos }
}

/// A topic as its owner sees it; without the status of its partitions.
pub(crate) fn topic(state: &TopicState) -> v1::Topic {
    v1::Topic {
        name: state.name.to_string(),
        topic_id: state.id.get(),
        partitions: Some(state.partition_count()),
        replication_factor: Some(state.replication_factor),
        retention: Some(wire_retention(&state.retention)),
        max_message_bytes: state.max_message_bytes,
        labels: state.labels.clone(),
        etag: state.etag.to_string(),
        partition_status: Vec::new(),
    }
}

/// The version that an etag stands for; empty: any. `field` names it in errors.
pub(crate) fn etag(text: &str, field: &str) -> Result<Option<u64>, ApiError> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        ApiError::invalid(Reason::InvalidArgument, field, text, "an etag as an earlier answer gave it, or none")
    })
}

/// Bounds on what a topic keeps; absent fields: no such bound.
pub(crate) fn retention(wire: v1::Retention) -> Result<Retention, ApiError> {
    let age_ms = wire.age.map(age_ms).transpose()?;
    Ok(Retention { age_ms, bytes: wire.bytes, messages: wire.messages })
}

fn age_ms(age: prost_types::Duration) -> Result<u64, ApiError> {
    let text = format!("{} s {} ns", age.seconds, age.nanos);
    let malformed =
        || ApiError::invalid(Reason::InvalidArgument, "topic.retention.age", &text, "a duration of at least 1 ms");
    let duration = Duration::try_from(age).map_err(|_| malformed())?;
    u64::try_from(duration.as_millis()).ok().filter(|ms| *ms > 0).ok_or_else(malformed)
}

fn wire_retention(retention: &Retention) -> v1::Retention {
    let age = retention.age_ms.map(Duration::from_millis).and_then(|age| prost_types::Duration::try_from(age).ok());
    v1::Retention { age, bytes: retention.bytes, messages: retention.messages }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64, nanos: i32) -> Result<Start, ApiError> {
        let position = WirePosition::Time(Timestamp { seconds, nanos });
        start(Some(v1::Position { position: Some(position) }), "start")
    }

    #[test]
    fn a_time_is_rounded_up_to_the_millisecond() {
        assert_eq!(at(1, 0).ok(), Some(Start::Time(1_000)));
        assert_eq!(at(1, 1).ok(), Some(Start::Time(1_001)));
        assert_eq!(at(1, 999_999_999).ok(), Some(Start::Time(2_000)));
    }

    #[test]
    fn a_malformed_time_is_refused_by_field() {
        for (seconds, nanos) in [(-1, 0), (0, -1), (0, 1_000_000_000), (i64::MAX, 0)] {
            let refused = at(seconds, nanos).expect_err("refused");
            assert_eq!(refused.reason(), Reason::InvalidPosition, "{seconds} {nanos}");
        }
    }
}

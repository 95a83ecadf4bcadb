//! One message as it stands in the log.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::limits::{
    ATTRIBUTE_KEY_BYTES_MAX, ATTRIBUTE_VALUE_BYTES_MAX, ATTRIBUTES_MAX, MESSAGE_BYTES_CAP, ORDERING_KEY_BYTES_MAX,
    PRIORITY_MAX, TIME_MS_MAX,
};
use crate::reason::Reason;

/// One message. Its offset is not part of it: the partition assigns one when the batch is appended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// When the producer made it, in milliseconds since 1970, by the producer's clock.
    pub timestamp_ms: u64,
    /// Messages with the same key keep their order. UTF-8; empty: no key.
    pub ordering_key: Bytes,
    /// Sorted by key, each key once.
    pub attributes: Vec<(String, String)>,
    /// How subscriptions deliver it.
    pub options: DeliveryOptions,
    /// The payload, opaque to the broker.
    pub data: Bytes,
}

/// What a producer may say about the delivery of a message. Readers of the log don't care.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryOptions {
    /// 0 to [`PRIORITY_MAX`]: what is ready in a higher priority is delivered first.
    pub priority: u8,
    /// Not delivered before, in milliseconds since 1970; 0: at once.
    pub deliver_at_ms: u64,
    /// Not delivered from then on, in milliseconds since 1970; 0: always.
    pub expire_at_ms: u64,
}

impl DeliveryOptions {
    /// Whether the message has a place of its own, besides the one in the log.
    pub fn leaves_the_log(&self) -> bool {
        self.priority > 0 || self.deliver_at_ms > 0
    }

    pub(crate) fn check(&self) -> Result<(), RecordError> {
        let Self { priority, deliver_at_ms, expire_at_ms } = *self;
        if priority > PRIORITY_MAX {
            return Err(RecordError::PriorityTooHigh { priority: u64::from(priority) });
        }
        if deliver_at_ms > TIME_MS_MAX {
            return Err(RecordError::DeliverAtTooLate { time_ms: deliver_at_ms });
        }
        if expire_at_ms > TIME_MS_MAX {
            return Err(RecordError::ExpireAtTooLate { time_ms: expire_at_ms });
        }
        if expire_at_ms > 0 && expire_at_ms <= deliver_at_ms {
            return Err(RecordError::ExpiresBeforeDelivery { deliver_at_ms, expire_at_ms });
        }
        Ok(())
    }
}

impl Record {
    /// A record with its attributes brought into order.
    pub fn new(
        timestamp_ms: u64,
        ordering_key: impl Into<Bytes>,
        attributes: impl IntoIterator<Item = (String, String)>,
        data: impl Into<Bytes>,
    ) -> Record {
        let mut attributes: Vec<_> = attributes.into_iter().collect();
        attributes.sort();
        Record { timestamp_ms, ordering_key: ordering_key.into(), attributes, data: data.into(), ..Record::default() }
    }

    /// Whether the record keeps every limit, including the topic's own on the size of a message.
    pub fn validate(&self, message_bytes_max: u64) -> Result<(), RecordError> {
        check_data(&self.data, message_bytes_max)?;
        check_key(&self.ordering_key)?;
        self.options.check()?;
        check_attribute_count(self.attributes.len())?;
        let mut previous = None;
        for (key, value) in &self.attributes {
            check_attribute(previous, key, value)?;
            previous = Some(key);
        }
        Ok(())
    }
}

/// The message's data against the topic's limit, and against the cap whatever the topic says.
pub(crate) fn check_data(data: &[u8], message_bytes_max: u64) -> Result<(), RecordError> {
    let limit = message_bytes_max.min(MESSAGE_BYTES_CAP);
    let bytes = data.len() as u64;
    if bytes > limit {
        return Err(RecordError::DataTooLarge { bytes, limit });
    }
    Ok(())
}

pub(crate) fn check_key(key: &[u8]) -> Result<(), RecordError> {
    if key.len() > ORDERING_KEY_BYTES_MAX {
        return Err(RecordError::OrderingKeyTooLong { bytes: key.len() as u64 });
    }
    // The public API carries the key as text; a key that isn't could be stored but never delivered.
    if std::str::from_utf8(key).is_err() {
        return Err(RecordError::OrderingKeyNotText);
    }
    Ok(())
}

pub(crate) fn check_attribute_count(count: usize) -> Result<(), RecordError> {
    if count > ATTRIBUTES_MAX {
        return Err(RecordError::TooManyAttributes { count: count as u64 });
    }
    Ok(())
}

/// One attribute, and that its key comes after the `previous` one.
pub(crate) fn check_attribute(previous: Option<&String>, key: &String, value: &str) -> Result<(), RecordError> {
    if key.is_empty() {
        return Err(RecordError::AttributeKeyEmpty);
    }
    if key.len() > ATTRIBUTE_KEY_BYTES_MAX {
        return Err(RecordError::AttributeKeyTooLong { bytes: key.len() as u64 });
    }
    if value.len() > ATTRIBUTE_VALUE_BYTES_MAX {
        return Err(RecordError::AttributeValueTooLong { key: key.clone(), bytes: value.len() as u64 });
    }
    match previous {
        Some(previous) if previous == key => Err(RecordError::AttributeTwice { key: key.clone() }),
        Some(previous) if previous > key => Err(RecordError::AttributesUnsorted { key: key.clone() }),
        _ => Ok(()),
    }
}

/// Why a message can't stand in a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum RecordError {
    /// The payload is over the topic's limit.
    #[error("data has {bytes} bytes, the limit is {limit}")]
    DataTooLarge {
        /// Size given.
        bytes: u64,
        /// Size allowed.
        limit: u64,
    },
    /// The ordering key is too long.
    #[error("ordering_key has {bytes} bytes, the limit is {ORDERING_KEY_BYTES_MAX}")]
    OrderingKeyTooLong {
        /// Length given.
        bytes: u64,
    },
    /// The ordering key isn't UTF-8.
    #[error("ordering_key is not UTF-8")]
    OrderingKeyNotText,
    /// Too many attributes.
    #[error("attributes has {count} entries, the limit is {ATTRIBUTES_MAX}")]
    TooManyAttributes {
        /// Number given.
        count: u64,
    },
    /// An attribute without a key.
    #[error("attributes has an empty key; a key needs 1 to {ATTRIBUTE_KEY_BYTES_MAX} bytes")]
    AttributeKeyEmpty,
    /// An attribute's key is too long.
    #[error("attributes has a key of {bytes} bytes, the limit is {ATTRIBUTE_KEY_BYTES_MAX}")]
    AttributeKeyTooLong {
        /// Length given.
        bytes: u64,
    },
    /// An attribute's value is too long.
    #[error("attributes[{key:?}] has {bytes} bytes, the limit is {ATTRIBUTE_VALUE_BYTES_MAX}")]
    AttributeValueTooLong {
        /// The attribute.
        key: String,
        /// Length given.
        bytes: u64,
    },
    /// The same key twice.
    #[error("attributes holds the key {key:?} twice")]
    AttributeTwice {
        /// The key.
        key: String,
    },
    /// Attributes out of order.
    #[error("attributes are not sorted by key at {key:?}")]
    AttributesUnsorted {
        /// The key that comes too late.
        key: String,
    },
    /// There is no such priority.
    #[error("priority is {priority}, the limit is {PRIORITY_MAX}")]
    PriorityTooHigh {
        /// The priority given.
        priority: u64,
    },
    /// A time after the year 9999.
    #[error("deliver_at is {time_ms} ms after 1970, the limit is {TIME_MS_MAX}")]
    DeliverAtTooLate {
        /// The time given.
        time_ms: u64,
    },
    /// A time after the year 9999.
    #[error("expire_at is {time_ms} ms after 1970, the limit is {TIME_MS_MAX}")]
    ExpireAtTooLate {
        /// The time given.
        time_ms: u64,
    },
    /// The message could never be delivered.
    #[error("expire_at ({expire_at_ms} ms after 1970) is not after deliver_at ({deliver_at_ms} ms)")]
    ExpiresBeforeDelivery {
        /// Not delivered before.
        deliver_at_ms: u64,
        /// Not delivered from then on.
        expire_at_ms: u64,
    },
}

impl RecordError {
    /// The entry of the error table.
    pub fn reason(&self) -> Reason {
        match self {
            RecordError::DataTooLarge { .. } => Reason::MessageTooLarge,
            RecordError::OrderingKeyTooLong { .. } | RecordError::OrderingKeyNotText => Reason::InvalidOrderingKey,
            RecordError::TooManyAttributes { .. } => Reason::TooManyAttributes,
            RecordError::AttributeKeyEmpty
            | RecordError::AttributeKeyTooLong { .. }
            | RecordError::AttributeValueTooLong { .. }
            | RecordError::AttributeTwice { .. }
            | RecordError::AttributesUnsorted { .. } => Reason::InvalidAttribute,
            RecordError::PriorityTooHigh { .. }
            | RecordError::DeliverAtTooLate { .. }
            | RecordError::ExpireAtTooLate { .. }
            | RecordError::ExpiresBeforeDelivery { .. } => Reason::InvalidArgument,
        }
    }

    /// Facts for a program: the field, and the value and limit where there is one.
    pub fn metadata(&self) -> Vec<(&'static str, String)> {
        let (field, value, limit) = match self {
            RecordError::DataTooLarge { bytes, limit } => ("data", Some(*bytes), Some(*limit)),
            RecordError::OrderingKeyTooLong { bytes } => {
                ("ordering_key", Some(*bytes), Some(ORDERING_KEY_BYTES_MAX as u64))
            }
            RecordError::OrderingKeyNotText => ("ordering_key", None, None),
            RecordError::TooManyAttributes { count } => ("attributes", Some(*count), Some(ATTRIBUTES_MAX as u64)),
            RecordError::AttributeKeyEmpty => ("attributes.key", Some(0), Some(ATTRIBUTE_KEY_BYTES_MAX as u64)),
            RecordError::AttributeKeyTooLong { bytes } => {
                ("attributes.key", Some(*bytes), Some(ATTRIBUTE_KEY_BYTES_MAX as u64))
            }
            RecordError::AttributeValueTooLong { bytes, .. } => {
                ("attributes.value", Some(*bytes), Some(ATTRIBUTE_VALUE_BYTES_MAX as u64))
            }
            RecordError::AttributeTwice { .. } | RecordError::AttributesUnsorted { .. } => ("attributes", None, None),
            RecordError::PriorityTooHigh { priority } => ("priority", Some(*priority), Some(u64::from(PRIORITY_MAX))),
            RecordError::DeliverAtTooLate { time_ms } => ("deliver_at", Some(*time_ms), Some(TIME_MS_MAX)),
            RecordError::ExpireAtTooLate { time_ms } => ("expire_at", Some(*time_ms), Some(TIME_MS_MAX)),
            RecordError::ExpiresBeforeDelivery { expire_at_ms, .. } => ("expire_at", Some(*expire_at_ms), None),
        };
        let mut facts = vec![("field", field.to_owned())];
        facts.extend(value.map(|v| ("value", v.to_string())));
        facts.extend(limit.map(|l| ("limit", l.to_string())));
        facts
    }
}

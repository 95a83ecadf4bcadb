//! What a producer sends ([`Message`]) and what a reader gets ([`ReceivedMessage`]).

use bytes::Bytes;
use quorate_model::{DeliveryOptions, MessageId, Offset, Record, TopicId};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A message to publish.
///
/// ```
/// use quorate_client::Message;
/// let message = Message::new("a cup of tea").ordering_key("table-7").attribute("kind", "order");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    pub(crate) data: Bytes,
    pub(crate) ordering_key: Bytes,
    pub(crate) attributes: Vec<(String, String)>,
    pub(crate) partition: Option<u32>,
    pub(crate) options: DeliveryOptions,
    /// Counted from when it is handed to a publisher.
    pub(crate) deliver_after: Option<Duration>,
    pub(crate) expire_after: Option<Duration>,
}

impl Message {
    /// A message with this payload, at most the topic's `max_message_bytes`.
    #[must_use]
    pub fn new(data: impl Into<Bytes>) -> Self {
        Self { data: data.into(), ..Self::default() }
    }

    /// Messages with the same key go to the same partition, in the order in which they were handed to
    /// one publisher. At most 1,024 bytes; empty: none.
    #[must_use]
    pub fn ordering_key(mut self, key: impl Into<String>) -> Self {
        self.ordering_key = Bytes::from(key.into());
        self
    }

    /// Adds an attribute. At most 100; keys 1 to 256 bytes and unique, values at most 1,024 bytes.
    #[must_use]
    pub fn attribute(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.push((key.into(), value.into()));
        self
    }

    /// Chooses the partition instead of leaving it to the ordering key or to the publisher.
    #[must_use]
    pub fn partition(mut self, partition: u32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// 0 to 9, 0 by default. Of the messages of a partition that are ready, subscriptions deliver those with a higher
    /// priority first.
    #[must_use]
    pub fn priority(mut self, priority: u8) -> Self {
        self.options.priority = priority;
        self
    }

    /// Subscriptions don't deliver it before, by the clock of the partition's leader. At most the end of the year 9999.
    #[must_use]
    pub fn deliver_at(mut self, time: SystemTime) -> Self {
        self.options.deliver_at_ms = since_epoch_ms(time);
        self
    }

    /// The same, counted from when the message is handed to a publisher, by this machine's clock.
    #[must_use]
    pub fn deliver_after(mut self, delay: Duration) -> Self {
        self.deliver_after = Some(delay);
        self
    }

    /// Subscriptions don't deliver it any more from then on. At most the end of the year 9999.
    #[must_use]
    pub fn expire_at(mut self, time: SystemTime) -> Self {
        self.options.expire_at_ms = since_epoch_ms(time).max(1);
        self
    }

    /// The same, counted from when the message is handed to a publisher, by this machine's clock.
    #[must_use]
    pub fn expire_after(mut self, time: Duration) -> Self {
        self.expire_after = Some(time);
        self
    }

    pub(crate) fn into_record(self, timestamp_ms: u64) -> Record {
        // A time that no clock can show is refused by name.
        let then = |time: Duration| timestamp_ms.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let options = DeliveryOptions {
            deliver_at_ms: self.deliver_after.map_or(self.options.deliver_at_ms, then),
            expire_at_ms: self.expire_after.map_or(self.options.expire_at_ms, then),
            ..self.options
        };
        let record = Record::new(timestamp_ms, self.ordering_key, self.attributes, self.data);
        Record { options, ..record }
    }
}

/// A message as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedMessage {
    /// Name of the topic.
    pub topic: Arc<str>,
    /// Unique in the cluster for all time; its `Display` is the opaque string of the public API.
    pub message_id: MessageId,
    /// Partition number, from 0.
    pub partition: u32,
    /// Position in the partition; strictly increasing, never reused.
    pub offset: u64,
    /// When the message was handed to its publisher, by that machine's clock, in ms since 1970.
    pub publish_time_ms: u64,
    /// Empty: none.
    pub ordering_key: Bytes,
    /// Sorted by key.
    pub attributes: Vec<(String, String)>,
    /// 0 to 9.
    pub priority: u8,
    /// Not delivered by subscriptions before, in ms since 1970; `None`: at once.
    pub deliver_at_ms: Option<u64>,
    /// Not delivered by subscriptions from then on, in ms since 1970; `None`: always.
    pub expire_at_ms: Option<u64>,
    /// The payload.
    pub data: Bytes,
}

impl ReceivedMessage {
    /// The same message, to be published again: data, ordering key, attributes and priority.
    #[must_use]
    pub fn to_message(&self) -> Message {
        let (data, ordering_key) = (self.data.clone(), self.ordering_key.clone());
        // The times were of its first life.
        let options = DeliveryOptions { priority: self.priority, ..DeliveryOptions::default() };
        Message { data, ordering_key, attributes: self.attributes.clone(), options, ..Message::default() }
    }

    pub(crate) fn new(name: &Arc<str>, topic: TopicId, partition: u32, offset: u64, record: Record) -> Self {
        Self {
            topic: Arc::clone(name),
            message_id: message_id(topic, partition, offset),
            partition,
            offset,
            publish_time_ms: record.timestamp_ms,
            ordering_key: record.ordering_key,
            attributes: record.attributes,
            priority: record.options.priority,
            deliver_at_ms: (record.options.deliver_at_ms > 0).then_some(record.options.deliver_at_ms),
            expire_at_ms: (record.options.expire_at_ms > 0).then_some(record.options.expire_at_ms),
            data: record.data,
        }
    }
}

fn since_epoch_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn message_id(topic: TopicId, partition: u32, offset: u64) -> MessageId {
    MessageId { topic, partition, offset: Offset::new(offset) }
}

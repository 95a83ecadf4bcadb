//! What a producer sends ([`Message`]) and what a reader gets ([`ReceivedMessage`]).

use bytes::Bytes;
use quorate_model::{MessageId, Offset, Record, TopicId};
use std::sync::Arc;

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

    pub(crate) fn into_record(self, timestamp_ms: u64) -> Record {
        Record::new(timestamp_ms, self.ordering_key, self.attributes, self.data)
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
    /// The payload.
    pub data: Bytes,
}

impl ReceivedMessage {
    /// The same message, to be published again: data, ordering key and attributes.
    #[must_use]
    pub fn to_message(&self) -> Message {
        let (data, ordering_key) = (self.data.clone(), self.ordering_key.clone());
        Message { data, ordering_key, attributes: self.attributes.clone(), partition: None }
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
            data: record.data,
        }
    }
}

pub(crate) fn message_id(topic: TopicId, partition: u32, offset: u64) -> MessageId {
    MessageId { topic, partition, offset: Offset::new(offset) }
}

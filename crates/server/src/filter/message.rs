//! What an expression sees of a message.

use std::collections::HashMap;
use std::sync::OnceLock;

use cel::common::types::{CelInt, CelMap, CelMapKey, CelString, CelTimestamp};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use chrono::{DateTime, Utc};
use quorate_model::{Offset, PartitionId, Record, TopicId};

pub(super) const ATTRIBUTES: &str = "attributes";

/// Everything that [`Message::resolve`] knows.
pub(super) const VARIABLES: &[&str] =
    &[ATTRIBUTES, "ordering_key", "topic", "partition", "offset", "publish_time", "priority", "size"];

/// A message as an expression sees it.
pub(crate) struct Message<'a> {
    topic: &'a str,
    partition: PartitionId,
    offset: Offset,
    record: &'a Record,
    /// Made when it is first looked at.
    attributes: OnceLock<CelMap<'a>>,
}

impl<'a> Message<'a> {
    pub(crate) fn new(topic: &'a str, partition: PartitionId, offset: Offset, record: &'a Record) -> Self {
        Self { topic, partition, offset, record, attributes: OnceLock::new() }
    }

    /// One that was never published.
    pub(super) fn sample(record: &'a Record) -> Self {
        Self::new("", PartitionId::new(TopicId::new(0), 0), Offset::ZERO, record)
    }

    fn attributes(&self) -> &CelMap<'a> {
        self.attributes.get_or_init(|| {
            let attributes = self.record.attributes.iter();
            let entries: HashMap<CelMapKey<'a>, Box<dyn Val + 'a>> = attributes
                .map(|(key, value)| -> (_, Box<dyn Val + 'a>) {
                    (CelMapKey::from(key.as_str()), Box::new(CelString::from(value.as_str())))
                })
                .collect();
            entries.into()
        })
    }
}

impl VariableResolver for Message<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        Some(match variable {
            ATTRIBUTES => CowVal::Borrowed(self.attributes()),
            // The front door lets only UTF-8 keys in.
            "ordering_key" => text(std::str::from_utf8(&self.record.ordering_key).unwrap_or_default()),
            "topic" => text(self.topic),
            "partition" => number(self.partition.index),
            "offset" => number(self.offset.get()),
            "publish_time" => CowVal::owned(CelTimestamp::from(time(self.record.timestamp_ms).fixed_offset())),
            "priority" => number(self.record.options.priority),
            "size" => number(self.record.data.len()),
            _ => return None,
        })
    }
}

/// A record with attributes of these names.
pub(super) fn record_with(attributes: Vec<String>) -> Record {
    let mut record = Record::new(0, "", attributes.into_iter().map(|name| (name, String::new())), "");
    record.attributes.dedup();
    record
}

fn text(text: &str) -> CowVal<'_, '_> {
    CowVal::owned(CelString::from(text))
}

fn number<'b>(number: impl TryInto<i64>) -> CowVal<'b, 'b> {
    CowVal::owned(CelInt::from(number.try_into().unwrap_or(i64::MAX)))
}

/// A producer may stamp any time: one that no calendar has is later than all others.
fn time(ms: u64) -> DateTime<Utc> {
    i64::try_from(ms).ok().and_then(DateTime::from_timestamp_millis).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

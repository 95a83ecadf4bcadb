//! How messages are printed.

use crate::failure::Failure;
use crate::output::Format;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use quorate_client::ReceivedMessage;
use serde::Serialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A message as JSON: the fields of the public message that exist so far.
#[derive(Serialize)]
struct Row<'a> {
    message_id: String,
    topic: &'a str,
    partition: u32,
    offset: u64,
    ordering_key: Cow<'a, str>,
    attributes: BTreeMap<&'a str, &'a str>,
    publish_time: String,
    priority: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    deliver_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expire_at: Option<String>,
    /// Of messages that a subscription delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    delivery_attempt: Option<u32>,
    #[serde(flatten)]
    data: Data<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Data<'a> {
    Text { data: &'a str },
    Bytes { data_base64: String },
}

impl<'a> Row<'a> {
    fn of(message: &'a ReceivedMessage, delivery_attempt: Option<u32>) -> Row<'a> {
        let data = match str::from_utf8(&message.data) {
            Ok(data) => Data::Text { data },
            Err(_) => Data::Bytes { data_base64: STANDARD.encode(&message.data) },
        };
        let time = |ms| rfc3339(UNIX_EPOCH.checked_add(Duration::from_millis(ms)).unwrap_or(UNIX_EPOCH));
        Row {
            message_id: message.message_id.to_string(),
            topic: &message.topic,
            partition: message.partition,
            offset: message.offset,
            ordering_key: String::from_utf8_lossy(&message.ordering_key),
            attributes: message.attributes.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
            publish_time: time(message.publish_time_ms),
            priority: message.priority,
            deliver_at: message.deliver_at_ms.map(time),
            expire_at: message.expire_at_ms.map(time),
            delivery_attempt,
            data,
        }
    }
}

/// Prints a message on a line of its own. `attempt` is told of messages that a subscription delivered.
pub(crate) fn write(
    out: &mut impl Write,
    message: &ReceivedMessage,
    attempt: Option<u32>,
    format: Format,
) -> Result<(), Failure> {
    match format {
        Format::Raw => out.write_all(&message.data)?,
        Format::Json => serde_json::to_writer(&mut *out, &Row::of(message, attempt)).map_err(io::Error::from)?,
        Format::Text => {
            write!(out, "{}@{} ", message.partition, message.offset)?;
            if !message.ordering_key.is_empty() {
                write!(out, "[{}] ", String::from_utf8_lossy(&message.ordering_key))?;
            }
            if let Some(attempt) = attempt.filter(|attempt| *attempt > 1) {
                write!(out, "(attempt {attempt}) ")?;
            }
            write!(out, "{}", String::from_utf8_lossy(&message.data))?;
        }
    }
    Ok(out.write_all(b"\n")?)
}

/// A producer may stamp any time; one past the year 9999 has no such form.
fn rfc3339(time: SystemTime) -> String {
    const YEAR_10_000: u64 = 253_402_300_800;
    let representable = time.duration_since(UNIX_EPOCH).is_ok_and(|since| since.as_secs() < YEAR_10_000);
    humantime::format_rfc3339_millis(if representable { time } else { UNIX_EPOCH }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_beyond_all_calendars_does_not_break_printing() {
        assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_millis(1500)), "1970-01-01T00:00:01.500Z");
        assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(1 << 40)), "1970-01-01T00:00:00.000Z");
    }
}

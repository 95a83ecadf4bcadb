//! What a benchmark is asked to do, and within which bounds.

use crate::commands::publish::Codec;
use crate::failure::Failure;
use clap::Args;
use quorate_client::{Client, ClientError, Publisher};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

/// Each publisher and each reader has connections of its own.
const CLIENTS_MAX: i64 = 1000;
const IN_FLIGHT_MAX: i64 = 100_000;
/// Beyond it the clock's resolution is all that would be measured.
const RATE_MAX: u64 = 10_000_000;
/// The broker's own bound of a message.
const SIZE_MAX: i64 = 16 << 20;

/// Applies when neither a number of messages nor a time is given.
const DURATION: Duration = Duration::from_secs(10);

/// What the publisher's buffer holds beyond the payload of a message in flight.
const MESSAGE_MARGIN_BYTES: u64 = 2048;

/// The SDK's own buffer.
const BUFFER_BYTES: u64 = 64 << 20;

/// What is published, and how.
#[derive(Clone, Debug, Args)]
pub(super) struct Load {
    /// Messages per second, all publishers together [default: as fast as possible]
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u64).range(1..=RATE_MAX))]
    pub(super) rate: Option<u64>,
    /// Payload of a message; several sizes, separated by commas, take turns
    #[arg(long, value_name = "BYTES", default_value = "1024", value_delimiter = ',',
          value_parser = clap::value_parser!(u32).range(1..=SIZE_MAX))]
    pub(super) size: Vec<u32>,
    /// Publishers, each with connections of its own
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=CLIENTS_MAX))]
    pub(super) publishers: u32,
    /// Messages of one publisher that wait for their outcome at most
    #[arg(long, value_name = "COUNT", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=IN_FLIGHT_MAX))]
    pub(super) in_flight: u32,
    /// End after this many messages, those of the warm-up not counted
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) messages: Option<u64>,
    /// End after this time, the warm-up not counted [default: 10s, or until --messages are sent]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(super) duration: Option<Duration>,
    /// Messages sent in this time at first are published, but not measured
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    pub(super) warm_up: Duration,
    /// How batches are compressed; payloads are random hexadecimal digits, which shrink to about a half
    #[arg(long, value_enum, default_value_t = Codec::None)]
    pub(super) compression: Codec,
    /// Messages in a full batch [default: the SDK's]
    #[arg(long, value_name = "COUNT")]
    pub(super) batch_records: Option<usize>,
    /// Bytes in a full batch [default: the SDK's]
    #[arg(long, value_name = "BYTES")]
    pub(super) batch_bytes: Option<usize>,
    /// How long a batch may wait to fill while another one is under way [default: the SDK's]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(super) linger: Option<Duration>,
    /// Every message is a batch of its own
    #[arg(long, conflicts_with_all = ["batch_records", "batch_bytes", "linger"])]
    pub(super) unbatched: bool,
    /// Number of different ordering keys, used by turns [default: messages have none]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) keys: Option<u64>,
}

/// Where it is published.
#[derive(Clone, Debug, Args)]
pub(super) struct Target {
    /// An existing topic, which stays [default: a new one, deleted afterwards]
    #[arg(long)]
    pub(super) topic: Option<String>,
    /// Partitions of the new topic [default: 3]
    #[arg(long, value_name = "COUNT", conflicts_with = "topic", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) partitions: Option<u32>,
    /// Nodes that hold each partition of the new topic [default: 3 where there are 3 nodes, else 1]
    #[arg(long, value_name = "COUNT", conflicts_with = "topic", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) replication_factor: Option<u32>,
    /// Leave the new topic and its messages where they are
    #[arg(long, conflicts_with = "topic")]
    pub(super) keep: bool,
}

/// Files with more than the table shows.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Files {
    /// A row per second: counts, throughput, latencies of that second
    #[arg(long, value_name = "FILE")]
    pub(super) csv: Option<PathBuf>,
    /// The whole distribution of latencies, in milliseconds, as text that HdrHistogram's plotters read
    #[arg(long, value_name = "FILE")]
    pub(super) hdr: Option<PathBuf>,
}

/// The choices that a result can't be understood without.
#[derive(Debug, Serialize)]
pub(super) struct LoadRow {
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_per_second: Option<u64>,
    message_bytes: Vec<u32>,
    publishers: u32,
    in_flight_per_publisher: u32,
    compression: &'static str,
    batching: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<u64>,
}

impl Load {
    /// A load that fills a topic as fast as it can.
    pub(super) fn filling(messages: u64, size: u32, compression: Codec) -> Load {
        Load {
            rate: None,
            size: vec![size],
            publishers: 1,
            in_flight: 10_000,
            messages: Some(messages),
            duration: None,
            warm_up: Duration::ZERO,
            compression,
            batch_records: None,
            batch_bytes: None,
            linger: None,
            unbatched: false,
            keys: None,
        }
    }

    pub(super) fn size_max(&self) -> u32 {
        self.size.iter().copied().max().unwrap_or(0)
    }

    /// How long messages are measured; `None`: until enough of them were sent.
    pub(super) fn measured_for(&self) -> Option<Duration> {
        self.duration.or_else(|| self.messages.is_none().then_some(DURATION))
    }

    /// Messages too large for the topic would all fail, one by one.
    pub(super) fn check_sizes(&self, topic: &str, limit: u64) -> Result<(), Failure> {
        match self.size.iter().find(|size| u64::from(**size) > limit) {
            None => Ok(()),
            Some(size) => Err(Failure::usage(format!("--size {size} is more than {topic} takes, {limit} bytes"))
                .advise("`quorate topic update --max-message-bytes` changes that bound")),
        }
    }

    pub(super) async fn publisher(&self, client: &Client, topic: &str) -> Result<Publisher, ClientError> {
        // The bound on messages in flight must be the only one: a full buffer would stop the clock's reader.
        let in_flight_bytes = u64::from(self.in_flight) * (u64::from(self.size_max()) + MESSAGE_MARGIN_BYTES);
        let buffer = u32::try_from(in_flight_bytes.max(BUFFER_BYTES)).unwrap_or(u32::MAX);
        let mut builder = client.publisher(topic).compression(self.compression.into()).buffer_bytes(buffer);
        if let Some(records) = self.batch_records.or(self.unbatched.then_some(1)) {
            builder = builder.batch_records(records);
        }
        if let Some(bytes) = self.batch_bytes {
            builder = builder.batch_bytes(bytes);
        }
        if let Some(linger) = self.linger {
            builder = builder.linger(linger);
        }
        builder.build().await
    }

    pub(super) fn row(&self) -> LoadRow {
        LoadRow {
            rate_per_second: self.rate,
            message_bytes: self.size.clone(),
            publishers: self.publishers,
            in_flight_per_publisher: self.in_flight,
            compression: self.compression.name(),
            batching: self.batching(),
            keys: self.keys,
        }
    }

    fn batching(&self) -> String {
        if self.unbatched {
            return "none".to_owned();
        }
        let chosen = [
            self.batch_records.map(|records| format!("{records} messages")),
            self.batch_bytes.map(|bytes| format!("{bytes} bytes")),
            self.linger.map(|linger| format!("linger {}", humantime::format_duration(linger))),
        ];
        let chosen: Vec<String> = chosen.into_iter().flatten().collect();
        if chosen.is_empty() { "the SDK's".to_owned() } else { chosen.join(", ") }
    }
}

impl LoadRow {
    pub(super) fn text(&self) -> String {
        let sizes: Vec<String> = self.message_bytes.iter().map(u32::to_string).collect();
        let rate = self.rate_per_second.map_or_else(|| "as fast as possible".to_owned(), |rate| format!("{rate}/s"));
        let plural = if self.publishers == 1 { "publisher" } else { "publishers" };
        format!(
            "{} {plural} × {} in flight, {} bytes, {rate}, compression {}, batching {}",
            self.publishers,
            self.in_flight_per_publisher,
            sizes.join(" and "),
            self.compression,
            self.batching
        )
    }
}

//! [`PublisherBuilder`]: how a publisher batches, buffers and gives up.

use std::sync::Arc;
use std::time::Duration;

use quorate_model::limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, PRODUCER_WINDOW_BATCHES};
use quorate_model::{Codec, ProducerId};

use super::Publisher;
use super::lane::LaneSettings;
use super::worker::WorkerSettings;
use crate::client::Client;
use crate::error::ClientError;
use crate::routing::TopicRef;

/// Batches in flight per partition. Fewer than the broker remembers per producer, so that a repeat of
/// any of them is always recognised.
const IN_FLIGHT_BATCHES: usize = 5;
const _: () = assert!(IN_FLIGHT_BATCHES < PRODUCER_WINDOW_BATCHES);

/// Builds a [`Publisher`]; from [`Client::publisher`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing before `build`"]
pub struct PublisherBuilder {
    client: Client,
    topic: String,
    settings: Settings,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) batch_records: usize,
    pub(super) batch_bytes: usize,
    pub(super) linger: Duration,
    pub(super) buffer_bytes: u32,
    pub(super) delivery_timeout: Duration,
    pub(super) attempt_timeout: Duration,
    pub(super) compression: Codec,
    pub(super) idempotent: bool,
}

impl PublisherBuilder {
    pub(crate) fn new(client: Client, topic: String) -> Self {
        let settings = Settings {
            batch_records: 100,
            batch_bytes: 1_000_000,
            linger: Duration::from_millis(5),
            buffer_bytes: 64 << 20,
            delivery_timeout: Duration::from_secs(60),
            attempt_timeout: Duration::from_secs(10),
            compression: Codec::None,
            idempotent: true,
        };
        Self { client, topic, settings }
    }

    /// Messages in a full batch, 1 to 10,000. Default 100.
    pub fn batch_records(mut self, records: usize) -> Self {
        self.settings.batch_records = records;
        self
    }

    /// Bytes in a full batch, before compression. Default 1,000,000; a larger message travels alone.
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.settings.batch_bytes = bytes;
        self
    }

    /// Longest wait for a batch to fill while an earlier one of its partition is under way. Default 5 ms.
    ///
    /// With nothing under way a batch goes at once, with what has arrived together: an idle publisher adds no delay.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.settings.linger = linger;
        self
    }

    /// Messages accepted but without an outcome, in bytes; beyond it `send` waits. Default 64 MiB.
    pub fn buffer_bytes(mut self, bytes: u32) -> Self {
        self.settings.buffer_bytes = bytes;
        self
    }

    /// Every message has its outcome within this time, all retries included. Default 60 s.
    pub fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.settings.delivery_timeout = timeout;
        self
    }

    /// An attempt without any answer is repeated after this time. Default 10 s.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.settings.attempt_timeout = timeout;
        self
    }

    /// How batches are compressed; they stay so on disk and on the way to readers. Default none.
    pub fn compression(mut self, compression: Codec) -> Self {
        self.settings.compression = compression;
        self
    }

    /// Whether the broker recognises repeats by producer id and sequence. Default true.
    ///
    /// Without it, a batch whose outcome is unclear is not repeated: its messages are
    /// [`PublishError::Unknown`](super::PublishError::Unknown) at once, and order within a partition may
    /// break where a batch is refused while its successors are under way.
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.settings.idempotent = idempotent;
        self
    }

    /// Looks the topic up and starts the publisher, on the current tokio runtime.
    ///
    /// # Errors
    /// `TOPIC_NOT_FOUND`, `INVALID_SETTING`, or why no node could be asked within the client's deadline.
    pub async fn build(self) -> Result<Publisher, ClientError> {
        self.settings.check()?;
        let (topic, view) = self.client.resolve(&self.topic).await?;
        Publisher::start(
            Arc::clone(self.client.router()),
            self.client.wall_clock().clone(),
            topic,
            &view,
            self.settings,
        )
    }
}

impl Settings {
    fn check(&self) -> Result<(), ClientError> {
        let wrong = |text: String| Err(ClientError::invalid_setting(text));
        if !(1..=BATCH_RECORDS_MAX).contains(&self.batch_records) {
            return wrong(format!("batch_records is {}; it must be 1 to {BATCH_RECORDS_MAX}", self.batch_records));
        }
        // Half of the hard bound leaves room for the encoding of many tiny messages.
        if !(1..=BATCH_BYTES_MAX / 2).contains(&self.batch_bytes) {
            return wrong(format!("batch_bytes is {}; it must be 1 to {}", self.batch_bytes, BATCH_BYTES_MAX / 2));
        }
        if self.buffer_bytes == 0 {
            return wrong("buffer_bytes is 0; nothing could be sent".to_owned());
        }
        if self.delivery_timeout.is_zero() || self.attempt_timeout.is_zero() {
            return wrong("delivery_timeout and attempt_timeout must be longer than 0".to_owned());
        }
        Ok(())
    }

    pub(super) fn for_worker(&self, topic: TopicRef, partitions: u32) -> WorkerSettings {
        let lane = LaneSettings {
            batch_records: self.batch_records,
            batch_bytes: self.batch_bytes,
            linger: self.linger,
            in_flight: IN_FLIGHT_BATCHES,
            attempt: self.attempt_timeout,
            idempotent: self.idempotent,
        };
        // 0 means "no producer" on the wire, so the random id is drawn from the others.
        let producer = self.idempotent.then(|| ProducerId::new(fastrand::u64(1..)));
        WorkerSettings { topic, partitions, codec: self.compression, producer, lane }
    }
}

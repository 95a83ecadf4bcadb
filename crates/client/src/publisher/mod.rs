//! [`Publisher`]: batches, numbers and sends the messages of one topic.
//!
//! ```text
//!   send() ─▶ byte budget ─▶ worker: partitioner ─▶ lane (one per partition) ─▶ stream (one per node)
//!   Receipt ◀──────────────────────── outcome ◀──────── lane ◀─── answers ◀───────┘
//! ```
//!
//! The rules of retry, order and identity are all in `lane`, which does no IO.

mod batch;
mod lane;
mod outcome;
mod partitioner;
mod settings;
mod stream;
mod worker;

pub use outcome::{PublishError, Published, Receipt, Totals};
pub use settings::PublisherBuilder;

use std::sync::Arc;

use quorate_model::{Executed, Reason, Record};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use self::settings::Settings;
use self::worker::{Request, Ticket, Worker};
use crate::client::WallClock;
use crate::error::ClientError;
use crate::message::Message;
use crate::routing::{Router, TopicRef, TopicView};

/// What a message costs of the byte budget beyond its content.
const MESSAGE_OVERHEAD_BYTES: usize = 128;

/// Publishes to one topic. Cheap to clone; the clones share one producer identity, one buffer and one order.
///
/// When the last clone is dropped, what was accepted is still sent, in the background and within its deadline.
#[derive(Debug, Clone)]
pub struct Publisher {
    topic: TopicRef,
    partitions: u32,
    message_bytes_max: u64,
    settings: Settings,
    clock: WallClock,
    requests: mpsc::UnboundedSender<Request>,
    budget: Arc<Semaphore>,
}

impl Publisher {
    fn start(
        router: Arc<Router>,
        clock: WallClock,
        topic: TopicRef,
        view: &TopicView,
        settings: Settings,
    ) -> Result<Self, ClientError> {
        let partitions = u32::try_from(view.partitions.len()).unwrap_or(u32::MAX);
        if partitions == 0 {
            let message = format!("topic {:?} has no partitions", topic.name);
            return Err(ClientError::new(crate::error::Cause::Protocol, message).with_executed(Executed::No));
        }
        // Bounded by the byte budget: every request but a flush holds a share of it.
        let (requests, receiver) = mpsc::unbounded_channel();
        let worker = Worker::new(settings.for_worker(topic.clone(), partitions), router, receiver);
        tokio::spawn(worker.run());
        let budget = Arc::new(Semaphore::new(settings.buffer_bytes as usize));
        let message_bytes_max = view.max_message_bytes;
        Ok(Self { topic, partitions, message_bytes_max, settings, clock, requests, budget })
    }

    /// The topic's name.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic.name
    }

    /// The id of the topic that it publishes to: never another topic's, not even one's of the same name later.
    #[must_use]
    pub fn topic_id(&self) -> u64 {
        self.topic.id.get()
    }

    /// Hands a message over, and returns as soon as the buffer has room for it: waiting here is the
    /// back-pressure. The receipt resolves to the outcome, at the latest at the delivery deadline.
    ///
    /// Messages of one partition are appended in the order in which `send` took them. A `send` that is
    /// dropped while it waits has sent nothing.
    ///
    /// # Errors
    /// [`PublishError::Failed`] if the message breaks a bound (`MESSAGE_TOO_LARGE`, `TOO_MANY_ATTRIBUTES`, …)
    /// or names a partition that the topic doesn't have.
    pub async fn send(&self, message: Message) -> Result<Receipt, PublishError> {
        let partition = message.partition;
        let record = message.into_record(self.clock.now_ms());
        self.check(partition, &record).map_err(|error| PublishError::Failed { error })?;
        let bytes = record_bytes(&record);
        let share = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.settings.buffer_bytes);
        let closed = || PublishError::Failed { error: ClientError::closed("publisher") };
        let budget = Arc::clone(&self.budget).acquire_many_owned(share).await.map_err(|_| closed())?;
        let (reply, receipt) = Receipt::new();
        let deadline = Instant::now() + self.settings.delivery_timeout;
        let ticket = Ticket { reply, _budget: budget };
        self.requests.send(Request::Publish { record, partition, bytes, deadline, ticket }).map_err(|_| closed())?;
        Ok(receipt)
    }

    /// [`send`](Self::send), then the outcome. One message at a time; for throughput keep several receipts.
    ///
    /// # Errors
    /// [`PublishError::Failed`]: certainly not published. [`PublishError::Unknown`]: perhaps.
    pub async fn publish(&self, message: Message) -> Result<Published, PublishError> {
        self.send(message).await?.await
    }

    /// Sends what is buffered without further lingering, and waits until every message accepted before
    /// this call has its outcome. Returns the publisher's totals so far.
    pub async fn flush(&self) -> Totals {
        let (reply, totals) = oneshot::channel();
        // A worker that is gone has no buffered messages either.
        let _ = self.requests.send(Request::Flush(reply));
        totals.await.unwrap_or_default()
    }

    /// Refuses new messages, from all clones, then does as [`flush`](Self::flush).
    pub async fn close(self) -> Totals {
        self.budget.close();
        self.flush().await
    }

    fn check(&self, partition: Option<u32>, record: &Record) -> Result<(), ClientError> {
        if let Some(partition) = partition.filter(|partition| *partition >= self.partitions) {
            let message =
                format!("topic {:?} has partitions 0 to {}, not {partition}", self.topic.name, self.partitions - 1);
            return Err(ClientError::known(Reason::PartitionNotFound, message).with_fact("partition", partition));
        }
        record.validate(self.message_bytes_max).map_err(|error| {
            let refused = ClientError::known(error.reason(), error.to_string()).with_executed(Executed::No);
            error.metadata().into_iter().fold(refused, |refused, (name, value)| refused.with_fact(name, value))
        })
    }
}

fn record_bytes(record: &Record) -> usize {
    let attributes: usize = record.attributes.iter().map(|(key, value)| key.len() + value.len()).sum();
    record.data.len() + record.ordering_key.len() + attributes + MESSAGE_OVERHEAD_BYTES
}

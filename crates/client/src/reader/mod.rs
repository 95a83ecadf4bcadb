//! [`Reader`]: a topic's messages as an async stream.
//!
//! One `Read` call per leader node brings whole batches. What is delivered is decided here, by a cursor
//! per partition: within a partition no message is missing, none comes twice, and the order is that of
//! the log, whatever happens to leaders meanwhile. Across partitions there is no order.

mod cursor;
mod stream;
mod worker;

pub use cursor::Start;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use quorate_model::Reason;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use self::cursor::Cursor;
use self::worker::{Worker, WorkerSettings};
use crate::client::Client;
use crate::error::ClientError;
use crate::message::ReceivedMessage;

/// Builds a [`Reader`]; from [`Client::reader`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing before `build`"]
pub struct ReaderBuilder {
    client: Client,
    topic: String,
    start: Start,
    starts: BTreeMap<u32, Start>,
    stop_at_end: bool,
    from_follower: bool,
    prefetch_bytes: u32,
    patience: Duration,
}

impl ReaderBuilder {
    pub(crate) fn new(client: Client, topic: String) -> Self {
        Self {
            client,
            topic,
            start: Start::Earliest,
            starts: BTreeMap::new(),
            stop_at_end: false,
            from_follower: false,
            prefetch_bytes: 16 << 20,
            patience: Duration::from_secs(60),
        }
    }

    /// Where partitions start that have no start of their own. Default the earliest record.
    pub fn from(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Reads this partition, from this start. Once called, only partitions that were named are read.
    pub fn partition(mut self, partition: u32, start: Start) -> Self {
        self.starts.insert(partition, start);
        self
    }

    /// Ends the stream after the records that were committed when reading began, instead of waiting for more.
    pub fn stop_at_end(mut self) -> Self {
        self.stop_at_end = true;
        self
    }

    /// Reads from any replica, preferably one that doesn't lead. What is read is committed and never taken back, but
    /// may be less than was acknowledged when reading began: a replica may be behind, and the end is that replica's.
    /// Spares the leader, and goes on without one.
    pub fn from_follower(mut self) -> Self {
        self.from_follower = true;
        self
    }

    /// Messages fetched ahead of the caller, in bytes. Default 16 MiB. A larger batch is fetched all the same, alone.
    pub fn prefetch_bytes(mut self, bytes: u32) -> Self {
        self.prefetch_bytes = bytes.max(1);
        self
    }

    /// How long a partition may stay without a reachable leader before the reader ends with an error. Default 60 s.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Looks the topic up and starts to read, on the current tokio runtime.
    ///
    /// # Errors
    /// `TOPIC_NOT_FOUND`, `PARTITION_NOT_FOUND`, or why no node could be asked within the client's deadline.
    pub async fn build(self) -> Result<Reader, ClientError> {
        let (topic, view) = self.client.resolve(&self.topic).await?;
        let count = u32::try_from(view.partitions.len()).unwrap_or(u32::MAX);
        if let Some(partition) = self.starts.keys().find(|partition| **partition >= count) {
            let message =
                format!("topic {:?} has {count} partitions, numbered from 0; there is no {partition}", topic.name);
            return Err(ClientError::known(Reason::PartitionNotFound, message).with_fact("partition", partition));
        }
        let all = || (0..count).map(|partition| (partition, self.start)).collect();
        let starts = if self.starts.is_empty() { all() } else { self.starts.clone() };
        let cursors =
            starts.iter().map(|(partition, start)| (*partition, Cursor::new(*start, self.stop_at_end))).collect();
        let budget = Arc::new(Semaphore::new(self.prefetch_bytes as usize));
        // Bounded by the byte budget: every chunk holds a share of it.
        let (output, chunks) = mpsc::unbounded_channel();
        let settings = WorkerSettings {
            topic,
            stop_at_end: self.stop_at_end,
            from_follower: self.from_follower,
            prefetch_bytes: self.prefetch_bytes,
            patience: self.patience,
        };
        tokio::spawn(Worker::new(settings, Arc::clone(self.client.router()), cursors, output, budget).run());
        Ok(Reader { chunks, current: Vec::new().into_iter(), share: None, positions: BTreeMap::new() })
    }
}

/// Messages that were fetched together, with their share of the byte budget.
struct Chunk {
    messages: Vec<ReceivedMessage>,
    share: OwnedSemaphorePermit,
}

/// A stream of messages. Ends after its last message with [`ReaderBuilder::stop_at_end`], or after an error.
///
/// Dropping it ends the reading.
#[derive(Debug)]
#[must_use = "streams do nothing unless polled"]
pub struct Reader {
    chunks: mpsc::UnboundedReceiver<Result<Chunk, ClientError>>,
    current: std::vec::IntoIter<ReceivedMessage>,
    share: Option<OwnedSemaphorePermit>,
    positions: BTreeMap<u32, u64>,
}

impl Reader {
    /// Per partition that has delivered anything, the offset that follows: to continue later from
    /// [`Start::Offset`].
    #[must_use]
    pub fn positions(&self) -> &BTreeMap<u32, u64> {
        &self.positions
    }
}

impl Stream for Reader {
    type Item = Result<ReceivedMessage, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(message) = self.current.next() {
                self.positions.insert(message.partition, message.offset + 1);
                return Poll::Ready(Some(Ok(message)));
            }
            self.share = None;
            match self.chunks.poll_recv(context) {
                Poll::Ready(Some(Ok(chunk))) => {
                    self.current = chunk.messages.into_iter();
                    self.share = Some(chunk.share);
                }
                Poll::Ready(Some(Err(error))) => {
                    self.chunks.close();
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl std::fmt::Debug for Chunk {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} messages", self.messages.len())
    }
}

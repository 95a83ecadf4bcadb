//! [`Subscriber`]: the messages of a subscription as an async stream, each with its acknowledgement.
//!
//! One `Subscribe` call per node that leads some of the topic's partitions. When a leader changes, its partitions are
//! asked for elsewhere: what was in hand comes again, unless it was acknowledged. Deadlines of what is in hand are
//! extended in the background.

mod answers;
mod stream;
mod worker;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::sync::{mpsc, oneshot};

pub(crate) use self::answers::received;
use self::worker::{HandId, Said, Worker, WorkerSettings};
use crate::client::Client;
use crate::error::ClientError;
use crate::message::ReceivedMessage;

/// Builds a [`Subscriber`]; from [`Client::subscriber`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing before `build`"]
pub struct SubscriberBuilder {
    client: Client,
    subscription: String,
    outstanding_messages: u32,
    outstanding_bytes: u64,
    extend_for: Duration,
    patience: Duration,
}

impl SubscriberBuilder {
    pub(crate) fn new(client: Client, subscription: String) -> Self {
        Self {
            client,
            subscription,
            outstanding_messages: 1_000,
            outstanding_bytes: 64 << 20,
            extend_for: Duration::from_secs(3_600),
            patience: Duration::from_secs(60),
        }
    }

    /// Messages that are fetched and not settled, at least one per node that leads partitions. Default 1,000.
    pub fn outstanding_messages(mut self, messages: u32) -> Self {
        self.outstanding_messages = messages.max(1);
        self
    }

    /// Bytes of their data; the last one may exceed it. Default 64 MiB.
    pub fn outstanding_bytes(mut self, bytes: u64) -> Self {
        self.outstanding_bytes = bytes.max(1);
        self
    }

    /// For how long the deadline of a message in hand is extended. Then it is delivered again, perhaps to another
    /// subscriber: whoever has it may have hung. Default 1 h; zero: not at all.
    pub fn extend_for(mut self, time: Duration) -> Self {
        self.extend_for = time;
        self
    }

    /// How long a partition may stay without a reachable leader before the subscriber ends with an error. Default 60 s.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Looks the subscription up and starts to fetch, on the current tokio runtime.
    ///
    /// # Errors
    /// `SUBSCRIPTION_NOT_FOUND`, or why no node could be asked within the client's deadline.
    pub async fn build(self) -> Result<Subscriber, ClientError> {
        let subscription = self.client.subscriptions().look_up(self.subscription.clone(), true).await?;
        let (topic, view) = self.client.resolve(&subscription.topic).await?;
        let (output, deliveries) = mpsc::unbounded_channel();
        let (said, orders) = mpsc::unbounded_channel();
        let settings = WorkerSettings {
            subscription: self.subscription,
            topic,
            partitions: u32::try_from(view.partitions.len()).unwrap_or(u32::MAX),
            ack_deadline: subscription.ack_deadline,
            outstanding_messages: self.outstanding_messages,
            outstanding_bytes: self.outstanding_bytes,
            extend_for: self.extend_for,
            patience: self.patience,
        };
        let worker = Worker::new(settings, Arc::clone(self.client.router()), said.clone(), output);
        tokio::spawn(worker.run(orders));
        Ok(Subscriber { deliveries, said })
    }
}

/// A stream of deliveries. It ends after an error only.
///
/// Dropping it returns what was fetched: it is delivered to others at once, and counts as an attempt.
/// [`Subscriber::close`] does better.
#[derive(Debug)]
#[must_use = "streams do nothing unless polled"]
pub struct Subscriber {
    deliveries: mpsc::UnboundedReceiver<Result<Delivery, ClientError>>,
    said: mpsc::UnboundedSender<Said>,
}

impl Subscriber {
    /// Stops fetching, gives back what wasn't taken from the stream, without counting it as an attempt, and waits until
    /// everything that was taken is settled or `patience` is over.
    pub async fn close(mut self, patience: Duration) {
        let (done, closed) = oneshot::channel();
        // First, so that the worker knows that this is no drop.
        let told = self.said.send(Said::Close(done));
        self.deliveries.close();
        while let Some(delivery) = self.deliveries.recv().await {
            if let Ok(delivery) = delivery {
                delivery.release();
            }
        }
        if told.is_ok() {
            // Without an answer the worker has ended, or time is over.
            let _ = tokio::time::timeout(patience, closed).await;
        }
    }
}

impl Stream for Subscriber {
    type Item = Result<Delivery, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match self.deliveries.poll_recv(context) {
                // Its leader is gone, and delivers it again to whoever it likes: perhaps it has been.
                Poll::Ready(Some(Ok(delivery))) if !delivery.stands.load(Ordering::Relaxed) => delivery.release(),
                other => return other,
            }
        }
    }
}

/// A message in hand. It is delivered again, to this subscriber or another, unless it is acknowledged; dropping it
/// returns it.
#[derive(Debug)]
#[must_use = "a delivery that is dropped is returned"]
pub struct Delivery {
    /// The message.
    pub message: ReceivedMessage,
    /// 1 for the first delivery. Doesn't go down when a leader fails.
    pub attempt: u32,
    /// The text that came with the last return of this message; empty: none.
    pub last_error: String,
    hand: HandId,
    /// Whether the stream that brought it still stands.
    stands: Arc<AtomicBool>,
    said: Option<mpsc::UnboundedSender<Said>>,
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// As was asked for. An acknowledged message is never delivered again.
    Done,
    /// The message had been settled before.
    Already,
    /// Nothing: the message was kept for too long, or its leader failed, and it was or will be delivered again.
    LeaseLost,
    /// Nothing: the subscription was moved to another position since.
    Seeked,
}

impl Delivery {
    /// The message is done. Resolves once it is certain that it isn't delivered again, whatever fails.
    ///
    /// # Errors
    /// Why that isn't known; the message may be delivered again.
    pub async fn ack(self) -> Result<Settled, ClientError> {
        self.say(|hand, answer| Said::Ack { hand, answer: Some(answer) }).await
    }

    /// The message is done; nobody waits until that is certain.
    pub fn ack_later(mut self) {
        self.tell(|hand| Said::Ack { hand, answer: None });
    }

    /// The message was tried in vain: it is delivered again when the subscription's retry policy says.
    ///
    /// # Errors
    /// As [`Delivery::ack`].
    pub async fn nack(self, error: impl Into<String>) -> Result<Settled, ClientError> {
        let error = error.into();
        self.say(|hand, answer| Said::Nack { hand, pause: None, error, answer: Some(answer) }).await
    }

    /// The same, after a pause of the caller's choice: 0 to 12 h.
    ///
    /// # Errors
    /// As [`Delivery::ack`].
    pub async fn nack_after(self, pause: Duration, error: impl Into<String>) -> Result<Settled, ClientError> {
        let error = error.into();
        self.say(|hand, answer| Said::Nack { hand, pause: Some(pause), error, answer: Some(answer) }).await
    }

    /// The message wasn't tried: it goes to another subscriber at once, and this attempt doesn't count.
    pub fn release(mut self) {
        self.tell(|hand| Said::Release { hand });
    }

    async fn say(
        mut self,
        what: impl FnOnce(HandId, oneshot::Sender<Result<Settled, ClientError>>) -> Said,
    ) -> Result<Settled, ClientError> {
        let (answer, answered) = oneshot::channel();
        self.tell(|hand| what(hand, answer));
        answered.await.unwrap_or_else(|_| Err(ClientError::closed("subscriber")))
    }

    fn tell(&mut self, what: impl FnOnce(HandId) -> Said) {
        if let Some(said) = self.said.take() {
            // A worker that has ended has given everything back.
            let _ = said.send(what(self.hand));
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        let error = "dropped by the subscriber".to_owned();
        self.tell(|hand| Said::Nack { hand, pause: None, error, answer: None });
    }
}

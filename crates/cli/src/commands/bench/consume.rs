//! Subscribers that share one subscription and acknowledge every message by itself.

use super::topic::fresh_name;
use crate::connect::Connect;
use crate::failure::Failure;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use quorate_client::{Client, ClientError, ReceivedMessage, Settled, Start, Subscriber, SubscriptionSpec};
use std::time::Instant;

/// A subscription that is made for the run.
pub(super) struct Consumers {
    subscription: String,
    pub(super) subscribers: Vec<Subscriber>,
}

/// What becomes of messages, told as it happens.
pub(super) trait Account: Send + 'static {
    /// One was delivered, perhaps not for the first time.
    fn delivered(&self, message: &ReceivedMessage, now: Instant);
    /// It is certain that one isn't delivered again.
    fn settled(&self, bytes: u64, now: Instant);
    /// An acknowledgement came to nothing: the message is delivered again.
    fn lost(&self);
}

impl Consumers {
    /// Makes the subscription, and so many subscribers over connections of their own.
    pub(super) async fn prepare(connect: &Connect, topic: &str, start: Start, count: u32) -> Result<Self, Failure> {
        let subscription = fresh_name();
        let spec = SubscriptionSpec { start: Some(start), ..SubscriptionSpec::named(&subscription, topic) };
        connect.client()?.subscriptions().create(spec).await?;
        let mut subscribers = Vec::new();
        for _ in 0..count {
            subscribers.push(connect.client()?.subscriber(&subscription).patience(connect.timeout()).build().await?);
        }
        Ok(Self { subscription, subscribers })
    }

    /// Deletes the subscription.
    pub(super) async fn remove(subscription: String, client: &Client) -> Result<(), Failure> {
        client.subscriptions().delete(&subscription).await.map_err(|error| {
            Failure::from(error).during(format!("deleting {subscription}, which this benchmark had made"))
        })
    }

    pub(super) fn name(&self) -> String {
        self.subscription.clone()
    }
}

/// Takes and acknowledges messages until it is stopped, or can't.
pub(super) async fn consume(mut subscriber: Subscriber, account: impl Account) -> Result<(), ClientError> {
    let mut acknowledgements = FuturesUnordered::new();
    loop {
        tokio::select! {
            delivery = subscriber.next() => {
                let Some(delivery) = delivery.transpose()? else { return Ok(()) };
                account.delivered(&delivery.message, Instant::now());
                let bytes = delivery.message.data.len() as u64;
                acknowledgements.push(async move { (bytes, delivery.ack().await) });
            }
            Some((bytes, outcome)) = acknowledgements.next() => match outcome {
                Ok(Settled::Done) => account.settled(bytes, Instant::now()),
                // Counted when it was settled, or delivered again.
                Ok(Settled::Already | Settled::LeaseLost | Settled::Seeked) | Err(_) => account.lost(),
            },
        }
    }
}

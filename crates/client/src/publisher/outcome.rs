//! How publishing a message ends: published, failed, or unknown.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use quorate_model::MessageId;
use tokio::sync::oneshot;

use crate::error::ClientError;

/// The message is on disk on a majority of its partition's replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Unique in the cluster for all time.
    pub message_id: MessageId,
    /// Partition number, from 0.
    pub partition: u32,
    /// Position in the partition.
    pub offset: u64,
    /// An earlier attempt had already appended it: a retry was recognised, and nothing was stored twice.
    pub duplicate: bool,
}

/// The message was not published, or nobody can tell.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PublishError {
    /// The message is not in the log and never will be. Publishing it again is safe.
    #[error("not published: {error}")]
    Failed {
        /// Why.
        error: ClientError,
    },
    /// The message may be in the log. Publishing it again may store it twice; only reading can tell.
    ///
    /// Happens when every attempt within the delivery deadline ended without a clear answer.
    #[error("may or may not have been published: {error}")]
    Unknown {
        /// Why.
        error: ClientError,
    },
}

impl PublishError {
    /// Why, either way.
    #[must_use]
    pub fn error(&self) -> &ClientError {
        match self {
            Self::Failed { error } | Self::Unknown { error } => error,
        }
    }

    /// The stable name of the reason, such as `MESSAGE_TOO_LARGE`.
    #[must_use]
    pub fn reason(&self) -> &str {
        self.error().reason()
    }

    /// Whether the message may be in the log all the same.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown { .. })
    }
}

/// Resolves to the outcome of one message. Dropping it doesn't cancel the message.
#[derive(Debug)]
#[must_use = "the outcome of a message is known only here"]
pub struct Receipt(oneshot::Receiver<Result<Published, PublishError>>);

impl Receipt {
    pub(crate) fn new() -> (oneshot::Sender<Result<Published, PublishError>>, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Self(receiver))
    }
}

impl Future for Receipt {
    type Output = Result<Published, PublishError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // The publisher's task answers everything before it ends, unless its runtime was shut down.
        let stopped = |_| Err(PublishError::Unknown { error: ClientError::closed("publisher") });
        Pin::new(&mut self.0).poll(context).map(|outcome| outcome.unwrap_or_else(stopped))
    }
}

/// How many messages a publisher took and how they ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Handed to the publisher.
    pub accepted: u64,
    /// Published, duplicates included.
    pub published: u64,
    /// Of those, recognised by the broker as repeats.
    pub duplicates: u64,
    /// Certainly not published.
    pub failed: u64,
    /// Published or not, nobody can tell.
    pub unknown: u64,
    /// Batches sent again after a refusal or a lost answer, each time counted.
    pub repeated_batches: u64,
}

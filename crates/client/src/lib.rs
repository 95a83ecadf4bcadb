//! The Quorate client: leader discovery, batching, idempotent publishing, reading.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use futures::StreamExt;
//! use quorate_client::{Client, Message, Start};
//!
//! let client = Client::connect("127.0.0.1:50051")?;
//! let publisher = client.publisher("orders").build().await?;
//! let published = publisher.publish(Message::new("a cup of tea").ordering_key("table-7")).await?;
//! println!("partition {} offset {}", published.partition, published.offset);
//!
//! let mut reader = client.reader("orders").from(Start::Earliest).stop_at_end().build().await?;
//! while let Some(message) = reader.next().await {
//!     println!("{:?}", message?.data);
//! }
//! # Ok(()) }
//! ```
//!
//! One address of any node is enough. The client learns from the cluster map who leads what, talks to
//! leaders directly where it can reach them, and through the node it knows where it can't. It follows the maps
//! of two nodes at the same time: one that stands still can't hide who took over from it.
//!
//! A request ends as done, failed or *unknown*, within its deadline. Unknown is not failed: the types
//! keep them apart ([`PublishError`], [`ClientError::executed`]).
//!
//! | module | what it holds |
//! |---|---|
//! | `client` | [`Client`] and its settings: the entry point |
//! | `publisher` | [`Publisher`]: batches, producer id and sequences, order, retry, back-pressure |
//! | `reader` | [`Reader`]: an async stream that survives lost leaders |
//! | `subscriber` | [`Subscriber`]: deliveries of a subscription, and what becomes of each |
//! | `topics`, `subscriptions`, `cluster` | [`Topics`], [`Subscriptions`] and [`Cluster`]: administration |
//! | `messages` | [`Messages`]: single messages, looked up, listed, deleted |
//! | `message` | [`Message`] and [`ReceivedMessage`] |
//! | `error` | [`ClientError`]: reason, facts, whether carried out, whether to retry |
//! | `routing` | the one cluster map, and over which connection a request goes |
//! | `connection` | connections that are kept up in the background, over replaceable byte streams |
//! | `call`, `retry`, `wire` | one request with one answer, tried again until its deadline |
//!
//! It is *not* the place for rules that broker and client must agree on, such as the batch format or the
//! table of errors: those are in `quorate-model`, and what users need of them is re-exported here.

mod call;
mod client;
mod cluster;
mod connection;
mod error;
mod message;
mod messages;
mod publisher;
mod reader;
mod retry;
mod routing;
mod subscriber;
mod subscriptions;
mod topics;
mod wire;

pub use client::{Client, ClientBuilder};
pub use cluster::{Cluster, HealthStatus, NodeHealth};
pub use connection::{BoxIo, ConnectionSettings, Connector, Io, tcp_connector};
pub use error::{Cause, ClientError};
pub use message::{Message, ReceivedMessage};
pub use messages::{Deletion, MessagePage, MessageQuery, Messages};
pub use publisher::{PublishError, Published, Publisher, PublisherBuilder, Receipt, Totals};
pub use reader::{Reader, ReaderBuilder, Start};
pub use retry::RetrySettings;
pub use routing::{ClusterView, Leadership, NodeView, PartitionView, TopicView};
pub use subscriber::{Delivery, Settled, Subscriber, SubscriberBuilder};
pub use subscriptions::{
    DeadLetterPolicy, FilterFailure, FilterTest, FilterTested, RetryPolicy, Subscription, SubscriptionNumbers,
    SubscriptionPartitionStatus, SubscriptionSpec, SubscriptionUpdate, Subscriptions,
};
pub use topics::{CreatedTopic, PartitionStatus, Retention, Topic, TopicSpec, TopicUpdate, Topics};

pub use quorate_model::{
    Codec as Compression, Executed, MessageId, NodeId, OpaqueIdError, Reason, TopicId, TopicName, partition_for_key,
};

/// Largest answer taken from a node: a full batch or page, and a margin.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// The README's example must compile.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

//! [`Subscriptions`]: creates, looks up, changes and deletes subscriptions.

mod filter;
mod policy;
mod status;

pub use filter::{FilterFailure, FilterTest, FilterTested};
pub use policy::{DeadLetterPolicy, RetryPolicy};
pub use status::{SubscriptionNumbers, SubscriptionPartitionStatus};

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use quorate_model::Executed;
use quorate_proto::v1 as pb;
use quorate_proto::v1::subscription_service_client::SubscriptionServiceClient;

use crate::call::call;
use crate::client::Client;
use crate::error::{Cause, ClientError};
use crate::reader::Start;
use crate::wire::{duration, request_id, wire_duration};

/// The subscriptions of a cluster; from [`Client::subscriptions`].
///
/// Every request is retried until the client's deadline; a request that may have been carried out
/// without an answer is repeated in a way that can't do harm.
#[derive(Debug, Clone)]
pub struct Subscriptions {
    client: Client,
}

/// What a new subscription should be like. Defaults are the broker's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubscriptionSpec {
    /// `[A-Za-z][A-Za-z0-9._-]{0,248}`.
    pub name: String,
    /// The topic whose messages it gets.
    pub topic: String,
    /// Where it begins, in every partition. Default [`Start::Latest`]: with what is published after the answer.
    pub start: Option<Start>,
    /// How long a subscriber may keep a message before it is delivered again: 1 s to 12 h. Default 30 s.
    pub ack_deadline: Option<Duration>,
    /// When a message that was returned or kept too long is delivered again. Default exponential, 1 s to 10 min.
    pub retry_policy: Option<RetryPolicy>,
    /// Where messages go that were tried often enough. Default nowhere: they are tried until they are acknowledged.
    pub dead_letter_policy: Option<DeadLetterPolicy>,
    /// Whether messages with the same ordering key are delivered one after another.
    pub ordered: bool,
    /// Which messages it gets: a CEL expression over `attributes`, `ordering_key`, `topic`, `partition`, `offset`,
    /// `publish_time` and `size`, such as `attributes["region"] == "eu"`. Empty: all.
    pub filter: String,
    /// At most 64; keys and values at most 63 bytes.
    pub labels: BTreeMap<String, String>,
}

/// Changes to a subscription; absent fields stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubscriptionUpdate {
    /// 1 s to 12 h.
    pub ack_deadline: Option<Duration>,
    /// Replaces the policy.
    pub retry_policy: Option<RetryPolicy>,
    /// Replaces the policy; `Some(None)` ends it.
    pub dead_letter_policy: Option<Option<DeadLetterPolicy>>,
    /// Replaces the filter for the messages that the subscription hasn't come to; an empty one ends it.
    pub filter: Option<String>,
    /// Replaces all labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// Fails with `ETAG_MISMATCH` if the subscription was changed since this etag was read.
    pub etag: Option<String>,
}

/// A subscription as the broker describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subscription {
    /// Unique in the cluster while the subscription exists.
    pub name: String,
    /// Unique in the cluster for all time.
    pub subscription_id: u64,
    /// The topic whose messages it gets.
    pub topic: String,
    /// How long a subscriber may keep a message.
    pub ack_deadline: Duration,
    /// When a message is delivered again. `None`: by a rule that this client is too old to know.
    pub retry_policy: Option<RetryPolicy>,
    /// Where messages go that were tried often enough. `None`: nowhere.
    pub dead_letter_policy: Option<DeadLetterPolicy>,
    /// Whether messages with the same ordering key are delivered one after another.
    pub ordered: bool,
    /// Which messages it gets. Empty: all.
    pub filter: String,
    /// As given by its owner.
    pub labels: BTreeMap<String, String>,
    /// For [`SubscriptionUpdate::etag`].
    pub etag: String,
    /// By partition; filled by [`Subscriptions::get`] only.
    pub partition_status: Vec<SubscriptionPartitionStatus>,
}

impl Subscriptions {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Creates a subscription. Safe to retry: a request id makes a repeat answer with the subscription of the first
    /// attempt, which begins where that one found it to begin.
    ///
    /// # Errors
    /// `SUBSCRIPTION_EXISTS`, `TOPIC_NOT_FOUND`, `INVALID_NAME`, `OFFSET_OUT_OF_RANGE`, `INVALID_FILTER`, `TOO_MANY_SUBSCRIPTIONS`, …;
    /// `NO_LEADER` while a partition has no leader that could say where its log ends.
    pub async fn create(&self, spec: SubscriptionSpec) -> Result<Subscription, ClientError> {
        let request = spec.into_request();
        let response = call(self.client.router(), "CreateSubscription", |channel| {
            let request = request.clone();
            Box::pin(async move { SubscriptionServiceClient::new(channel).create_subscription(request).await })
        });
        present(response.await.into_result()?.subscription)
    }

    /// A subscription by its name, with what its partitions say of it.
    ///
    /// # Errors
    /// `SUBSCRIPTION_NOT_FOUND`.
    pub async fn get(&self, name: impl Into<String>) -> Result<Subscription, ClientError> {
        self.look_up(name.into(), false).await
    }

    /// The same, without asking any partition.
    pub(crate) async fn look_up(&self, name: String, without_status: bool) -> Result<Subscription, ClientError> {
        let request = pb::GetSubscriptionRequest { name, without_status };
        let response = call(self.client.router(), "GetSubscription", |channel| {
            let request = request.clone();
            Box::pin(async move { SubscriptionServiceClient::new(channel).get_subscription(request).await })
        });
        present(response.await.into_result()?.subscription)
    }

    /// All subscriptions, by name.
    ///
    /// # Errors
    /// Only of the connection.
    pub async fn list(&self) -> Result<Vec<Subscription>, ClientError> {
        self.pages(String::new()).await
    }

    /// The subscriptions of a topic, by name.
    ///
    /// # Errors
    /// `TOPIC_NOT_FOUND`.
    pub async fn list_of(&self, topic: impl Into<String>) -> Result<Vec<Subscription>, ClientError> {
        self.pages(topic.into()).await
    }

    /// Changes a subscription.
    ///
    /// # Errors
    /// `SUBSCRIPTION_NOT_FOUND`; `ETAG_MISMATCH`; `INVALID_FILTER`; `TOPIC_NOT_FOUND` for a dead-letter topic that isn't there.
    pub async fn update(
        &self,
        name: impl Into<String>,
        update: SubscriptionUpdate,
    ) -> Result<Subscription, ClientError> {
        let request = update.into_request(name.into());
        let response = call(self.client.router(), "UpdateSubscription", |channel| {
            let request = request.clone();
            Box::pin(async move { SubscriptionServiceClient::new(channel).update_subscription(request).await })
        });
        present(response.await.into_result()?.subscription)
    }

    /// Deletes a subscription, with what it knows about its messages. The messages themselves stay.
    ///
    /// # Errors
    /// `SUBSCRIPTION_NOT_FOUND`.
    pub async fn delete(&self, name: impl Into<String>) -> Result<(), ClientError> {
        let request = pb::DeleteSubscriptionRequest { name: name.into(), request_id: request_id() };
        let answered = call(self.client.router(), "DeleteSubscription", |channel| {
            let request = request.clone();
            Box::pin(async move { SubscriptionServiceClient::new(channel).delete_subscription(request).await })
        });
        answered.await.into_result().map(|_| ())
    }

    /// Moves a subscription to another place, in every partition: nothing before it is delivered any more, everything
    /// behind it is, once more. Subscribers go on; what they had in hand is [`Settled::Seeked`](crate::Settled::Seeked).
    /// The offset of each partition. Safe to retry: a partition that was moved isn't moved again.
    ///
    /// # Errors
    /// `SUBSCRIPTION_NOT_FOUND`; `OFFSET_OUT_OF_RANGE`; `NO_LEADER`, `COMMIT_UNKNOWN`, … with `moved_partitions` and
    /// `other_partitions` among the facts if some were moved, and others perhaps not.
    pub async fn seek(&self, name: impl Into<String>, to: Start) -> Result<BTreeMap<u32, u64>, ClientError> {
        self.seek_to(pb::SeekSubscriptionRequest {
            name: name.into(),
            position: Some(to.to_wire()),
            partitions: Vec::new(),
            request_id: request_id(),
            snapshot: Bytes::new(),
        })
        .await
    }

    /// The same for some partitions, each to a place of its own; the others stay where they are.
    ///
    /// # Errors
    /// As [`Subscriptions::seek`]; `PARTITION_NOT_FOUND`; `INVALID_ARGUMENT` if no partition is named.
    pub async fn seek_partitions(
        &self,
        name: impl Into<String>,
        to: &BTreeMap<u32, Start>,
    ) -> Result<BTreeMap<u32, u64>, ClientError> {
        let partitions = to.iter().map(|(partition, start)| {
            let start = Some(start.to_wire());
            pb::PartitionPosition { partition: *partition, start }
        });
        self.seek_to(pb::SeekSubscriptionRequest {
            name: name.into(),
            position: None,
            partitions: partitions.collect(),
            request_id: request_id(),
            snapshot: Bytes::new(),
        })
        .await
    }

    /// Where a subscription stands: what it has settled, with every acknowledgement that was confirmed before. At most
    /// 3 MiB, for [`Subscriptions::restore`].
    ///
    /// # Errors
    /// `SUBSCRIPTION_NOT_FOUND`; `SNAPSHOT_TOO_LARGE`; `NO_LEADER` while a partition has no leader.
    pub async fn snapshot(&self, name: impl Into<String>) -> Result<Bytes, ClientError> {
        let request = pb::SnapshotSubscriptionRequest { name: name.into() };
        let response = call(self.client.router(), "SnapshotSubscription", |channel| {
            let request = request.clone();
            Box::pin(async move { SubscriptionServiceClient::new(channel).snapshot_subscription(request).await })
        });
        Ok(response.await.into_result()?.snapshot)
    }

    /// Takes a subscription back to a snapshot of it, or of another one of the same topic, as far as the log still
    /// reaches. What was in flight then, or waited for its next attempt, is delivered. Otherwise as
    /// [`Subscriptions::seek`].
    ///
    /// # Errors
    /// As [`Subscriptions::seek`]; `INVALID_SNAPSHOT`.
    pub async fn restore(&self, name: impl Into<String>, snapshot: Bytes) -> Result<BTreeMap<u32, u64>, ClientError> {
        self.seek_to(pb::SeekSubscriptionRequest {
            name: name.into(),
            position: None,
            partitions: Vec::new(),
            request_id: request_id(),
            snapshot,
        })
        .await
    }

    async fn seek_to(&self, request: pb::SeekSubscriptionRequest) -> Result<BTreeMap<u32, u64>, ClientError> {
        let response = call(self.client.router(), "SeekSubscription", |channel| {
            let request = request.clone();
            Box::pin(async move { SubscriptionServiceClient::new(channel).seek_subscription(request).await })
        });
        let seeked = response.await.into_result()?.partitions;
        Ok(seeked.into_iter().map(|seeked| (seeked.partition, seeked.offset)).collect())
    }

    /// Tries a filter on the newest messages of a topic. Changes nothing.
    ///
    /// # Errors
    /// `INVALID_FILTER`, `TOPIC_NOT_FOUND`, `SUBSCRIPTION_NOT_FOUND`; `NO_LEADER` while a partition has no leader.
    pub async fn test_filter(&self, test: FilterTest) -> Result<FilterTested, ClientError> {
        let request = test.into_request();
        let response = call(self.client.router(), "TestFilter", |channel| {
            let request = request.clone();
            Box::pin(async move { SubscriptionServiceClient::new(channel).test_filter(request).await })
        });
        FilterTested::from_wire(response.await.into_result()?)
    }

    /// Page after page; of all topics, if none is named.
    async fn pages(&self, topic: String) -> Result<Vec<Subscription>, ClientError> {
        let mut subscriptions = Vec::new();
        let mut request = pb::ListSubscriptionsRequest { topic, page_size: 1000, page_token: String::new() };
        loop {
            let response = call(self.client.router(), "ListSubscriptions", |channel| {
                let request = request.clone();
                Box::pin(async move {
                    let client = SubscriptionServiceClient::new(channel);
                    client.max_decoding_message_size(crate::ANSWER_BYTES_MAX).list_subscriptions(request).await
                })
            });
            let response = response.await.into_result()?;
            subscriptions.extend(response.subscriptions.into_iter().map(Subscription::from));
            request.page_token = response.next_page_token;
            if request.page_token.is_empty() {
                return Ok(subscriptions);
            }
        }
    }
}

fn present(subscription: Option<pb::Subscription>) -> Result<Subscription, ClientError> {
    let missing =
        || ClientError::new(Cause::Protocol, "an answer without a subscription").with_executed(Executed::Maybe);
    subscription.map(Subscription::from).ok_or_else(missing)
}

impl SubscriptionSpec {
    /// A subscription of this name to this topic, with the broker's defaults.
    #[must_use]
    pub fn named(name: impl Into<String>, topic: impl Into<String>) -> Self {
        Self { name: name.into(), topic: topic.into(), ..Self::default() }
    }

    fn into_request(self) -> pb::CreateSubscriptionRequest {
        let subscription = pb::Subscription {
            name: self.name,
            topic: self.topic,
            ack_deadline: self.ack_deadline.map(wire_duration),
            retry_policy: self.retry_policy.map(Into::into),
            dead_letter_policy: self.dead_letter_policy.map(Into::into),
            ordered: self.ordered,
            filter: self.filter,
            labels: self.labels,
            ..pb::Subscription::default()
        };
        let start = self.start.map(Start::to_wire);
        pb::CreateSubscriptionRequest { subscription: Some(subscription), start, request_id: request_id() }
    }
}

impl SubscriptionUpdate {
    fn into_request(self, name: String) -> pb::UpdateSubscriptionRequest {
        let masked = [
            ("ack_deadline", self.ack_deadline.is_some()),
            ("retry_policy", self.retry_policy.is_some()),
            ("dead_letter_policy", self.dead_letter_policy.is_some()),
            ("filter", self.filter.is_some()),
            ("labels", self.labels.is_some()),
        ];
        let paths = masked.iter().filter(|(_, given)| *given).map(|(path, _)| (*path).to_owned()).collect();
        let subscription = pb::Subscription {
            name,
            ack_deadline: self.ack_deadline.map(wire_duration),
            retry_policy: self.retry_policy.map(Into::into),
            dead_letter_policy: self.dead_letter_policy.flatten().map(Into::into),
            filter: self.filter.unwrap_or_default(),
            labels: self.labels.unwrap_or_default(),
            etag: self.etag.unwrap_or_default(),
            ..pb::Subscription::default()
        };
        let update_mask = Some(prost_types::FieldMask { paths });
        pb::UpdateSubscriptionRequest { subscription: Some(subscription), update_mask, request_id: request_id() }
    }
}

impl From<pb::Subscription> for Subscription {
    fn from(subscription: pb::Subscription) -> Self {
        Self {
            name: subscription.name,
            subscription_id: subscription.subscription_id,
            topic: subscription.topic,
            ack_deadline: subscription.ack_deadline.map(duration).unwrap_or_default(),
            retry_policy: RetryPolicy::from_wire(subscription.retry_policy),
            dead_letter_policy: subscription.dead_letter_policy.map(Into::into),
            ordered: subscription.ordered,
            filter: subscription.filter,
            labels: subscription.labels,
            etag: subscription.etag,
            partition_status: subscription.partition_status.into_iter().map(Into::into).collect(),
        }
    }
}

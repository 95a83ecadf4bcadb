//! `SubscriptionService`: commands to the metadata group, and what the partitions say of themselves. Where a subscription
//! begins is settled before there is one.

mod seek;
mod snapshot;
mod status;

use std::ops::Bound;
use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};
use quorate_model::limits::DELIVERY_ATTEMPTS_DEFAULT;
use quorate_model::{
    DeadLetterPolicy, MetaCommand, MetaReply, NewSubscription, Offset, Reason, SubscriptionChange, SubscriptionInfo,
    SubscriptionName, TopicName, TopicState,
};
use quorate_proto::v1;
use quorate_proto::v1::subscription_service_server::SubscriptionService;
use tonic::{Request, Response, Status};

use super::convert;
use super::error::ApiError;
use super::paging::Paging;
use super::test_filter::test_filter;
use crate::deadline::Deadline;
use crate::fetch::Start;
use crate::front::{Front, Partition};
use crate::limits::PEER_QUESTIONS;

/// Serves owners of subscriptions.
pub(crate) struct Subscriptions {
    front: Arc<Front>,
}

impl Subscriptions {
    pub(crate) fn new(front: Arc<Front>) -> Self {
        Self { front }
    }

    /// What can't be is refused before any partition is asked where the subscription begins.
    async fn create(
        &self,
        request: Request<v1::CreateSubscriptionRequest>,
    ) -> Result<v1::CreateSubscriptionResponse, ApiError> {
        let deadline = self.begin(&request)?;
        let v1::CreateSubscriptionRequest { subscription, start, request_id } = request.into_inner();
        let subscription = subscription.ok_or_else(|| ApiError::missing("subscription"))?;
        let name = SubscriptionName::parse(&subscription.name)?;
        let start = convert::subscription::start(start)?;
        let topic = self.topic(&subscription.topic, "topic").await?;
        let mut new = NewSubscription {
            time_ms: self.front.env.wall_clock_ms(),
            request_id,
            name,
            topic: topic.id,
            start: Vec::new(),
            ack_deadline_ms: convert::subscription::ack_deadline_ms(subscription.ack_deadline)?,
            retry: convert::subscription::retry_policy(subscription.retry_policy)?,
            dead_letter: self.dead_letter(subscription.dead_letter_policy).await?,
            ordered: subscription.ordered,
            filter: convert::subscription::filter(subscription.filter)?,
            labels: subscription.labels,
        };
        new.check()?;
        new.start = self.starts(&topic, start, deadline).await?;
        let command = MetaCommand::CreateSubscription(new);
        let MetaReply::SubscriptionCreated { subscription, .. } = self.front.change(&command, deadline).await? else {
            return Err(ApiError::out_of_turn());
        };
        Ok(v1::CreateSubscriptionResponse { subscription: Some(self.shown(&subscription, deadline).await?) })
    }

    async fn get(&self, request: Request<v1::GetSubscriptionRequest>) -> Result<v1::GetSubscriptionResponse, ApiError> {
        let deadline = self.begin(&request)?;
        let v1::GetSubscriptionRequest { name, without_status } = request.into_inner();
        let name = SubscriptionName::parse(&name)?;
        let found = self.front.map.find(|map| {
            let info = map.subscription(name.as_str())?;
            Some((Arc::clone(info), convert::subscription::subscription(info, map)?))
        });
        let (info, mut subscription) = found.await.ok_or_else(|| ApiError::subscription_not_found(&name))?;
        if !without_status {
            subscription.partition_status = self.partition_status(&info, deadline).await?;
        }
        Ok(v1::GetSubscriptionResponse { subscription: Some(subscription) })
    }

    async fn list(
        &self,
        request: Request<v1::ListSubscriptionsRequest>,
    ) -> Result<v1::ListSubscriptionsResponse, ApiError> {
        self.begin(&request)?;
        let v1::ListSubscriptionsRequest { topic, page_size, page_token } = request.into_inner();
        let asked = Paging::<SubscriptionName>::of(page_size, &page_token)?;
        let of_topic = if topic.is_empty() { None } else { Some(self.topic(&topic, "topic").await?.id) };
        let map = self.front.map.current();
        let name = |subscription: &Arc<SubscriptionInfo>| subscription.name.clone();
        let (page, next_page_token) = match of_topic {
            Some(topic) => {
                let all = map.subscriptions_of(topic);
                let seen = match asked.from() {
                    Bound::Excluded(last) => all.partition_point(|subscription| subscription.name <= *last),
                    _ => 0,
                };
                asked.cut(all.iter().skip(seen), name)
            }
            None => {
                let rest = map.subscriptions.range::<SubscriptionName, _>((asked.from(), Bound::Unbounded));
                asked.cut(rest.map(|(_, subscription)| subscription), name)
            }
        };
        let shown = page.into_iter().filter_map(|subscription| convert::subscription::subscription(subscription, &map));
        Ok(v1::ListSubscriptionsResponse { subscriptions: shown.collect(), next_page_token })
    }

    async fn update(
        &self,
        request: Request<v1::UpdateSubscriptionRequest>,
    ) -> Result<v1::UpdateSubscriptionResponse, ApiError> {
        let deadline = self.begin(&request)?;
        let v1::UpdateSubscriptionRequest { subscription, update_mask, request_id } = request.into_inner();
        let given = subscription.ok_or_else(|| ApiError::missing("subscription"))?;
        let mask = Mask::of(update_mask, &given)?;
        let name = SubscriptionName::parse(&given.name)?;
        let etag = convert::etag(&given.etag, "subscription.etag")?;
        let ack_deadline = mask.ack_deadline.then(|| convert::subscription::ack_deadline_ms(given.ack_deadline));
        let retry = mask.retry_policy.then(|| convert::subscription::retry_policy(given.retry_policy));
        let dead_letter = match mask.dead_letter_policy {
            true => Some(self.dead_letter(given.dead_letter_policy).await?),
            false => None,
        };
        let command = MetaCommand::UpdateSubscription(SubscriptionChange {
            request_id,
            name,
            etag,
            ack_deadline_ms: ack_deadline.transpose()?,
            retry: retry.transpose()?,
            dead_letter,
            filter: mask.filter.then(|| convert::subscription::filter(given.filter)).transpose()?,
            labels: mask.labels.then_some(given.labels),
        });
        let MetaReply::SubscriptionUpdated { subscription } = self.front.change(&command, deadline).await? else {
            return Err(ApiError::out_of_turn());
        };
        Ok(v1::UpdateSubscriptionResponse { subscription: Some(self.shown(&subscription, deadline).await?) })
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteSubscriptionRequest>,
    ) -> Result<v1::DeleteSubscriptionResponse, ApiError> {
        let deadline = self.begin(&request)?;
        let v1::DeleteSubscriptionRequest { name, request_id } = request.into_inner();
        let command = MetaCommand::DeleteSubscription { request_id, name: SubscriptionName::parse(&name)? };
        let MetaReply::SubscriptionDeleted { version, .. } = self.front.change(&command, deadline).await? else {
            return Err(ApiError::out_of_turn());
        };
        // It is deleted, whether or not this node still lists it for a moment.
        let _ = self.front.map.reaching(version, deadline).await;
        Ok(v1::DeleteSubscriptionResponse {})
    }

    async fn try_filter(&self, request: Request<v1::TestFilterRequest>) -> Result<v1::TestFilterResponse, ApiError> {
        let deadline = self.begin(&request)?;
        test_filter(&self.front, request.into_inner(), deadline).await
    }

    fn begin<T>(&self, request: &Request<T>) -> Result<Deadline, ApiError> {
        self.front.accepting()?;
        Ok(Deadline::of(request.metadata()))
    }

    /// The topic that a field names.
    async fn topic(&self, name: &str, field: &str) -> Result<Arc<TopicState>, ApiError> {
        let name = TopicName::parse(name).map_err(|error| ApiError::from(error).with("field", &field))?;
        self.front.topic(name.as_str()).await.map_err(|error| error.with("field", &field))
    }

    async fn dead_letter(&self, wire: Option<v1::DeadLetterPolicy>) -> Result<Option<DeadLetterPolicy>, ApiError> {
        let Some(policy) = wire else { return Ok(None) };
        let topic = self.topic(&policy.topic, "dead_letter_policy.topic").await?.id;
        let max_attempts = policy.max_delivery_attempts.unwrap_or(DELIVERY_ATTEMPTS_DEFAULT);
        Ok(Some(DeadLetterPolicy { topic, max_attempts }))
    }

    /// Where the subscription begins in each partition, as its leader knows it now: what is published after the answer
    /// lies beyond. A partition without a leader can't say, and a guess could lose messages.
    async fn starts(&self, topic: &TopicState, start: Start, deadline: Deadline) -> Result<Vec<Offset>, ApiError> {
        stream::iter(Partition::all(topic)?)
            .map(|partition| async move { self.front.offset_in(&partition, start, "start", deadline).await })
            .buffered(PEER_QUESTIONS)
            .try_collect()
            .await
    }

    /// A subscription that was just made or changed, once this node's own map shows it: whoever asks here next finds it.
    async fn shown(&self, info: &SubscriptionInfo, deadline: Deadline) -> Result<v1::Subscription, ApiError> {
        let map = self.front.map.reaching(info.etag, deadline).await.ok_or_else(|| {
            ApiError::expired_while(format!("subscription {} is there, but this node hasn't heard of it", info.name))
        })?;
        convert::subscription::subscription(info, &map).ok_or_else(|| ApiError::subscription_not_found(&info.name))
    }
}

#[tonic::async_trait]
impl SubscriptionService for Subscriptions {
    async fn create_subscription(
        &self,
        request: Request<v1::CreateSubscriptionRequest>,
    ) -> Result<Response<v1::CreateSubscriptionResponse>, Status> {
        self.front.metrics.unary("CreateSubscription", self.create(request)).await
    }

    async fn get_subscription(
        &self,
        request: Request<v1::GetSubscriptionRequest>,
    ) -> Result<Response<v1::GetSubscriptionResponse>, Status> {
        self.front.metrics.unary("GetSubscription", self.get(request)).await
    }

    async fn list_subscriptions(
        &self,
        request: Request<v1::ListSubscriptionsRequest>,
    ) -> Result<Response<v1::ListSubscriptionsResponse>, Status> {
        self.front.metrics.unary("ListSubscriptions", self.list(request)).await
    }

    async fn update_subscription(
        &self,
        request: Request<v1::UpdateSubscriptionRequest>,
    ) -> Result<Response<v1::UpdateSubscriptionResponse>, Status> {
        self.front.metrics.unary("UpdateSubscription", self.update(request)).await
    }

    async fn delete_subscription(
        &self,
        request: Request<v1::DeleteSubscriptionRequest>,
    ) -> Result<Response<v1::DeleteSubscriptionResponse>, Status> {
        self.front.metrics.unary("DeleteSubscription", self.delete(request)).await
    }

    async fn seek_subscription(
        &self,
        request: Request<v1::SeekSubscriptionRequest>,
    ) -> Result<Response<v1::SeekSubscriptionResponse>, Status> {
        self.front.metrics.unary("SeekSubscription", self.seek(request)).await
    }

    async fn snapshot_subscription(
        &self,
        request: Request<v1::SnapshotSubscriptionRequest>,
    ) -> Result<Response<v1::SnapshotSubscriptionResponse>, Status> {
        self.front.metrics.unary("SnapshotSubscription", self.snapshot(request)).await
    }

    async fn test_filter(
        &self,
        request: Request<v1::TestFilterRequest>,
    ) -> Result<Response<v1::TestFilterResponse>, Status> {
        self.front.metrics.unary("TestFilter", self.try_filter(request)).await
    }
}

/// Which fields an update means.
#[derive(Default)]
struct Mask {
    ack_deadline: bool,
    retry_policy: bool,
    dead_letter_policy: bool,
    filter: bool,
    labels: bool,
}

impl Mask {
    /// Without a mask, every field that holds something is meant, as AIP-134 has it.
    fn of(mask: Option<prost_types::FieldMask>, given: &v1::Subscription) -> Result<Self, ApiError> {
        let Some(mask) = mask.filter(|mask| !mask.paths.is_empty()) else {
            return Ok(Self {
                ack_deadline: given.ack_deadline.is_some(),
                retry_policy: given.retry_policy.is_some(),
                dead_letter_policy: given.dead_letter_policy.is_some(),
                filter: !given.filter.is_empty(),
                labels: !given.labels.is_empty(),
            });
        };
        let mut meant = Self::default();
        for path in mask.paths {
            match path.as_str() {
                "ack_deadline" => meant.ack_deadline = true,
                "retry_policy" => meant.retry_policy = true,
                "dead_letter_policy" => meant.dead_letter_policy = true,
                "filter" => meant.filter = true,
                "labels" => meant.labels = true,
                _ => {
                    let expected =
                        "ack_deadline, retry_policy, dead_letter_policy, filter or labels; nothing else can be changed";
                    return Err(ApiError::invalid(Reason::InvalidArgument, "update_mask", &path, expected));
                }
            }
        }
        Ok(meant)
    }
}

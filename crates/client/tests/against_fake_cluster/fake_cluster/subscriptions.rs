//! Subscriptions as the nodes serve them: remembered by their requests, listed two a page.

use std::collections::BTreeMap;

use quorate_client::Reason;
use quorate_proto::v1 as pb;
use quorate_proto::v1::subscription_service_server::SubscriptionService;
use tonic::{Request, Response, Status};

use super::Fault;
use super::nodes::{Node, status};

const PAGE_SIZE: usize = 2;

#[tonic::async_trait]
impl SubscriptionService for Node {
    async fn create_subscription(
        &self,
        request: Request<pb::CreateSubscriptionRequest>,
    ) -> Result<Response<pb::CreateSubscriptionResponse>, Status> {
        let request = request.into_inner();
        let fault = {
            let mut state = self.cluster.state();
            state.subscribed.push(request.clone());
            state.faults.pop_front()
        };
        match fault {
            Some(Fault::Refuse(reason)) => Err(status(reason, BTreeMap::new())),
            Some(Fault::LoseAnswer | Fault::Silence) => {
                std::future::pending::<()>().await;
                unreachable!("it is never answered")
            }
            None => Ok(Response::new(pb::CreateSubscriptionResponse { subscription: request.subscription })),
        }
    }

    async fn get_subscription(
        &self,
        request: Request<pb::GetSubscriptionRequest>,
    ) -> Result<Response<pb::GetSubscriptionResponse>, Status> {
        let facts = BTreeMap::from([("subscription".to_owned(), request.into_inner().name)]);
        Err(status(Reason::SubscriptionNotFound, facts))
    }

    async fn list_subscriptions(
        &self,
        request: Request<pb::ListSubscriptionsRequest>,
    ) -> Result<Response<pb::ListSubscriptionsResponse>, Status> {
        let request = request.into_inner();
        let of_topic = |it: &pb::Subscription| request.topic.is_empty() || it.topic == request.topic;
        let all: Vec<pb::Subscription> =
            self.cluster.subscribed().into_iter().filter_map(|it| it.subscription).filter(of_topic).collect();
        let seen: usize = request.page_token.parse().unwrap_or(0);
        let end = all.len().min(seen + PAGE_SIZE);
        let next_page_token = if end < all.len() { end.to_string() } else { String::new() };
        let subscriptions = all[seen..end].to_vec();
        Ok(Response::new(pb::ListSubscriptionsResponse { subscriptions, next_page_token }))
    }

    async fn update_subscription(
        &self,
        request: Request<pb::UpdateSubscriptionRequest>,
    ) -> Result<Response<pb::UpdateSubscriptionResponse>, Status> {
        // Says by its labels what the mask named.
        let pb::UpdateSubscriptionRequest { subscription, update_mask, .. } = request.into_inner();
        let paths = update_mask.map(|mask| mask.paths).unwrap_or_default();
        let labels = paths.into_iter().map(|path| (path, String::new())).collect();
        let subscription = subscription.map(|it| pb::Subscription { labels, ..it });
        Ok(Response::new(pb::UpdateSubscriptionResponse { subscription }))
    }

    async fn delete_subscription(
        &self,
        _: Request<pb::DeleteSubscriptionRequest>,
    ) -> Result<Response<pb::DeleteSubscriptionResponse>, Status> {
        Ok(Response::new(pb::DeleteSubscriptionResponse {}))
    }

    async fn seek_subscription(
        &self,
        request: Request<pb::SeekSubscriptionRequest>,
    ) -> Result<Response<pb::SeekSubscriptionResponse>, Status> {
        let request = request.into_inner();
        let fault = {
            let mut state = self.cluster.state();
            state.seeks.push(request.clone());
            state.faults.pop_front()
        };
        if let Some(Fault::Refuse(reason)) = fault {
            return Err(status(reason, BTreeMap::new()));
        }
        // As far as a cluster of no partitions can be moved: to where was asked.
        let offset = |it: &pb::PartitionPosition| match it.start.and_then(|start| start.position) {
            Some(pb::position::Position::Offset(offset)) => offset,
            _ => 0,
        };
        let seeked =
            request.partitions.iter().map(|it| pb::SeekedPartition { partition: it.partition, offset: offset(it) });
        Ok(Response::new(pb::SeekSubscriptionResponse { partitions: seeked.collect() }))
    }

    async fn snapshot_subscription(
        &self,
        _: Request<pb::SnapshotSubscriptionRequest>,
    ) -> Result<Response<pb::SnapshotSubscriptionResponse>, Status> {
        Ok(Response::new(pb::SnapshotSubscriptionResponse::default()))
    }

    async fn test_filter(&self, _: Request<pb::TestFilterRequest>) -> Result<Response<pb::TestFilterResponse>, Status> {
        Ok(Response::new(pb::TestFilterResponse::default()))
    }
}

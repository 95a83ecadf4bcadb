//! Where a subscription stands, for its owner to keep and to go back to.

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use quorate_model::limits::SNAPSHOT_BYTES_MAX;
use quorate_model::partition::subscription::{Snapshot, SubscriptionSnapshot};
use quorate_model::{Executed, PartitionCommand, Reason, SubscriptionId, SubscriptionInfo, SubscriptionName};
use quorate_proto::v1;
use tonic::Request;

use super::Subscriptions;
use crate::api::error::ApiError;
use crate::deadline::Deadline;
use crate::front::{Leader, Partition};
use crate::limits::PEER_QUESTIONS;
use crate::router::Routing;

impl Subscriptions {
    pub(super) async fn snapshot(
        &self,
        request: Request<v1::SnapshotSubscriptionRequest>,
    ) -> Result<v1::SnapshotSubscriptionResponse, ApiError> {
        let deadline = self.begin(&request)?;
        let name = SubscriptionName::parse(&request.into_inner().name)?;
        let subscription = self.front.subscription(name.as_str()).await?;
        let partitions = stream::iter(self.partitions(&subscription).await?).map(|partition| {
            let subscription = &subscription;
            async move {
                let snapshot = self.snapshot_in(&partition, subscription, deadline).await?;
                Ok::<_, ApiError>((partition.id.index, snapshot))
            }
        });
        let partitions = partitions.buffered(PEER_QUESTIONS).try_collect().await?;
        let snapshot = SubscriptionSnapshot { topic: subscription.topic, partitions }.encode();
        if snapshot.len() > SNAPSHOT_BYTES_MAX {
            let text = format!("a snapshot of {name} has {} bytes, the limit is {SNAPSHOT_BYTES_MAX}", snapshot.len());
            return Err(ApiError::new(Reason::SnapshotTooLarge, text)
                .with("value", &snapshot.len())
                .with("limit", &SNAPSHOT_BYTES_MAX));
        }
        Ok(v1::SnapshotSubscriptionResponse { snapshot })
    }

    async fn snapshot_in(
        &self,
        partition: &Partition,
        subscription: &SubscriptionInfo,
        deadline: Deadline,
    ) -> Result<Snapshot, ApiError> {
        let start = subscription.start_of(partition.id.index);
        let ask = |leader: Leader| async {
            match leader {
                Leader::Local(group) => {
                    self.front.dispatch.snapshot(&group, &partition.label(), subscription.id, start).await
                }
                Leader::Remote(leader, mut client) => {
                    let request = super::status::question(partition, subscription, true);
                    let answered = client.get_subscription_status(request).await;
                    let response = answered.map_err(|status| ApiError::from_peer(leader.node, &status))?.into_inner();
                    self.front.router.leaders().heard(partition.group, leader);
                    let unreadable = |error| ApiError::internal(format!("a node answered without a snapshot: {error}"));
                    Snapshot::decode(&response.snapshot).map_err(unreadable)
                }
            }
        };
        self.front.ask_leader(partition, Routing::Forward, deadline, Executed::No, ask).await
    }
}

/// The command for each partition that takes a subscription back to a snapshot. Partitions that it doesn't know, because
/// there were fewer then, stay as they are.
pub(super) fn restores(
    all: Vec<Partition>,
    subscription: SubscriptionId,
    request: u64,
    snapshot: &Bytes,
) -> Result<Vec<(Partition, PartitionCommand)>, ApiError> {
    let invalid = |value: &dyn std::fmt::Display| {
        let expected = "what SnapshotSubscription answered for a subscription of this topic, unchanged";
        ApiError::invalid(Reason::InvalidSnapshot, "snapshot", &value.to_string(), expected)
    };
    let mut known = SubscriptionSnapshot::decode(snapshot).map_err(|error| invalid(&error))?;
    if let Some(other) = all.iter().find(|partition| partition.id.topic != known.topic) {
        return Err(invalid(&format!("a snapshot of another topic than {}", other.topic)));
    }
    let restore = |partition: Partition| {
        let snapshot = known.partitions.remove(&partition.id.index)?;
        Some((partition, PartitionCommand::Restore { subscription, request, snapshot }))
    };
    Ok(all.into_iter().filter_map(restore).collect())
}

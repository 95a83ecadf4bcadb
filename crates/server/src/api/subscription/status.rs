//! What partitions say of a subscription.

use futures::stream::{self, StreamExt};
use quorate_model::{Executed, SubscriptionInfo};
use quorate_proto::{internal as wire, v1};

use super::Subscriptions;
use crate::api::error::ApiError;
use crate::deadline::Deadline;
use crate::front::{Leader, Partition};
use crate::limits::{PEER_QUESTION_TIME, PEER_QUESTIONS};
use crate::router::Routing;

impl Subscriptions {
    /// The numbers of every partition, as their leaders know them.
    pub(super) async fn partition_status(
        &self,
        subscription: &SubscriptionInfo,
        deadline: Deadline,
    ) -> Result<Vec<v1::SubscriptionPartitionStatus>, ApiError> {
        let status = stream::iter(self.partitions(subscription).await?)
            .map(|partition| async move { self.status_in(&partition, subscription, deadline).await })
            .buffered(PEER_QUESTIONS);
        Ok(status.collect().await)
    }

    /// All partitions of a subscription's topic.
    pub(super) async fn partitions(&self, subscription: &SubscriptionInfo) -> Result<Vec<Partition>, ApiError> {
        let topic = self.front.map.find(|map| map.topic_by_id(subscription.topic).cloned()).await;
        Partition::all(&*topic.ok_or_else(|| ApiError::topic_not_found(&subscription.topic))?)
    }

    /// Doesn't wait for an election: this is for people who look.
    async fn status_in(
        &self,
        partition: &Partition,
        subscription: &SubscriptionInfo,
        deadline: Deadline,
    ) -> v1::SubscriptionPartitionStatus {
        let (deadline, start) = (deadline.within(PEER_QUESTION_TIME), subscription.start_of(partition.id.index));
        let ask = |leader: Leader| async {
            match leader {
                Leader::Local(group) => {
                    Ok(self.front.dispatch.status_in_depth(&group, partition.id, subscription.id, start).await)
                }
                Leader::Remote(leader, mut client) => {
                    let answered = client.get_subscription_status(question(partition, subscription, false)).await;
                    let response = answered.map_err(|status| ApiError::from_peer(leader.node, &status))?.into_inner();
                    // Only a leader answers, so that a guess is now knowledge.
                    self.front.router.leaders().heard(partition.group, leader);
                    response.status.ok_or_else(|| ApiError::internal("a node answered without a status"))
                }
            }
        };
        let asked = self.front.ask_leader(partition, Routing::Forward, deadline, Executed::No, ask).await;
        asked.unwrap_or_else(|_| v1::SubscriptionPartitionStatus {
            partition: partition.id.index,
            unavailable: true,
            ..Default::default()
        })
    }
}

/// Asks the leader of a partition for numbers, or for a snapshot.
pub(super) fn question(
    partition: &Partition,
    subscription: &SubscriptionInfo,
    snapshot: bool,
) -> wire::GetSubscriptionStatusRequest {
    wire::GetSubscriptionStatusRequest {
        group_id: partition.group.get(),
        topic_id: partition.id.topic.get(),
        partition: partition.id.index,
        subscription_id: subscription.id.get(),
        start_offset: subscription.start_of(partition.id.index).get(),
        snapshot,
    }
}

//! What partitions have settled of subscriptions that were deleted: it goes, once the leader's map says that they are.

use std::sync::Arc;

use futures::stream::{self, StreamExt};
use quorate_consensus::{RaftGroup, RaftGroups};
use quorate_model::{ClusterMap, PartitionCommand, Reply, SubscriptionId};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tracing::{debug, info};

use crate::limits::{ENDINGS_PERIOD, GROUPS_AT_ONCE, RETENTION_PROPOSAL_TIME};

pub(crate) struct Endings {
    pub(crate) groups: RaftGroups,
    pub(crate) map: watch::Receiver<Arc<ClusterMap>>,
}

impl Endings {
    /// Runs for as long as the node does.
    pub(crate) async fn run(self) {
        let mut period = tokio::time::interval(ENDINGS_PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            period.tick().await;
            stream::iter(self.due())
                .for_each_concurrent(
                    GROUPS_AT_ONCE,
                    |(group, subscription)| async move { end(&group, subscription).await },
                )
                .await;
        }
    }

    /// Subscriptions that have ended and of which a partition that this node leads still knows.
    fn due(&self) -> Vec<(RaftGroup, SubscriptionId)> {
        let map = Arc::clone(&self.map.borrow());
        let led = self.groups.list().into_iter().filter(|group| group.leadership().is_self);
        led.flat_map(|group| {
            let known: Vec<_> = group.look(|machine| machine.subscriptions().ids().collect()).unwrap_or_default();
            let ended = known.into_iter().filter(|subscription| map.has_ended(*subscription));
            ended.map(|subscription| (group.clone(), subscription)).collect::<Vec<_>>()
        })
        .collect()
    }
}

/// What fails is due again in the next period, on this node or on the one that leads then.
async fn end(group: &RaftGroup, subscription: SubscriptionId) {
    let command = PartitionCommand::EndSubscription { subscription };
    match tokio::time::timeout(RETENTION_PROPOSAL_TIME, group.propose(command.encode())).await {
        Ok(Ok(Reply::Subscription(Ok(_)))) => {
            info!(group = %group.id(), %subscription, "a deleted subscription is forgotten")
        }
        other => debug!(group = %group.id(), %subscription, ?other, "forgetting a subscription has to wait"),
    }
}

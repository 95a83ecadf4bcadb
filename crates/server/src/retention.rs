//! Keeps logs within the retention of their topics: on each leader, one task for all groups looks at a few numbers
//! per partition and proposes a mark or a trim where one is due. It never changes anything itself: where the log
//! starts is a committed command, the same on every replica.

use std::sync::Arc;

use futures::stream::{self, StreamExt};
use quorate_consensus::{Env, RaftGroup, RaftGroups};
use quorate_model::{ClusterMap, PartitionCommand, Reply};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tracing::{debug, info, warn};

use crate::limits::{GROUPS_AT_ONCE, RETENTION_PERIOD, RETENTION_PROPOSAL_TIME};

pub(crate) struct Retainer {
    pub(crate) groups: RaftGroups,
    pub(crate) map: watch::Receiver<Arc<ClusterMap>>,
    pub(crate) env: Arc<dyn Env>,
}

impl Retainer {
    /// Runs for as long as the node does.
    pub(crate) async fn run(self) {
        let mut period = tokio::time::interval(RETENTION_PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            period.tick().await;
            let due = self.due(self.env.wall_clock_ms());
            stream::iter(due)
                .for_each_concurrent(GROUPS_AT_ONCE, |(group, command)| async move { propose(&group, command).await })
                .await;
        }
    }

    /// What the partitions that this node leads want now.
    fn due(&self, now_ms: u64) -> Vec<(RaftGroup, PartitionCommand)> {
        let map = Arc::clone(&self.map.borrow());
        let led = self.groups.list().into_iter().filter(|group| group.leadership().is_self);
        led.filter_map(|group| {
            let (partition, _) = map.partition(group.id())?;
            let command = group.retention_due(&map.topic_by_id(partition.topic)?.retention, now_ms)?;
            Some((group, command))
        })
        .collect()
    }
}

/// What fails is due again in the next period, on this node or on the one that leads then.
async fn propose(group: &RaftGroup, command: PartitionCommand) {
    let answer = tokio::time::timeout(RETENTION_PROPOSAL_TIME, group.propose(command.encode())).await;
    match (answer, command) {
        (Ok(Ok(Reply::LogStart(offset))), PartitionCommand::TrimTo { .. }) => {
            info!(group = %group.id(), log_start = %offset, "retention moved the log start");
        }
        (Ok(Ok(Reply::LogStart(_))), _) => debug!(group = %group.id(), "marked"),
        (Ok(Ok(other)), _) => warn!(group = %group.id(), ?other, "unexpected answer to a command of retention"),
        (Ok(Err(error)), _) => debug!(group = %group.id(), %error, "retention has to wait"),
        (Err(_), _) => debug!(group = %group.id(), "retention has to wait: no quorum in time"),
    }
}

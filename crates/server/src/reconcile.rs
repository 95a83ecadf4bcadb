//! Makes the groups of this node what the cluster map says: opens those whose replica belongs here, destroys those
//! that were buried. A group that the map merely doesn't mention is left alone: data is deleted by a committed
//! tombstone, never by an absence.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::stream::{self, StreamExt};
use quorate_consensus::{GroupSpec, OpenGroupError, Peer, RaftGroup, RaftGroups};
use quorate_model::{ClusterMap, MachineKind, NodeId};
use quorate_storage::StorageError;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::config::Voter;
use crate::leaders::LeaderBook;
use crate::limits::{GROUPS_AT_ONCE, RETRY_PAUSE};
use crate::peers::Peers;
use crate::readiness::Readiness;

/// Follows the map for as long as the node runs.
pub(crate) struct Reconciler {
    pub(crate) node: NodeId,
    pub(crate) groups: RaftGroups,
    pub(crate) leaders: LeaderBook,
    pub(crate) peers: Peers,
    pub(crate) voters: Vec<Voter>,
    pub(crate) map: watch::Receiver<Arc<ClusterMap>>,
    pub(crate) readiness: Readiness,
    pub(crate) tasks: TaskTracker,
    pub(crate) stopping: CancellationToken,
}

/// Why a group isn't what it should be.
#[derive(Debug, thiserror::Error)]
enum ReconcileError {
    #[error(transparent)]
    Open(#[from] OpenGroupError),
    #[error(transparent)]
    Destroy(#[from] StorageError),
}

impl Reconciler {
    pub(crate) async fn run(mut self) {
        let mut pause = RETRY_PAUSE.start;
        loop {
            let map = Arc::clone(&self.map.borrow_and_update());
            self.peers.learn(&map);
            self.groups.set_peers(peers(self.node, &self.voters, &map));
            let buried = self.destroy_buried(&map).await;
            let opened = self.open_missing(&map).await;
            if buried && opened {
                self.readiness.reconciled(map.version);
                pause = RETRY_PAUSE.start;
                if self.map.changed().await.is_err() {
                    return;
                }
            } else {
                // What failed is tried again, or overtaken by a newer map.
                let changed = tokio::time::timeout(pause, self.map.changed()).await;
                if matches!(changed, Ok(Err(_))) {
                    return;
                }
                pause = (pause * 2).min(RETRY_PAUSE.end);
            }
        }
    }

    async fn open_missing(&self, map: &ClusterMap) -> bool {
        let missing = map.replicas_on(self.node).filter(|local| self.groups.get(local.state.group).is_none());
        let specs: Vec<GroupSpec> = missing
            .map(|local| GroupSpec {
                group: local.state.group,
                replica: local.replica,
                kind: MachineKind::Partition(local.partition),
                members: local.state.replicas.clone(),
            })
            .collect();
        all_done(specs, |spec| async {
            let group = self.groups.open(spec).await?;
            self.follow(&group);
            Ok(())
        })
        .await
    }

    async fn destroy_buried(&self, map: &ClusterMap) -> bool {
        let open = self.groups.list().into_iter();
        let buried: Vec<RaftGroup> = open.filter(|group| map.tombstones.contains(&group.id())).collect();
        all_done(buried, |group| async move {
            info!(group = %group.id(), "group deleted with its topic");
            self.groups.destroy(group.id(), group.replica()).await?;
            Ok(())
        })
        .await
    }

    /// Keeps the book of leaders up to date with a group.
    fn follow(&self, group: &RaftGroup) {
        let following = self.leaders.clone().follow(group.id(), group.watch_leadership());
        let stopping = self.stopping.clone();
        self.tasks.spawn(async move { stopping.run_until_cancelled(following).await });
    }
}

/// Does `work` for each item, several at a time; true if none failed.
async fn all_done<T, W: Future<Output = Result<(), ReconcileError>>>(items: Vec<T>, work: impl Fn(T) -> W) -> bool {
    let outcomes = stream::iter(items).map(work).buffer_unordered(GROUPS_AT_ONCE);
    outcomes
        .fold(true, |all, outcome| async move {
            if let Err(error) = &outcome {
                warn!(%error, "group isn't what the cluster map says; trying again");
            }
            all && outcome.is_ok()
        })
        .await
}

/// The other nodes. A voter is where the configuration says: if all voters moved at once, the addresses in the map
/// would keep them from ever agreeing on a new map. The others are where they registered.
pub(crate) fn peers(this: NodeId, voters: &[Voter], map: &ClusterMap) -> BTreeMap<NodeId, Peer> {
    let store_id = |node: NodeId| map.nodes.get(&node).map(|info| info.store_id);
    let registered = map
        .nodes
        .iter()
        .map(|(node, info)| (*node, Peer { address: info.peer_address.clone(), store_id: store_id(*node) }));
    let configured = voters
        .iter()
        .map(|voter| (voter.node, Peer { address: voter.peer_address.clone(), store_id: store_id(voter.node) }));
    registered.chain(configured).filter(|(node, _)| *node != this).collect()
}

#[cfg(test)]
mod tests {
    use quorate_model::NodeInfo;

    use super::*;

    #[test]
    fn a_voter_is_where_the_configuration_says_and_others_are_where_they_registered() {
        let registered = |port: u16| NodeInfo {
            client_address: "client:1".to_owned(),
            peer_address: format!("old:{port}"),
            store_id: u64::from(port),
        };
        let mut map = ClusterMap::default();
        map.nodes.extend([1, 2, 4].map(|node| (NodeId::new(u64::from(node)), registered(node))));
        let voters = [1, 2, 3].map(|node| Voter { node: NodeId::new(node), peer_address: format!("new:{node}") });

        let peers = peers(NodeId::new(1), &voters, &map);
        let expected = [(2, "new:2", Some(2)), (3, "new:3", None), (4, "old:4", Some(4))];
        let expected = expected
            .map(|(node, address, store_id)| (NodeId::new(node), Peer { address: address.to_owned(), store_id }));
        assert_eq!(peers, BTreeMap::from(expected));
    }
}

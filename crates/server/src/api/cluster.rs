//! `ClusterService`: the cluster map joined with what this node knows of leaders, and leadership transfers.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt};
use quorate_model::{ClusterMap, Executed, GroupId, NodeId, Reason, Replica, ReplicaId, TopicName};
use quorate_proto::internal;
use quorate_proto::v1;
use quorate_proto::v1::cluster_service_server::ClusterService;
use tonic::{Request, Response, Status};

use super::error::ApiError;
use crate::deadline::Deadline;
use crate::front::{Front, Leader, Partition};
use crate::leaders::KnownLeader;
use crate::limits::WATCH_PAUSE;
use crate::router::Routing;

/// Serves clients that route by themselves, and operators.
pub(crate) struct Clusters {
    front: Arc<Front>,
}

impl Clusters {
    pub(crate) fn new(front: Arc<Front>) -> Self {
        Self { front }
    }

    async fn transfer(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<v1::TransferLeaderResponse, ApiError> {
        self.front.accepting()?;
        let deadline = Deadline::of(request.metadata());
        let v1::TransferLeaderRequest { topic, partition, target_node_id } = request.into_inner();
        TopicName::parse(&topic)?;
        let partition = Partition::of(self.front.topic(&topic).await?.as_ref(), partition)?;
        let target = target(&partition, target_node_id)?;
        let ask = |leader: Leader| async {
            match leader {
                Leader::Local(group) => {
                    let moved = group.transfer_leader(target.map(|replica| replica.id)).await;
                    moved.map_err(|error| ApiError::from_transfer(&error, &partition.label()))
                }
                Leader::Remote(leader, mut client) => {
                    let request = internal::TransferLeaderRequest {
                        group_id: partition.group.get(),
                        target_replica_id: target.map_or(0, |replica| replica.id.get()),
                    };
                    let moved = client.transfer_leader(request).await;
                    let moved = moved.map_err(|status| ApiError::lost(leader.node, &status))?.into_inner();
                    Ok(ReplicaId::new(moved.leader_replica_id))
                }
            }
        };
        let leader = self.front.ask_leader(&partition, Routing::Forward, deadline, Executed::Maybe, ask).await?;
        let node = partition.replicas.iter().find(|replica| replica.id == leader).map_or(0, |it| it.node.get());
        Ok(v1::TransferLeaderResponse { leader_node_id: node })
    }

    /// The map now and after every change of it or of a leader, at most one per pause.
    fn watch(&self) -> BoxStream<'static, Result<v1::ClusterMap, ApiError>> {
        let maps = self.front.map.watch();
        let leaders = self.front.router.leaders().watch();
        let watcher = Watcher { front: Arc::clone(&self.front), maps, leaders, first: true, ended: false };
        stream::unfold(watcher, |mut watcher| async move {
            let item = watcher.next().await?;
            Some((item, watcher))
        })
        .boxed()
    }
}

#[tonic::async_trait]
impl ClusterService for Clusters {
    async fn get_cluster(&self, _: Request<v1::GetClusterRequest>) -> Result<Response<v1::GetClusterResponse>, Status> {
        let cluster = async { Ok(v1::GetClusterResponse { cluster: Some(snapshot(&self.front)) }) };
        self.front.metrics.unary("GetCluster", cluster).await
    }

    type WatchClusterStream = BoxStream<'static, Result<v1::WatchClusterResponse, Status>>;

    async fn watch_cluster(
        &self,
        _: Request<v1::WatchClusterRequest>,
    ) -> Result<Response<Self::WatchClusterStream>, Status> {
        let responses = self.front.accepting().map(|()| {
            let maps = self.watch();
            maps.map(|map| map.map(|cluster| v1::WatchClusterResponse { cluster: Some(cluster) })).boxed()
        });
        self.front.metrics.streaming("WatchCluster", responses)
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        self.front.metrics.unary("TransferLeader", self.transfer(request)).await
    }
}

struct Watcher {
    front: Arc<Front>,
    maps: tokio::sync::watch::Receiver<Arc<ClusterMap>>,
    leaders: tokio::sync::watch::Receiver<BTreeMap<GroupId, KnownLeader>>,
    first: bool,
    ended: bool,
}

impl Watcher {
    async fn next(&mut self) -> Option<Result<v1::ClusterMap, ApiError>> {
        if self.ended {
            return None;
        }
        if !std::mem::take(&mut self.first) {
            let changed = tokio::select! {
                biased;
                () = self.front.draining.cancelled() => {
                    self.ended = true;
                    return Some(Err(ApiError::draining()));
                }
                changed = self.maps.changed() => changed,
                changed = self.leaders.changed() => changed,
            };
            changed.ok()?;
            // What changes within the pause is in the same answer.
            tokio::time::sleep(WATCH_PAUSE).await;
        }
        self.maps.mark_unchanged();
        self.leaders.mark_unchanged();
        Some(Ok(snapshot(&self.front)))
    }
}

/// The replica on the node that was named; none if none was.
fn target(partition: &Partition, node: u64) -> Result<Option<Replica>, ApiError> {
    if node == 0 {
        return Ok(None);
    }
    let found = partition.replicas.iter().find(|replica| replica.node == NodeId::new(node)).copied();
    found.map(Some).ok_or_else(|| {
        ApiError::new(Reason::NodeNotFound, format!("node {node} holds no replica of {}", partition.label()))
            .with("field", &"target_node_id")
            .with("value", &node)
    })
}

/// The map as clients see it, with leaders as far as this node has heard.
fn snapshot(front: &Front) -> v1::ClusterMap {
    let map = front.map.current();
    let leader = |group| front.router.leader(group);
    let voters = &front.metadata_replicas;
    let nodes = map.nodes.iter().map(|(node, info)| v1::Node {
        node_id: node.get(),
        address: info.client_address.clone(),
        reachable: *node == front.node || front.router.groups().reachable(*node),
        metadata_voter: voters.iter().any(|voter| voter.node == *node),
    });
    let topics = map.topics.values().map(|topic| v1::TopicPlacement {
        name: topic.name.to_string(),
        topic_id: topic.id.get(),
        max_message_bytes: topic.max_message_bytes,
        partitions: topic
            .partition_ids()
            .map(|(id, state)| {
                let leader = leader(state.group);
                v1::PartitionPlacement {
                    partition: id.index,
                    replica_node_ids: state.replicas.iter().map(|replica| replica.node.get()).collect(),
                    leader_node_id: leader.map_or(0, |leader| leader.node.get()),
                    leader_term: leader.map_or(0, |leader| leader.term),
                }
            })
            .collect(),
    });
    v1::ClusterMap {
        cluster: front.cluster.clone(),
        version: map.version,
        nodes: nodes.collect(),
        topics: topics.collect(),
        node_id: front.node.get(),
        metadata_leader_node_id: leader(GroupId::METADATA).map_or(0, |leader| leader.node.get()),
    }
}

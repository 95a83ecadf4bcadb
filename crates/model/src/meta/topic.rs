//! What the metadata group keeps about nodes and topics.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{GroupId, NodeId, PartitionId, ReplicaId, TopicId};
use crate::limits::RETENTION_AGE_MS_DEFAULT;
use crate::names::TopicName;

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Where clients reach it, as `host:port`.
    pub client_address: String,
    /// Where other nodes reach it, as `host:port`.
    pub peer_address: String,
    /// Identity of its data folder.
    pub store_id: u64,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicState {
    /// Its id, for all time.
    pub id: TopicId,
    /// Its name, for as long as it exists.
    pub name: TopicName,
    /// Its partitions; the position is the partition's index.
    pub partitions: Vec<PartitionState>,
    /// Replicas of each partition.
    pub replication_factor: u32,
    /// What may be removed from the head of the log.
    pub retention: Retention,
    /// Largest message.
    pub max_message_bytes: u64,
    /// Free text for people and programs.
    pub labels: BTreeMap<String, String>,
    /// Changes with every change of the topic: the version of the map that brought it.
    pub etag: u64,
    /// When it was made, by the clock of the leader of that time.
    pub created_ms: u64,
}

impl TopicState {
    /// The partition with this index.
    pub fn partition(&self, index: u32) -> Option<&PartitionState> {
        self.partitions.get(index as usize)
    }

    /// How many partitions there are.
    pub fn partition_count(&self) -> u32 {
        u32::try_from(self.partitions.len()).expect("the number of partitions is bounded")
    }

    /// All partitions with their ids.
    pub fn partition_ids(&self) -> impl Iterator<Item = (PartitionId, &PartitionState)> {
        (0..).zip(&self.partitions).map(|(index, partition)| (PartitionId::new(self.id, index), partition))
    }
}

/// A partition's group and where its replicas are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionState {
    /// The Raft group.
    pub group: GroupId,
    /// The replicas; the first is the preferred leader.
    pub replicas: Vec<Replica>,
}

impl PartitionState {
    /// The replica that should lead when all are well.
    pub fn preferred_leader(&self) -> Option<Replica> {
        self.replicas.first().copied()
    }

    /// The replica on this node.
    pub fn replica_on(&self, node: NodeId) -> Option<Replica> {
        self.replicas.iter().copied().find(|r| r.node == node)
    }
}

/// One copy of a group, and the node that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Replica {
    /// The replica.
    pub id: ReplicaId,
    /// Its node.
    pub node: NodeId,
}

/// What may be removed from the head of the log. `None`: no such bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// Records older than this.
    pub age_ms: Option<u64>,
    /// The oldest records, once a partition has more bytes than this.
    pub bytes: Option<u64>,
    /// The oldest records, once a partition has more than this.
    pub messages: Option<u64>,
}

impl Default for Retention {
    /// Seven days, however much that is.
    fn default() -> Self {
        Self { age_ms: Some(RETENTION_AGE_MS_DEFAULT), bytes: None, messages: None }
    }
}

//! [`ClusterView`]: the cluster as this client knows it, and the rules by which it learns.
//!
//! The replicated part (nodes, topics, placement) has a version; who leads is soft knowledge of the
//! answering node, ordered by the Raft term of each partition. The two are merged separately, so that
//! an answer from a node that lags in one can still teach the other.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_model::{NodeId, Reason, TopicId};
use quorate_proto::v1 as pb;

use crate::error::ClientError;

/// Nodes, topics and leaders as this client knows them. Replaced whole, never changed in place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterView {
    /// Name of the cluster; empty before the first answer.
    pub cluster: String,
    /// Version of nodes, topics and placement. Never decreases.
    pub version: u64,
    /// By node id.
    pub nodes: BTreeMap<NodeId, NodeView>,
    /// By name.
    pub topics: BTreeMap<String, TopicView>,
    /// Node that leads the metadata group, where known.
    pub metadata_leader: Option<NodeId>,
    /// Node that gave the last answer.
    pub answered_by: Option<NodeId>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Where clients reach it, `host:port`, as the node advertises itself.
    pub address: String,
    /// As seen by the node that answered, not by this client.
    pub reachable: bool,
    /// Whether it votes in the metadata group.
    pub metadata_voter: bool,
}

/// One topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicView {
    /// Never reused, not even for a topic recreated with the same name.
    pub id: TopicId,
    /// By partition number, from 0.
    pub partitions: Vec<PartitionView>,
    /// Largest message in bytes.
    pub max_message_bytes: u64,
}

/// One partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartitionView {
    /// Nodes that hold a replica, the preferred leader first.
    pub replicas: Vec<NodeId>,
    /// Who leads it.
    pub leadership: Leadership,
}

/// Who leads a partition: the higher term is right; within a term, knowing beats not knowing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leadership {
    /// Raft term of this knowledge.
    pub term: u64,
    /// `None` while there is no leader, or none is known.
    pub node: Option<NodeId>,
}

/// A topic as a publisher or reader holds it: the id makes sure that a topic recreated with the same
/// name is never taken for the old one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicRef {
    pub(crate) name: Arc<str>,
    pub(crate) id: TopicId,
}

/// What a node says that refused a request because another leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeaderHint {
    pub(crate) leadership: Leadership,
    pub(crate) address: Option<String>,
}

impl ClusterView {
    /// The topic of this name.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<&TopicView> {
        self.topics.get(name)
    }

    /// Who leads this partition, as far as is known.
    pub(crate) fn leadership(&self, topic: &TopicRef, partition: u32) -> Leadership {
        let topic = self.topics.get(&*topic.name).filter(|known| known.id == topic.id);
        let partition = topic.and_then(|topic| topic.partitions.get(partition as usize));
        partition.map(|partition| partition.leadership).unwrap_or_default()
    }

    /// Who holds a replica of this partition, as far as is known.
    pub(crate) fn replicas(&self, topic: &TopicRef, partition: u32) -> Vec<NodeId> {
        let topic = self.topics.get(&*topic.name).filter(|known| known.id == topic.id);
        let partition = topic.and_then(|topic| topic.partitions.get(partition as usize));
        partition.map(|partition| partition.replicas.clone()).unwrap_or_default()
    }

    /// Where clients reach this node.
    #[must_use]
    pub fn address(&self, node: NodeId) -> Option<&str> {
        self.nodes.get(&node).map(|node| node.address.as_str())
    }

    /// The view after an answer of `GetCluster` or `WatchCluster`; an error if it comes from another cluster.
    pub(crate) fn merged(&self, answer: pb::ClusterMap) -> Result<ClusterView, ClientError> {
        if !self.cluster.is_empty() && self.cluster != answer.cluster {
            let message = format!(
                "this client belongs to cluster {:?}, but a node answered for {:?}",
                self.cluster, answer.cluster
            );
            return Err(ClientError::known(Reason::ClusterMismatch, message));
        }
        let answer = Self::from_answer(answer);
        // Equal versions describe the same nodes and topics, but who is reachable changes within one.
        let (mut newer, older) =
            if answer.version >= self.version { (answer.clone(), self) } else { (self.clone(), &answer) };
        newer.learn_leaders_from(older);
        newer.metadata_leader = answer.metadata_leader.or(self.metadata_leader);
        newer.answered_by = answer.answered_by;
        Ok(newer)
    }

    /// The view after a `NOT_LEADER` from a node; `None` if it teaches nothing.
    pub(crate) fn hinted(&self, topic: &TopicRef, partition: u32, hint: &LeaderHint) -> Option<ClusterView> {
        let mut view = self.clone();
        let known = view.partition_mut(topic, partition)?;
        if hint.leadership <= known.leadership {
            return None;
        }
        known.leadership = hint.leadership;
        // A node that has just joined may lead before its map entry arrives here.
        if let (Some(node), Some(address)) = (hint.leadership.node, &hint.address) {
            let joined = NodeView { address: address.clone(), reachable: true, metadata_voter: false };
            view.nodes.entry(node).or_insert(joined);
        }
        Some(view)
    }

    /// The view after `node` denied leading the partition without knowing who does; `None` if nobody thought it did.
    pub(crate) fn denied(&self, topic: &TopicRef, partition: u32, node: NodeId) -> Option<ClusterView> {
        if self.leadership(topic, partition).node != Some(node) {
            return None;
        }
        let mut view = self.clone();
        view.partition_mut(topic, partition)?.leadership.node = None;
        Some(view)
    }

    fn partition_mut(&mut self, topic: &TopicRef, partition: u32) -> Option<&mut PartitionView> {
        let topic = self.topics.get_mut(&*topic.name).filter(|known| known.id == topic.id)?;
        topic.partitions.get_mut(partition as usize)
    }

    /// Topic ids are never reused, so terms of equal topic ids are terms of the same Raft groups.
    fn learn_leaders_from(&mut self, other: &ClusterView) {
        for (name, topic) in &mut self.topics {
            let Some(known) = other.topics.get(name).filter(|known| known.id == topic.id) else { continue };
            for (partition, known) in topic.partitions.iter_mut().zip(&known.partitions) {
                partition.leadership = partition.leadership.max(known.leadership);
            }
        }
    }

    fn from_answer(answer: pb::ClusterMap) -> Self {
        let nodes = answer.nodes.into_iter().map(|node| {
            let view =
                NodeView { address: node.address, reachable: node.reachable, metadata_voter: node.metadata_voter };
            (NodeId::new(node.node_id), view)
        });
        let topics = answer.topics.into_iter().map(|topic| {
            let view = TopicView {
                id: TopicId::new(topic.topic_id),
                partitions: partitions_by_number(topic.partitions),
                max_message_bytes: topic.max_message_bytes,
            };
            (topic.name, view)
        });
        Self {
            cluster: answer.cluster,
            version: answer.version,
            nodes: nodes.collect(),
            topics: topics.collect(),
            metadata_leader: known_node(answer.metadata_leader_node_id),
            answered_by: known_node(answer.node_id),
        }
    }
}

/// Partitions are numbered without holes; a map that says otherwise ends at the first hole.
fn partitions_by_number(mut placements: Vec<pb::PartitionPlacement>) -> Vec<PartitionView> {
    placements.sort_by_key(|placement| placement.partition);
    let numbered = (0u32..).zip(placements).take_while(|(number, placement)| *number == placement.partition);
    numbered
        .map(|(_, placement)| PartitionView {
            replicas: placement.replica_node_ids.into_iter().map(NodeId::new).collect(),
            leadership: Leadership { term: placement.leader_term, node: known_node(placement.leader_node_id) },
        })
        .collect()
}

/// On the wire 0 says: unknown.
fn known_node(id: u64) -> Option<NodeId> {
    (id != 0).then(|| NodeId::new(id))
}

impl LeaderHint {
    /// Reads the facts of a `NOT_LEADER` error; `None` if it names no leader.
    pub(crate) fn from_metadata(metadata: &BTreeMap<String, String>) -> Option<Self> {
        let number = |name: &str| metadata.get(name).and_then(|value| value.parse::<u64>().ok());
        let node = known_node(number("leader_node_id")?)?;
        let term = number("term").unwrap_or_default();
        let address = metadata.get("address").filter(|address| !address.is_empty()).cloned();
        Some(Self { leadership: Leadership { term, node: Some(node) }, address })
    }
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;

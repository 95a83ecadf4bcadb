//! What every node and every client may know about the cluster. Replaced whole, never patched.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::ids::{GroupId, NodeId, PartitionId, ReplicaId, SubscriptionId, TopicId};
use crate::limits::CHECKPOINT_BYTES_MAX;
use crate::meta::{NodeInfo, PartitionState, SubscriptionInfo, Tombstones, TopicState};
use crate::names::{SubscriptionName, TopicName};

const VERSION: u8 = 3;

/// The cluster at one version. Made by [`ClusterMap::new`] or [`ClusterMap::decode`], and not changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterMap {
    /// Of two maps, the one with the higher version is the newer.
    pub version: u64,
    /// The nodes.
    pub nodes: BTreeMap<NodeId, NodeInfo>,
    /// The topics.
    pub topics: BTreeMap<TopicName, Arc<TopicState>>,
    /// The subscriptions.
    pub subscriptions: BTreeMap<SubscriptionName, Arc<SubscriptionInfo>>,
    /// Groups whose data is to be removed.
    pub tombstones: Tombstones,
    /// The id that the next subscription will get.
    pub next_subscription: SubscriptionId,
    by_id: BTreeMap<TopicId, Arc<TopicState>>,
    by_group: BTreeMap<GroupId, PartitionId>,
    subscriptions_by_id: BTreeMap<SubscriptionId, Arc<SubscriptionInfo>>,
    subscriptions_by_topic: BTreeMap<TopicId, Vec<Arc<SubscriptionInfo>>>,
}

/// A replica that a node should hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalReplica<'a> {
    /// The partition.
    pub partition: PartitionId,
    /// The replica on the node in question.
    pub replica: ReplicaId,
    /// Its group and all its replicas.
    pub state: &'a PartitionState,
}

/// The map as it travels: without what can be computed from the rest.
#[derive(Serialize, Deserialize)]
struct Encoded {
    version: u64,
    nodes: BTreeMap<NodeId, NodeInfo>,
    topics: BTreeMap<TopicName, Arc<TopicState>>,
    subscriptions: BTreeMap<SubscriptionName, Arc<SubscriptionInfo>>,
    tombstones: Tombstones,
    next_subscription: SubscriptionId,
}

impl ClusterMap {
    /// A map of these parts.
    pub fn new(
        version: u64,
        nodes: BTreeMap<NodeId, NodeInfo>,
        topics: BTreeMap<TopicName, Arc<TopicState>>,
        subscriptions: BTreeMap<SubscriptionName, Arc<SubscriptionInfo>>,
        tombstones: Tombstones,
        next_subscription: SubscriptionId,
    ) -> Self {
        let by_id = topics.values().map(|topic| (topic.id, Arc::clone(topic))).collect();
        let by_group = topics
            .values()
            .flat_map(|topic| topic.partition_ids())
            .map(|(partition, state)| (state.group, partition))
            .collect();
        let subscriptions_by_id = subscriptions.values().map(|it| (it.id, Arc::clone(it))).collect();
        let mut subscriptions_by_topic: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for subscription in subscriptions.values() {
            subscriptions_by_topic.entry(subscription.topic).or_default().push(Arc::clone(subscription));
        }
        Self {
            version,
            nodes,
            topics,
            subscriptions,
            tombstones,
            next_subscription,
            by_id,
            by_group,
            subscriptions_by_id,
            subscriptions_by_topic,
        }
    }

    /// The topic with this name.
    pub fn topic(&self, name: &str) -> Option<&Arc<TopicState>> {
        self.topics.get(name)
    }

    /// The topic with this id.
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<TopicState>> {
        self.by_id.get(&id)
    }

    /// The subscription with this name.
    pub fn subscription(&self, name: &str) -> Option<&Arc<SubscriptionInfo>> {
        self.subscriptions.get(name)
    }

    /// The subscription with this id.
    pub fn subscription_by_id(&self, id: SubscriptionId) -> Option<&Arc<SubscriptionInfo>> {
        self.subscriptions_by_id.get(&id)
    }

    /// Whether a subscription was made and has ended, as opposed to one that this map doesn't know yet.
    pub fn has_ended(&self, subscription: SubscriptionId) -> bool {
        subscription < self.next_subscription && !self.subscriptions_by_id.contains_key(&subscription)
    }

    /// The subscriptions of a topic, in the order of their names.
    pub fn subscriptions_of(&self, topic: TopicId) -> &[Arc<SubscriptionInfo>] {
        self.subscriptions_by_topic.get(&topic).map(Vec::as_slice).unwrap_or_default()
    }

    /// The group of a partition.
    pub fn group_of(&self, partition: PartitionId) -> Option<GroupId> {
        self.partition_state(partition).map(|state| state.group)
    }

    /// Group and replicas of a partition.
    pub fn partition_state(&self, partition: PartitionId) -> Option<&PartitionState> {
        self.topic_by_id(partition.topic)?.partition(partition.index)
    }

    /// The partition of a group, with its replicas.
    pub fn partition(&self, group: GroupId) -> Option<(PartitionId, &PartitionState)> {
        let partition = *self.by_group.get(&group)?;
        Some((partition, self.partition_state(partition)?))
    }

    /// All replicas that belong on a node.
    pub fn replicas_on(&self, node: NodeId) -> impl Iterator<Item = LocalReplica<'_>> {
        self.by_id.values().flat_map(|topic| topic.partition_ids()).filter_map(move |(partition, state)| {
            let replica = state.replica_on(node)?.id;
            Some(LocalReplica { partition, replica, state })
        })
    }

    /// The map as it travels between nodes.
    pub fn encode(&self) -> Bytes {
        let parts = Encoded {
            version: self.version,
            nodes: self.nodes.clone(),
            topics: self.topics.clone(),
            subscriptions: self.subscriptions.clone(),
            tombstones: self.tombstones.clone(),
            next_subscription: self.next_subscription,
        };
        codec::encode(VERSION, &parts)
    }

    /// Reads a map.
    pub fn decode(bytes: &Bytes) -> Result<ClusterMap, CodecError> {
        let Encoded { version, nodes, topics, subscriptions, tombstones, next_subscription } =
            codec::decode("cluster map", VERSION, CHECKPOINT_BYTES_MAX, bytes)?;
        Ok(ClusterMap::new(version, nodes, topics, subscriptions, tombstones, next_subscription))
    }
}

//! The metadata group: nodes, topics, subscriptions, and which node holds which replica of which partition.

mod cluster_map;
mod labels;
mod placement;
mod rejected;
mod requests;
mod ring;
mod subscription;
mod subscription_rejected;
mod subscriptions;
mod tombstones;
mod topic;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use cluster_map::{ClusterMap, LocalReplica};
pub use rejected::MetaRejected;
pub use ring::HashRing;
pub use subscription::{NewSubscription, SubscriptionChange, SubscriptionInfo};
pub use subscription_rejected::SubscriptionRejected;
pub use tombstones::Tombstones;
pub use topic::{NodeInfo, PartitionState, Replica, Retention, TopicState};

use self::requests::{Request, RequestKind, Requests};
use self::subscriptions::Subscriptions;
use crate::codec::{self, CodecError};
use crate::command::MetaCommand;
use crate::ids::{GroupId, NodeId, ReplicaId, SubscriptionId, TopicId};
use crate::limits::{
    ADDRESS_BYTES_MAX, CHECKPOINT_BYTES_MAX, CLUSTER_PARTITIONS_MAX, MESSAGE_BYTES_CAP, NODES_MAX, PARTITIONS_MAX,
    REPLICATION_FACTOR_DEFAULT, REPLICATION_FACTOR_MAX, TOPICS_MAX,
};
use crate::machine::{Applied, Effect};
use crate::names::TopicName;
use crate::reply::Reply;

const CHECKPOINT_VERSION: u8 = 3;

/// The answer to a metadata command that was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MetaReply {
    /// The node is in the map.
    NodeRegistered {
        /// Version of the map that holds it.
        version: u64,
    },
    /// The topic exists.
    TopicCreated {
        /// The topic.
        topic: Arc<TopicState>,
        /// It was made by an earlier attempt with the same request id.
        existing: bool,
    },
    /// The topic is changed.
    TopicUpdated {
        /// The topic as it is now.
        topic: Arc<TopicState>,
    },
    /// The topic is gone, and its subscriptions with it.
    TopicDeleted {
        /// Which one it was.
        topic: TopicId,
    },
    /// The subscription exists.
    SubscriptionCreated {
        /// The subscription.
        subscription: Arc<SubscriptionInfo>,
        /// It was made by an earlier attempt with the same request id.
        existing: bool,
    },
    /// The subscription is changed.
    SubscriptionUpdated {
        /// The subscription as it is now.
        subscription: Arc<SubscriptionInfo>,
    },
    /// The subscription is gone.
    SubscriptionDeleted {
        /// Which one it was.
        subscription: SubscriptionId,
        /// A version of the map that doesn't hold it any more.
        version: u64,
    },
}

/// The replicated state of the metadata group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetaMachine {
    /// Grows with every change that the cluster map shows.
    version: u64,
    nodes: BTreeMap<NodeId, NodeInfo>,
    topics: BTreeMap<TopicName, Arc<TopicState>>,
    tombstones: Tombstones,
    requests: Requests<TopicName, TopicId>,
    subscriptions: Subscriptions,
    next_topic: TopicId,
    next_group: GroupId,
    next_replica: ReplicaId,
}

impl Default for MetaMachine {
    fn default() -> Self {
        Self::new()
    }
}

impl MetaMachine {
    /// A cluster without nodes and topics.
    pub fn new() -> Self {
        Self {
            version: 0,
            nodes: BTreeMap::new(),
            topics: BTreeMap::new(),
            tombstones: Tombstones::default(),
            requests: Requests::default(),
            subscriptions: Subscriptions::default(),
            next_topic: TopicId::new(1),
            next_group: GroupId::FIRST_PARTITION,
            next_replica: ReplicaId::FIRST_ALLOCATED,
        }
    }

    /// Version of the cluster map.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What the rest of the cluster may know.
    pub fn cluster_map(&self) -> ClusterMap {
        ClusterMap::new(
            self.version,
            self.nodes.clone(),
            self.topics.clone(),
            self.subscriptions.by_name.clone(),
            self.tombstones.clone(),
            self.subscriptions.next,
        )
    }

    /// Applies a command; see [`crate::machine::Machine::apply`].
    pub fn apply(&mut self, command: MetaCommand) -> Applied {
        let before = self.version;
        let outcome = match command {
            MetaCommand::RegisterNode { node, client_address, peer_address, store_id } => {
                self.register_node(node, NodeInfo { client_address, peer_address, store_id })
            }
            MetaCommand::CreateTopic {
                time_ms,
                request_id,
                name,
                partitions,
                replication_factor,
                retention,
                max_message_bytes,
                labels,
            } => self.create_topic(NewTopic {
                time_ms,
                request_id,
                name,
                partitions,
                replication_factor,
                retention,
                max_message_bytes,
                labels,
            }),
            MetaCommand::UpdateTopic { request_id, name, etag, retention, max_message_bytes, labels } => {
                let change = Change { etag, retention, max_message_bytes, labels };
                self.update_topic(&request_id, &name, change)
            }
            MetaCommand::DeleteTopic { request_id, name } => self.delete_topic(&request_id, &name),
            MetaCommand::CreateSubscription(new) => self.create_subscription(new),
            MetaCommand::UpdateSubscription(change) => self.update_subscription(change),
            MetaCommand::DeleteSubscription { request_id, name } => self.delete_subscription(&request_id, &name),
        };
        let mut effects = Vec::new();
        if self.version > before {
            effects.push(Effect::MapChanged);
        }
        Applied { reply: Reply::Meta(outcome), changes: Vec::new(), effects }
    }

    /// The whole state as bytes.
    pub fn checkpoint(&self) -> Bytes {
        codec::encode(CHECKPOINT_VERSION, self)
    }

    /// The machine as it was when it gave this checkpoint.
    pub fn restore(checkpoint: &Bytes) -> Result<Self, CodecError> {
        codec::decode("metadata checkpoint", CHECKPOINT_VERSION, CHECKPOINT_BYTES_MAX, checkpoint)
    }

    fn register_node(&mut self, node: NodeId, info: NodeInfo) -> Result<MetaReply, MetaRejected> {
        if !node.is_valid() {
            return Err(MetaRejected::NodeIdInvalid { node });
        }
        for (field, address) in [("client_address", &info.client_address), ("peer_address", &info.peer_address)] {
            if address.is_empty() || address.len() > ADDRESS_BYTES_MAX {
                return Err(MetaRejected::AddressLength { field: field.to_owned(), bytes: address.len() as u64 });
            }
        }
        match self.nodes.get(&node) {
            Some(registered) if registered.store_id != info.store_id => {
                return Err(MetaRejected::StoreMismatch {
                    node,
                    registered: registered.store_id,
                    presented: info.store_id,
                });
            }
            None if self.nodes.len() >= NODES_MAX => {
                return Err(MetaRejected::TooManyNodes { limit: NODES_MAX as u64 });
            }
            Some(registered) if *registered == info => {}
            _ => {
                self.nodes.insert(node, info);
                self.version += 1;
            }
        }
        Ok(MetaReply::NodeRegistered { version: self.version })
    }

    fn create_topic(&mut self, new: NewTopic) -> Result<MetaReply, MetaRejected> {
        let request = Request::new(RequestKind::Create, &new.name, &new.request_id)?;
        if let Some(made) = self.requests.subject(&request) {
            let topic = self.still_there(&new.name, made)?;
            return Ok(MetaReply::TopicCreated { topic: Arc::clone(topic), existing: true });
        }
        if self.topics.contains_key(&new.name) {
            return Err(MetaRejected::TopicExists { name: new.name });
        }
        new.check()?;
        let replication_factor = self.replication_factor(new.replication_factor)?;
        self.check_room(new.partitions)?;

        let id = self.next_topic;
        self.next_topic = TopicId::new(id.get() + 1);
        let placed = placement::place(&self.nodes, &self.topics, id, new.partitions, replication_factor);
        let partitions = placed.into_iter().map(|nodes| self.allocate_partition(nodes)).collect();
        self.version += 1;
        let topic = Arc::new(TopicState {
            id,
            name: new.name.clone(),
            partitions,
            replication_factor,
            retention: new.retention,
            max_message_bytes: new.max_message_bytes,
            labels: new.labels,
            etag: self.version,
            created_ms: new.time_ms,
        });
        self.requests.remember(request, id);
        self.topics.insert(new.name, Arc::clone(&topic));
        Ok(MetaReply::TopicCreated { topic, existing: false })
    }

    fn update_topic(&mut self, request_id: &str, name: &TopicName, change: Change) -> Result<MetaReply, MetaRejected> {
        let request = Request::new(RequestKind::Update, name, request_id)?;
        if let Some(changed) = self.requests.subject(&request) {
            let topic = self.still_there(name, changed)?;
            return Ok(MetaReply::TopicUpdated { topic: Arc::clone(topic) });
        }
        let Change { etag, retention, max_message_bytes, labels } = change;
        let Some(topic) = self.topics.get_mut(name) else {
            return Err(MetaRejected::TopicNotFound { name: name.clone() });
        };
        if let Some(presented) = etag.filter(|presented| *presented != topic.etag) {
            return Err(MetaRejected::EtagMismatch { name: name.clone(), current: topic.etag, presented });
        }
        if let Some(bytes) = max_message_bytes {
            check_max_message_bytes(bytes)?;
        }
        if let Some(labels) = &labels {
            labels::check(labels)?;
        }
        let mut changed = TopicState::clone(topic);
        changed.retention = retention.unwrap_or(changed.retention);
        changed.max_message_bytes = max_message_bytes.unwrap_or(changed.max_message_bytes);
        changed.labels = labels.unwrap_or(changed.labels);
        // An update that changes nothing leaves the etag alone, so that repeating one is harmless.
        if changed != **topic {
            self.version += 1;
            changed.etag = self.version;
            *topic = Arc::new(changed);
        }
        self.requests.remember(request, topic.id);
        Ok(MetaReply::TopicUpdated { topic: Arc::clone(topic) })
    }

    fn delete_topic(&mut self, request_id: &str, name: &TopicName) -> Result<MetaReply, MetaRejected> {
        let request = Request::new(RequestKind::Delete, name, request_id)?;
        if let Some(topic) = self.requests.subject(&request) {
            return Ok(MetaReply::TopicDeleted { topic });
        }
        let Some(topic) = self.topics.get(name).map(Arc::clone) else {
            return Err(MetaRejected::TopicNotFound { name: name.clone() });
        };
        if let Some(user) = self.subscriptions.with_dead_letters_to(topic.id) {
            return Err(MetaRejected::TopicInUse { name: name.clone(), subscription: user.name.clone() });
        }
        self.topics.remove(name);
        self.subscriptions.remove_of(topic.id);
        for partition in &topic.partitions {
            self.tombstones.insert(partition.group);
        }
        self.version += 1;
        self.requests.remember(request, topic.id);
        Ok(MetaReply::TopicDeleted { topic: topic.id })
    }

    /// The topic that an earlier attempt of a request was about, unless it was deleted since.
    fn still_there(&self, name: &TopicName, topic: TopicId) -> Result<&Arc<TopicState>, MetaRejected> {
        let of_name = self.topics.get(name).filter(|present| present.id == topic);
        of_name.ok_or_else(|| MetaRejected::TopicGone { name: name.clone(), topic })
    }

    fn replication_factor(&self, asked: Option<u32>) -> Result<u32, MetaRejected> {
        let nodes = u32::try_from(self.nodes.len()).expect("the number of nodes is bounded");
        let factor = match asked {
            Some(0) => return Err(MetaRejected::ReplicationFactorZero),
            Some(factor) => factor,
            None if nodes >= REPLICATION_FACTOR_DEFAULT => REPLICATION_FACTOR_DEFAULT,
            None => 1,
        };
        if factor > nodes {
            return Err(MetaRejected::ReplicationFactorAboveNodes { asked: factor, nodes });
        }
        if factor > REPLICATION_FACTOR_MAX {
            return Err(MetaRejected::ReplicationFactorAboveLimit { asked: factor });
        }
        Ok(factor)
    }

    fn check_room(&self, partitions: u32) -> Result<(), MetaRejected> {
        if self.topics.len() >= TOPICS_MAX {
            return Err(MetaRejected::TooManyTopics { limit: TOPICS_MAX as u64 });
        }
        let existing: usize = self.topics.values().map(|t| t.partitions.len()).sum();
        if existing + partitions as usize > CLUSTER_PARTITIONS_MAX {
            return Err(MetaRejected::ClusterPartitionsFull { existing: existing as u64, asked: partitions });
        }
        Ok(())
    }

    fn allocate_partition(&mut self, nodes: Vec<NodeId>) -> PartitionState {
        let group = self.next_group;
        self.next_group = GroupId::new(group.get() + 1);
        let replicas = nodes
            .into_iter()
            .map(|node| {
                let id = self.next_replica;
                self.next_replica = ReplicaId::new(id.get() + 1);
                Replica { id, node }
            })
            .collect();
        PartitionState { group, replicas }
    }
}

/// The fields of [`MetaCommand::UpdateTopic`] that say what is to change.
struct Change {
    etag: Option<u64>,
    retention: Option<Retention>,
    max_message_bytes: Option<u64>,
    labels: Option<BTreeMap<String, String>>,
}

/// The fields of [`MetaCommand::CreateTopic`].
struct NewTopic {
    time_ms: u64,
    request_id: String,
    name: TopicName,
    partitions: u32,
    replication_factor: Option<u32>,
    retention: Retention,
    max_message_bytes: u64,
    labels: BTreeMap<String, String>,
}

impl NewTopic {
    /// What can be judged without looking at the cluster.
    fn check(&self) -> Result<(), MetaRejected> {
        if self.partitions == 0 {
            return Err(MetaRejected::NoPartitions);
        }
        if self.partitions > PARTITIONS_MAX {
            return Err(MetaRejected::TooManyPartitions { asked: self.partitions });
        }
        check_max_message_bytes(self.max_message_bytes)?;
        labels::check(&self.labels)
    }
}

fn check_max_message_bytes(bytes: u64) -> Result<(), MetaRejected> {
    if bytes == 0 || bytes > MESSAGE_BYTES_CAP {
        return Err(MetaRejected::MaxMessageBytes { asked: bytes });
    }
    Ok(())
}

//! Why a metadata command wasn't carried out. A rejected command changes nothing.

use serde::{Deserialize, Serialize};

use super::SubscriptionRejected;
use crate::ids::{NodeId, TopicId};
use crate::limits::{
    ADDRESS_BYTES_MAX, CLUSTER_PARTITIONS_MAX, LABEL_BYTES_MAX, LABELS_MAX, MESSAGE_BYTES_CAP, PARTITIONS_MAX,
    REPLICATION_FACTOR_MAX, REQUEST_ID_BYTES_MAX,
};
use crate::names::{SubscriptionName, TopicName};
use crate::reason::Reason;

/// One fact for each way in which a metadata command can be refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum MetaRejected {
    /// The name is taken.
    #[error("topic {name} exists already")]
    TopicExists {
        /// The name.
        name: TopicName,
    },
    /// No such topic.
    #[error("topic {name} does not exist")]
    TopicNotFound {
        /// The name.
        name: TopicName,
    },
    /// Somebody else changed the topic in between.
    #[error("topic {name} has etag {current}, the update was made for {presented}")]
    EtagMismatch {
        /// The topic.
        name: TopicName,
        /// The current etag.
        current: u64,
        /// The etag of the update.
        presented: u64,
    },
    /// A topic without partitions.
    #[error("partitions is 0; a topic has 1 to {PARTITIONS_MAX}")]
    NoPartitions,
    /// Too many partitions for one topic.
    #[error("partitions is {asked}, the limit is {PARTITIONS_MAX}")]
    TooManyPartitions {
        /// Number asked for.
        asked: u32,
    },
    /// Too many partitions for the cluster.
    #[error("partitions is {asked}; the cluster has {existing}, the limit is {CLUSTER_PARTITIONS_MAX} in all")]
    ClusterPartitionsFull {
        /// Partitions of all topics.
        existing: u64,
        /// Number asked for.
        asked: u32,
    },
    /// Too many topics.
    #[error("the cluster has {limit} topics, which is the limit")]
    TooManyTopics {
        /// Number allowed.
        limit: u64,
    },
    /// No replicas.
    #[error("replication_factor is 0; a partition has 1 to {REPLICATION_FACTOR_MAX} replicas")]
    ReplicationFactorZero,
    /// More replicas than nodes.
    #[error("replication_factor is {asked}, and the cluster has {nodes} nodes")]
    ReplicationFactorAboveNodes {
        /// Number asked for.
        asked: u32,
        /// Nodes there are.
        nodes: u32,
    },
    /// More replicas than make sense.
    #[error("replication_factor is {asked}, the limit is {REPLICATION_FACTOR_MAX}")]
    ReplicationFactorAboveLimit {
        /// Number asked for.
        asked: u32,
    },
    /// A limit on messages that can't be.
    #[error("max_message_bytes is {asked}; it may be 1 to {MESSAGE_BYTES_CAP}")]
    MaxMessageBytes {
        /// Limit asked for.
        asked: u64,
    },
    /// Too many labels.
    #[error("labels has {count} entries, the limit is {LABELS_MAX}")]
    TooManyLabels {
        /// Number given.
        count: u64,
    },
    /// A label that is too long or without a key.
    #[error(
        "labels has a key of {key_bytes} bytes with a value of {value_bytes}; \
         a key needs 1 to {LABEL_BYTES_MAX}, a value at most as many"
    )]
    LabelLength {
        /// Length of the key.
        key_bytes: u64,
        /// Length of the value.
        value_bytes: u64,
    },
    /// The request id is too long.
    #[error("request_id has {bytes} bytes, the limit is {REQUEST_ID_BYTES_MAX}")]
    RequestIdTooLong {
        /// Length given.
        bytes: u64,
    },
    /// A node id outside its range.
    #[error("node id is {node}; it may be {} to {}", NodeId::MIN, NodeId::MAX)]
    NodeIdInvalid {
        /// The id given.
        node: NodeId,
    },
    /// An address that is empty or too long.
    #[error("{field} has {bytes} bytes; it needs 1 to {ADDRESS_BYTES_MAX}")]
    AddressLength {
        /// Which address.
        field: String,
        /// Length given.
        bytes: u64,
    },
    /// The node comes with another data folder than before.
    #[error("node {node} joined with the data folder {registered:016x} and presents {presented:016x}")]
    StoreMismatch {
        /// The node.
        node: NodeId,
        /// The folder with which it joined.
        registered: u64,
        /// The folder with which it comes.
        presented: u64,
    },
    /// Too many nodes.
    #[error("the cluster has {limit} nodes, which is the limit")]
    TooManyNodes {
        /// Number allowed.
        limit: u64,
    },
    /// The request was carried out before, and what it was about was deleted since.
    #[error("topic {name} with id {topic}, which this request was about, was deleted since")]
    TopicGone {
        /// The name.
        name: TopicName,
        /// The id.
        topic: TopicId,
    },
    /// Dead letters go to the topic.
    #[error("topic {name} can't be deleted: subscription {subscription} sends its dead letters there")]
    TopicInUse {
        /// The topic.
        name: TopicName,
        /// One of the subscriptions that do.
        subscription: SubscriptionName,
    },
    /// A command about a subscription.
    #[error(transparent)]
    Subscription(#[from] SubscriptionRejected),
}

impl MetaRejected {
    /// The entry of the error table.
    pub fn reason(&self) -> Reason {
        match self {
            MetaRejected::TopicExists { .. } => Reason::TopicExists,
            MetaRejected::TopicNotFound { .. } | MetaRejected::TopicGone { .. } => Reason::TopicNotFound,
            MetaRejected::EtagMismatch { .. } => Reason::EtagMismatch,
            MetaRejected::TooManyPartitions { .. } | MetaRejected::ClusterPartitionsFull { .. } => {
                Reason::TooManyPartitions
            }
            MetaRejected::TooManyTopics { .. } => Reason::TooManyTopics,
            MetaRejected::ReplicationFactorAboveNodes { .. } => Reason::ReplicationFactorTooHigh,
            MetaRejected::StoreMismatch { .. } => Reason::StoreMismatch,
            MetaRejected::TooManyNodes { .. } => Reason::TooManyNodes,
            MetaRejected::TopicInUse { .. } => Reason::TopicInUse,
            MetaRejected::Subscription(rejected) => rejected.reason(),
            MetaRejected::NoPartitions
            | MetaRejected::ReplicationFactorZero
            | MetaRejected::ReplicationFactorAboveLimit { .. }
            | MetaRejected::MaxMessageBytes { .. }
            | MetaRejected::TooManyLabels { .. }
            | MetaRejected::LabelLength { .. }
            | MetaRejected::RequestIdTooLong { .. }
            | MetaRejected::NodeIdInvalid { .. }
            | MetaRejected::AddressLength { .. } => Reason::InvalidArgument,
        }
    }

    /// Facts for a program: the field, and the value and limit where there is one.
    pub fn metadata(&self) -> Vec<(&'static str, String)> {
        let bounded = |field: &str, value: u64, limit: u64| {
            vec![("field", field.to_owned()), ("value", value.to_string()), ("limit", limit.to_string())]
        };
        match self {
            MetaRejected::TopicExists { name }
            | MetaRejected::TopicNotFound { name }
            | MetaRejected::TopicGone { name, .. } => vec![("topic", name.to_string())],
            MetaRejected::EtagMismatch { name, current, presented } => vec![
                ("topic", name.to_string()),
                ("current_etag", current.to_string()),
                ("etag", presented.to_string()),
            ],
            MetaRejected::NoPartitions => bounded("partitions", 0, PARTITIONS_MAX.into()),
            MetaRejected::TooManyPartitions { asked } => bounded("partitions", (*asked).into(), PARTITIONS_MAX.into()),
            MetaRejected::ClusterPartitionsFull { existing, asked } => {
                bounded("partitions", u64::from(*asked), (CLUSTER_PARTITIONS_MAX as u64).saturating_sub(*existing))
            }
            MetaRejected::TooManyTopics { limit } => bounded("topics", *limit, *limit),
            MetaRejected::ReplicationFactorZero => bounded("replication_factor", 0, REPLICATION_FACTOR_MAX.into()),
            MetaRejected::ReplicationFactorAboveNodes { asked, nodes } => {
                bounded("replication_factor", (*asked).into(), (*nodes).into())
            }
            MetaRejected::ReplicationFactorAboveLimit { asked } => {
                bounded("replication_factor", (*asked).into(), REPLICATION_FACTOR_MAX.into())
            }
            MetaRejected::MaxMessageBytes { asked } => bounded("max_message_bytes", *asked, MESSAGE_BYTES_CAP),
            MetaRejected::TooManyLabels { count } => bounded("labels", *count, LABELS_MAX as u64),
            MetaRejected::LabelLength { key_bytes, value_bytes } => {
                bounded("labels", *key_bytes.max(value_bytes), LABEL_BYTES_MAX as u64)
            }
            MetaRejected::RequestIdTooLong { bytes } => bounded("request_id", *bytes, REQUEST_ID_BYTES_MAX as u64),
            MetaRejected::NodeIdInvalid { node } => bounded("node_id", node.get(), NodeId::MAX.get()),
            MetaRejected::AddressLength { field, bytes } => bounded(field, *bytes, ADDRESS_BYTES_MAX as u64),
            MetaRejected::StoreMismatch { node, registered, presented } => vec![
                ("node", node.to_string()),
                ("registered", format!("{registered:016x}")),
                ("presented", format!("{presented:016x}")),
            ],
            MetaRejected::TooManyNodes { limit } => bounded("nodes", *limit, *limit),
            MetaRejected::TopicInUse { name, subscription } => {
                vec![("topic", name.to_string()), ("subscription", subscription.to_string())]
            }
            MetaRejected::Subscription(rejected) => rejected.metadata(),
        }
    }
}

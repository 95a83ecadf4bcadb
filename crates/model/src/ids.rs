//! Numbers with a meaning. Each is a copyable newtype, so that a replica id can never be passed where
//! a node id belongs; none has arithmetic beyond what its meaning allows.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Gives the number its meaning.
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// The bare number, for encodings and for the wire.
            pub const fn get(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// A broker process and its data folder. Chosen by the operator, from [`NodeId::MIN`] to [`NodeId::MAX`].
    NodeId
}

id! {
    /// One copy of one group. Never reused, not even for the same group on the same node: a replica that
    /// lost its disk must not vote again under the id whose promises it has forgotten.
    ReplicaId
}

id! {
    /// A Raft group: [`GroupId::METADATA`], or one partition.
    GroupId
}

id! {
    /// A topic for all time. A topic recreated under the same name gets a new id. Zero is no topic.
    TopicId
}

id! {
    /// An idempotent producer, chosen by the client at random. Zero is no producer.
    ProducerId
}

id! {
    /// A subscription for all time. One recreated under the same name gets a new id. Zero is no subscription.
    SubscriptionId
}

id! {
    /// Position of a record in its partition. Strictly increasing, never reused.
    Offset
}

impl NodeId {
    /// Smallest valid node id.
    pub const MIN: NodeId = NodeId(1);
    /// Largest valid node id. Above it begin the allocated replica ids.
    pub const MAX: NodeId = NodeId(65_535);

    /// Whether an operator may choose this id.
    pub fn is_valid(self) -> bool {
        (Self::MIN..=Self::MAX).contains(&self)
    }
}

impl ReplicaId {
    /// The first id that the metadata group allocates. The metadata group can't allocate ids for its own
    /// first voters; those are [`ReplicaId::of_metadata_voter`], and the ranges don't meet.
    pub const FIRST_ALLOCATED: ReplicaId = ReplicaId(65_536);

    /// The replica id of a first voter of the metadata group: its node's number.
    pub const fn of_metadata_voter(node: NodeId) -> ReplicaId {
        ReplicaId(node.get())
    }
}

impl GroupId {
    /// The group that holds nodes, topics, subscriptions and placement.
    pub const METADATA: GroupId = GroupId(0);
    /// The first partition group.
    pub const FIRST_PARTITION: GroupId = GroupId(1);
}

impl Offset {
    /// The first offset of every partition.
    pub const ZERO: Offset = Offset(0);

    /// The offset after this one.
    ///
    /// # Panics
    /// At the end of the number line, which a partition that takes a million records a second reaches
    /// after half a million years.
    #[must_use]
    pub fn next(self) -> Offset {
        self.checked_add(1).expect("offsets are never exhausted")
    }

    /// The offset `records` further on, if there is one.
    #[must_use]
    pub fn checked_add(self, records: u64) -> Option<Offset> {
        self.0.checked_add(records).map(Offset)
    }

    /// How many records lie in `earlier..self`; `None` when `earlier` is in fact later.
    pub fn checked_since(self, earlier: Offset) -> Option<u64> {
        self.0.checked_sub(earlier.0)
    }
}

/// A partition of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartitionId {
    /// The topic.
    pub topic: TopicId,
    /// Which of the topic's partitions, from zero.
    pub index: u32,
}

impl PartitionId {
    /// Names a partition.
    pub const fn new(topic: TopicId, index: u32) -> Self {
        Self { topic, index }
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.index)
    }
}

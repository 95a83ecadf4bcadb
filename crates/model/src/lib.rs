//! What the broker is: ids, records, commands and the two replicated state machines.
//!
//! Everything here is a synchronous function on plain data. The crate performs no IO, reads no clock,
//! draws no random number and never depends on the iteration order of a hash map, so that every
//! replica that applies the same commands reaches the same state, byte for byte. Time arrives inside
//! the command, stamped by the leader; whatever must happen outside leaves as a returned value.
//!
//! It is *not* the place for storage keys (`quorate-storage`), for agreement (`quorate-consensus`) or
//! for the wire (`quorate-proto`).
//!
//! | module | what it holds |
//! |---|---|
//! | [`ids`] | numbers with a meaning: nodes, replicas, groups, topics, subscriptions, offsets |
//! | [`names`] | names of topics and subscriptions, validated once, at the edge |
//! | [`limits`] | every bound, by name |
//! | [`record`] | one message as it stands in the log |
//! | [`batch`] | the record batch: stored, replicated and delivered as the same bytes |
//! | [`policy`] | retries and dead letters |
//! | [`partitioner`] | ordering key → partition |
//! | [`message_id`] | the opaque id from which the broker finds a message again |
//! | [`ack_id`] | the opaque id of one delivery |
//! | [`codec`] | the one file that knows how commands, replies and checkpoints become bytes |
//! | [`command`], [`reply`] | what is proposed, and what proposing it answers |
//! | [`machine`] | the machine that consensus replicates: a partition or the metadata |
//! | [`partition`] | appends, idempotent producers, the offset index, subscriptions and their deliveries |
//! | [`meta`] | nodes, topics, subscriptions, placement on a hash ring, the cluster map |
//! | [`reason`] | the one table of errors that a caller can see |
//! | [`sabotage`] | planted bugs, in builds that must be caught |

pub mod ack_id;
pub mod batch;
pub mod codec;
pub mod command;
pub mod ids;
pub mod limits;
pub mod machine;
pub mod message_id;
pub mod meta;
pub mod names;
mod opaque;
pub mod partition;
pub mod partitioner;
pub mod policy;
pub mod reason;
pub mod record;
pub mod reply;
pub mod sabotage;

mod varint;

pub use ack_id::AckId;
pub use batch::{BatchError, BatchHeader, Codec, ProducerStamp, RecordBatch, RecordBatchBuilder};
pub use codec::CodecError;
pub use command::{Command, MetaCommand, PartitionCommand};
pub use ids::{GroupId, NodeId, Offset, PartitionId, ProducerId, ReplicaId, SubscriptionId, TopicId};
pub use machine::{Applied, Change, Effect, Machine, MachineKind};
pub use message_id::MessageId;
pub use meta::{
    ClusterMap, MetaMachine, MetaRejected, MetaReply, NewSubscription, NodeInfo, PartitionState, Replica, Retention,
    SubscriptionChange, SubscriptionInfo, SubscriptionRejected, TopicState,
};
pub use names::{NameError, SubscriptionName, TopicName};
pub use opaque::OpaqueIdError;
pub use partition::{
    AppendRejected, Appended, Deleted, DeletionRejected, IndexSegment, PartitionMachine, Retained, Stretch, Stretches,
};
pub use partitioner::partition_for_key;
pub use policy::{DeadLetterPolicy, PolicyError, RetryPolicy};
pub use reason::{Executed, Reason, RetryAdvice};
pub use record::{DeliveryOptions, Record, RecordError};
pub use reply::Reply;

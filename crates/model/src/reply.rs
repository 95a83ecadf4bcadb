//! What proposing a command answers. Replies travel between nodes when a proposal was forwarded.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::ids::Offset;
use crate::limits::REPLY_BYTES_MAX;
use crate::meta::{MetaRejected, MetaReply};
use crate::partition::subscription::{SubscriptionChanged, SubscriptionRejected};
use crate::partition::{AppendRejected, Appended, DeletionRejected};

const VERSION: u8 = 2;

/// The answer of a machine to one command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// A partition's answer.
    Partition(Result<Appended, AppendRejected>),
    /// The metadata group's answer.
    Meta(Result<MetaReply, MetaRejected>),
    /// The machine couldn't read the command, or it was meant for another kind of machine. Nothing was
    /// changed. It takes a mistake in the program, or a version that is too old, to see this.
    Refused(String),
    /// A partition's answer to a command of retention: the oldest offset that is kept now.
    LogStart(Offset),
    /// A partition's answer to a command about a subscription.
    Subscription(Result<SubscriptionChanged, SubscriptionRejected>),
    /// A partition's answer to a seek: where the subscription stands now. Nothing before it is delivered.
    Seeked(Offset),
    /// A partition's answer to [`PartitionCommand::Release`](crate::PartitionCommand::Release): up to when, now.
    Released(u64),
    /// A partition's answer to a deletion: how many messages were deleted that weren't before.
    Deleted(Result<u64, DeletionRejected>),
}

impl Reply {
    /// The reply as it travels.
    pub fn encode(&self) -> Bytes {
        codec::encode(VERSION, self)
    }

    /// Reads a reply.
    pub fn decode(bytes: &Bytes) -> Result<Reply, CodecError> {
        codec::decode("reply", VERSION, REPLY_BYTES_MAX, bytes)
    }
}

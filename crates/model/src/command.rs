//! What is proposed to a group. The first byte of every command is its tag; tags are never reused.
//!
//! | tag | command |
//! |---|---|
//! | 1 | [`PartitionCommand::Append`]: time in ms, `u64` little-endian, then the record batch as it is |
//! | 2 | [`PartitionCommand::TrimTo`]: offset, `u64` little-endian |
//! | 3 | [`PartitionCommand::Mark`]: nothing more |
//! | 128 | [`MetaCommand`] in the first version of its encoding |
//!
//! Partition commands have tags below 128, metadata commands have the others.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::ids::{NodeId, Offset};
use crate::limits::{BATCH_BYTES_MAX, META_COMMAND_BYTES_MAX};
use crate::meta::{NewSubscription, Retention, SubscriptionChange};
use crate::names::{SubscriptionName, TopicName};

const TAG_APPEND: u8 = 1;
const TAG_TRIM_TO: u8 = 2;
const TAG_MARK: u8 = 3;
const TAG_META: u8 = 128;

/// Bytes in front of the batch in an encoded [`PartitionCommand::Append`].
pub const APPEND_PREFIX_BYTES: usize = 9;
/// Bytes of an encoded [`PartitionCommand::TrimTo`].
const TRIM_TO_BYTES: usize = 9;

/// Any command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// For a partition's group.
    Partition(PartitionCommand),
    /// For the metadata group.
    Meta(MetaCommand),
}

/// A command for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartitionCommand {
    /// Append a record batch.
    Append {
        /// The leader's wall clock when it proposed the command.
        time_ms: u64,
        /// The batch, checked at the front door.
        batch: Bytes,
    },
    /// Remove the stretches of the log that end at or before `offset`. The log start moves to the end of the last
    /// of them, on every replica alike; nothing happens if there is none.
    TrimTo {
        /// Records from here on are kept.
        offset: Offset,
    },
    /// End a stretch of the log: every replica keeps a checkpoint of its state here, and the log can be cut
    /// here later. Nothing happens if there are no records since the last mark.
    Mark,
}

/// A command for the metadata group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MetaCommand {
    /// A node says where it is. Repeated at every start.
    RegisterNode {
        /// The node.
        node: NodeId,
        /// Where clients reach it, as `host:port`.
        client_address: String,
        /// Where other nodes reach it, as `host:port`.
        peer_address: String,
        /// Identity of its data folder, drawn once: a node never comes back with another one.
        store_id: u64,
    },
    /// Create a topic and place its partitions.
    CreateTopic {
        /// The leader's wall clock when it proposed the command.
        time_ms: u64,
        /// Chosen by the caller; a repeated request with the same id is answered, and not carried out again.
        /// Empty: none.
        request_id: String,
        /// The topic's name.
        name: TopicName,
        /// Number of partitions.
        partitions: u32,
        /// Replicas of each partition; `None`: 3 where there are 3 nodes, else 1.
        replication_factor: Option<u32>,
        /// What may be removed from the head of the log.
        retention: Retention,
        /// Largest message.
        max_message_bytes: u64,
        /// Free text for people and programs.
        labels: BTreeMap<String, String>,
    },
    /// Change what can change about a topic. `None` leaves a field as it is.
    UpdateTopic {
        /// As in [`MetaCommand::CreateTopic`].
        request_id: String,
        /// The topic.
        name: TopicName,
        /// If given, the update fails unless it is the topic's current one.
        etag: Option<u64>,
        /// What may be removed from the head of the log.
        retention: Option<Retention>,
        /// Largest message.
        max_message_bytes: Option<u64>,
        /// All labels; replaces those there are.
        labels: Option<BTreeMap<String, String>>,
    },
    /// Delete a topic with its records and its subscriptions.
    DeleteTopic {
        /// As in [`MetaCommand::CreateTopic`].
        request_id: String,
        /// The topic.
        name: TopicName,
    },
    /// Create a subscription.
    CreateSubscription(NewSubscription),
    /// Change what can change about a subscription.
    UpdateSubscription(SubscriptionChange),
    /// Delete a subscription and what it knows of its messages.
    DeleteSubscription {
        /// As in [`MetaCommand::CreateTopic`].
        request_id: String,
        /// The subscription.
        name: SubscriptionName,
    },
}

impl Command {
    /// The command as it stands in the log.
    pub fn encode(&self) -> Bytes {
        match self {
            Command::Partition(command) => command.encode(),
            Command::Meta(command) => command.encode(),
        }
    }

    /// Reads a command of either kind, by its tag.
    pub fn decode(bytes: &Bytes) -> Result<Command, CodecError> {
        match bytes.first() {
            Some(&tag) if tag >= TAG_META => MetaCommand::decode(bytes).map(Command::Meta),
            _ => PartitionCommand::decode(bytes).map(Command::Partition),
        }
    }
}

impl PartitionCommand {
    /// The command as it stands in the log.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            PartitionCommand::Append { time_ms, batch } => {
                out.reserve(APPEND_PREFIX_BYTES + batch.len());
                out.put_u8(TAG_APPEND);
                out.put_u64_le(*time_ms);
                out.put_slice(batch);
            }
            PartitionCommand::TrimTo { offset } => {
                out.put_u8(TAG_TRIM_TO);
                out.put_u64_le(offset.get());
            }
            PartitionCommand::Mark => out.put_u8(TAG_MARK),
        }
        out.freeze()
    }

    /// The encoded command as if it had been proposed at `time_ms`: the clock that counts is the leader's, and another
    /// node's may have encoded it. An append is copied.
    #[must_use]
    pub fn proposed_at(encoded: Bytes, time_ms: u64) -> Bytes {
        match PartitionCommand::decode(&encoded) {
            Ok(PartitionCommand::Append { batch, .. }) => PartitionCommand::Append { time_ms, batch }.encode(),
            // The others bear no time, and what can't be read is refused when it is applied.
            _ => encoded,
        }
    }

    /// Reads a command. The batch is a slice of `bytes`, not a copy.
    pub fn decode(bytes: &Bytes) -> Result<PartitionCommand, CodecError> {
        const WHAT: &str = "partition command";
        let limit = APPEND_PREFIX_BYTES + BATCH_BYTES_MAX;
        if bytes.len() > limit {
            return Err(CodecError::TooLarge { what: WHAT, bytes: bytes.len(), limit });
        }
        let (command, length) = match bytes.first() {
            None => return Err(CodecError::Empty { what: WHAT }),
            Some(&TAG_APPEND) => {
                let time_ms = number_behind_tag(WHAT, bytes)?;
                return Ok(PartitionCommand::Append { time_ms, batch: bytes.slice(APPEND_PREFIX_BYTES..) });
            }
            Some(&TAG_TRIM_TO) => {
                let offset = Offset::new(number_behind_tag(WHAT, bytes)?);
                (PartitionCommand::TrimTo { offset }, TRIM_TO_BYTES)
            }
            Some(&TAG_MARK) => (PartitionCommand::Mark, 1),
            Some(&actual) => return Err(CodecError::Tag { what: WHAT, actual }),
        };
        match bytes.len() - length {
            0 => Ok(command),
            extra => Err(CodecError::Trailing { what: WHAT, extra }),
        }
    }
}

fn number_behind_tag(what: &'static str, bytes: &Bytes) -> Result<u64, CodecError> {
    let truncated = CodecError::Truncated { what, need: APPEND_PREFIX_BYTES, have: bytes.len() };
    let [_, number @ ..] = *bytes.first_chunk::<APPEND_PREFIX_BYTES>().ok_or(truncated)?;
    Ok(u64::from_le_bytes(number))
}

impl MetaCommand {
    /// The command as it stands in the log.
    pub fn encode(&self) -> Bytes {
        codec::encode(TAG_META, self)
    }

    /// Reads a command.
    pub fn decode(bytes: &Bytes) -> Result<MetaCommand, CodecError> {
        codec::decode("metadata command", TAG_META, META_COMMAND_BYTES_MAX, bytes)
    }
}

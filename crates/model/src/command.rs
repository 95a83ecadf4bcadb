//! What is proposed to a group. The first byte of every command is its tag; tags are never reused.
//!
//! | tag | command |
//! |---|---|
//! | 1 | [`PartitionCommand::Append`]: time in ms, `u64` little-endian, then the record batch as it is |
//! | 2 | [`PartitionCommand::TrimTo`]: offset, `u64` little-endian |
//! | 3 | [`PartitionCommand::Mark`]: nothing more |
//! | 4 | [`PartitionCommand::BeginSubscription`]: subscription and offset, `u64` little-endian each |
//! | 5 | [`PartitionCommand::EndSubscription`]: subscription, `u64` little-endian |
//! | 6 | [`PartitionCommand::Settle`]: a [`Settlement`] in the first version of its encoding |
//! | 7 | [`PartitionCommand::DeadLettersSent`]: subscription `u64` and number `u64`, little-endian |
//! | 8 | [`PartitionCommand::Seek`]: subscription, request and offset, `u64` little-endian each |
//! | 9 | [`PartitionCommand::Release`]: time in ms, `u64` little-endian |
//! | 10 | [`PartitionCommand::Delete`]: ranges of offsets in the first version of their encoding |
//! | 11 | [`PartitionCommand::Restore`]: subscription, request and [`Snapshot`] in the first version of their encoding |
//! | 128 | [`MetaCommand`] in the first version of its encoding, which isn't read any more |
//! | 129 | [`MetaCommand`] in the second version: subscriptions have filters |
//!
//! Partition commands have tags below 128, metadata commands have the others.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::ids::{NodeId, Offset, SubscriptionId};
use crate::limits::{BATCH_BYTES_MAX, DELETION_BYTES_MAX, META_COMMAND_BYTES_MAX, SETTLEMENT_BYTES_MAX};
use crate::meta::{NewSubscription, Retention, SubscriptionChange};
use crate::names::{SubscriptionName, TopicName};
use crate::partition::subscription::{Settlement, Snapshot};

const TAG_APPEND: u8 = 1;
const TAG_TRIM_TO: u8 = 2;
const TAG_MARK: u8 = 3;
const TAG_BEGIN_SUBSCRIPTION: u8 = 4;
const TAG_END_SUBSCRIPTION: u8 = 5;
const TAG_SETTLE: u8 = 6;
const TAG_DEAD_LETTERS_SENT: u8 = 7;
const TAG_SEEK: u8 = 8;
const TAG_RELEASE: u8 = 9;
const TAG_DELETE: u8 = 10;
const TAG_RESTORE: u8 = 11;
/// Metadata commands begin here, in whatever version.
const TAGS_META: u8 = 128;
const TAG_META: u8 = 129;

/// Bytes in front of the batch in an encoded [`PartitionCommand::Append`].
pub const APPEND_PREFIX_BYTES: usize = 9;
/// Bytes of an encoded [`PartitionCommand::TrimTo`] , [`PartitionCommand::EndSubscription`] or
/// [`PartitionCommand::Release`]: a tag and a number.
const NUMBER_BYTES: usize = 9;
/// Bytes of an encoded [`PartitionCommand::BeginSubscription`] or [`PartitionCommand::DeadLettersSent`]: a tag and two
/// numbers.
const TWO_NUMBERS_BYTES: usize = 17;
/// Bytes of an encoded [`PartitionCommand::Seek`]: a tag and three numbers.
const THREE_NUMBERS_BYTES: usize = 25;

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
    /// A subscription begins in this partition. Nothing happens if it has.
    BeginSubscription {
        /// The subscription.
        subscription: SubscriptionId,
        /// Records from here on are delivered.
        start: Offset,
    },
    /// A subscription was deleted: what it has settled is forgotten. Nothing happens if it isn't there.
    EndSubscription {
        /// The subscription.
        subscription: SubscriptionId,
    },
    /// What became of messages of a subscription.
    Settle(Settlement),
    /// Dead letters of a subscription are published: they are on disk on a quorum of the topic they go to.
    DeadLettersSent {
        /// The subscription.
        subscription: SubscriptionId,
        /// The number of the first that isn't.
        next: u32,
    },
    /// A subscription goes to another place: what lies before it is settled, and nothing behind it. A new generation
    /// begins. Nothing happens if the last seek of the subscription had the same request number.
    Seek {
        /// The subscription.
        subscription: SubscriptionId,
        /// By which a request that comes again is known.
        request: u64,
        /// Records from here on are delivered.
        to: Offset,
    },
    /// Delayed messages that are due may be delivered from now on, and whatever comes in later is due later.
    Release {
        /// The leader's clock.
        time_ms: u64,
    },
    /// A subscription goes back to where it stood once, as far as the log still reaches. Otherwise as
    /// [`PartitionCommand::Seek`].
    Restore {
        /// The subscription.
        subscription: SubscriptionId,
        /// As for a seek.
        request: u64,
        /// Where it stood, or another one of the same topic.
        snapshot: Snapshot,
    },
    /// Messages are deleted: nobody reads them any more. Of those that the log doesn't hold nothing happens.
    Delete {
        /// Their offsets.
        ranges: Vec<Range<Offset>>,
    },
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
            Some(&tag) if tag >= TAGS_META => MetaCommand::decode(bytes).map(Command::Meta),
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
            PartitionCommand::BeginSubscription { subscription, start } => {
                out.put_u8(TAG_BEGIN_SUBSCRIPTION);
                out.put_u64_le(subscription.get());
                out.put_u64_le(start.get());
            }
            PartitionCommand::EndSubscription { subscription } => {
                out.put_u8(TAG_END_SUBSCRIPTION);
                out.put_u64_le(subscription.get());
            }
            PartitionCommand::Settle(settlement) => return codec::encode(TAG_SETTLE, settlement),
            PartitionCommand::DeadLettersSent { subscription, next } => {
                out.put_u8(TAG_DEAD_LETTERS_SENT);
                out.put_u64_le(subscription.get());
                out.put_u64_le(u64::from(*next));
            }
            PartitionCommand::Seek { subscription, request, to } => {
                out.put_u8(TAG_SEEK);
                out.put_u64_le(subscription.get());
                out.put_u64_le(*request);
                out.put_u64_le(to.get());
            }
            PartitionCommand::Release { time_ms } => {
                out.put_u8(TAG_RELEASE);
                out.put_u64_le(*time_ms);
            }
            PartitionCommand::Delete { ranges } => return codec::encode(TAG_DELETE, ranges),
            PartitionCommand::Restore { subscription, request, snapshot } => {
                return codec::encode(TAG_RESTORE, &(subscription, request, snapshot));
            }
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
                let time_ms = number_at(WHAT, bytes, 1)?;
                return Ok(PartitionCommand::Append { time_ms, batch: bytes.slice(APPEND_PREFIX_BYTES..) });
            }
            Some(&TAG_TRIM_TO) => {
                let offset = Offset::new(number_at(WHAT, bytes, 1)?);
                (PartitionCommand::TrimTo { offset }, NUMBER_BYTES)
            }
            Some(&TAG_MARK) => (PartitionCommand::Mark, 1),
            Some(&TAG_BEGIN_SUBSCRIPTION) => {
                let subscription = SubscriptionId::new(number_at(WHAT, bytes, 1)?);
                let start = Offset::new(number_at(WHAT, bytes, NUMBER_BYTES)?);
                (PartitionCommand::BeginSubscription { subscription, start }, TWO_NUMBERS_BYTES)
            }
            Some(&TAG_END_SUBSCRIPTION) => {
                let subscription = SubscriptionId::new(number_at(WHAT, bytes, 1)?);
                (PartitionCommand::EndSubscription { subscription }, NUMBER_BYTES)
            }
            Some(&TAG_RELEASE) => (PartitionCommand::Release { time_ms: number_at(WHAT, bytes, 1)? }, NUMBER_BYTES),
            Some(&TAG_DEAD_LETTERS_SENT) => {
                let subscription = SubscriptionId::new(number_at(WHAT, bytes, 1)?);
                let next = number_at(WHAT, bytes, NUMBER_BYTES)?;
                let too_large =
                    |_| CodecError::Malformed { what: WHAT, detail: format!("no letter has number {next}") };
                let next = u32::try_from(next).map_err(too_large)?;
                (PartitionCommand::DeadLettersSent { subscription, next }, TWO_NUMBERS_BYTES)
            }
            Some(&TAG_SEEK) => {
                let subscription = SubscriptionId::new(number_at(WHAT, bytes, 1)?);
                let request = number_at(WHAT, bytes, NUMBER_BYTES)?;
                let to = Offset::new(number_at(WHAT, bytes, TWO_NUMBERS_BYTES)?);
                (PartitionCommand::Seek { subscription, request, to }, THREE_NUMBERS_BYTES)
            }
            Some(&TAG_SETTLE) => {
                let settlement = codec::decode("settlement", TAG_SETTLE, SETTLEMENT_BYTES_MAX, bytes)?;
                return Ok(PartitionCommand::Settle(settlement));
            }
            Some(&TAG_DELETE) => {
                let ranges = codec::decode("deletion", TAG_DELETE, DELETION_BYTES_MAX, bytes)?;
                return Ok(PartitionCommand::Delete { ranges });
            }
            Some(&TAG_RESTORE) => {
                let (subscription, request, snapshot) =
                    codec::decode("restore", TAG_RESTORE, SETTLEMENT_BYTES_MAX, bytes)?;
                return Ok(PartitionCommand::Restore { subscription, request, snapshot });
            }
            Some(&actual) => return Err(CodecError::Tag { what: WHAT, actual }),
        };
        match bytes.len() - length {
            0 => Ok(command),
            extra => Err(CodecError::Trailing { what: WHAT, extra }),
        }
    }
}

/// The number that begins at a byte of a command.
fn number_at(what: &'static str, bytes: &Bytes, at: usize) -> Result<u64, CodecError> {
    let number = bytes.get(at..).and_then(|rest| rest.first_chunk());
    let truncated = CodecError::Truncated { what, need: at + size_of::<u64>(), have: bytes.len() };
    number.map(|number| u64::from_le_bytes(*number)).ok_or(truncated)
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

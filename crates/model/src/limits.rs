//! Every bound of the model, by name. A queue, map or field without a line here is a mistake.
//!
//! Lengths of things held in memory are `usize`; sizes that a topic configures are `u64`.

/// Largest message (its data alone) that a topic accepts unless it says otherwise: 1 MiB.
pub const MESSAGE_BYTES_DEFAULT: u64 = 1 << 20;
/// Largest message that any topic can be made to accept: 16 MiB.
pub const MESSAGE_BYTES_CAP: u64 = 16 << 20;

/// Largest record batch, as it is stored and sent, and also before compression: one message at the cap
/// with the largest key and attributes fits.
pub const BATCH_BYTES_MAX: usize = 17 << 20;
/// Most records in one batch.
pub const BATCH_RECORDS_MAX: usize = 10_000;

/// Highest priority of a message.
pub const PRIORITY_MAX: u8 = 9;
/// Latest time that a message may name, in milliseconds since 1970: the end of the year 9999, as on the wire.
pub const TIME_MS_MAX: u64 = 253_402_300_799_999;

/// Most attributes of one message.
pub const ATTRIBUTES_MAX: usize = 100;
/// Longest attribute key.
pub const ATTRIBUTE_KEY_BYTES_MAX: usize = 256;
/// Longest attribute value.
pub const ATTRIBUTE_VALUE_BYTES_MAX: usize = 1_024;
/// Longest ordering key.
pub const ORDERING_KEY_BYTES_MAX: usize = 1_024;

/// Longest name of a topic or subscription.
pub const NAME_BYTES_MAX: usize = 249;

/// Most partitions of one topic.
pub const PARTITIONS_MAX: u32 = 1_000;
/// Most partitions of all topics together.
pub const CLUSTER_PARTITIONS_MAX: usize = 100_000;
/// Most topics.
pub const TOPICS_MAX: usize = 10_000;
/// Most nodes.
pub const NODES_MAX: usize = 1_000;
/// Longest address of a node, as `host:port`.
pub const ADDRESS_BYTES_MAX: usize = 261;
/// Replication factor of a topic that doesn't name one, where there are as many nodes; else 1.
pub const REPLICATION_FACTOR_DEFAULT: u32 = 3;
/// Most replicas of one partition.
pub const REPLICATION_FACTOR_MAX: u32 = 9;
/// Longest request id.
pub const REQUEST_ID_BYTES_MAX: usize = 128;
/// Requests that changed a topic and are recognised when they come again, and as many that changed a subscription.
pub const REQUESTS_REMEMBERED: usize = 10_000;
/// Most labels of one topic or subscription.
pub const LABELS_MAX: usize = 64;
/// Longest key or value of a label.
pub const LABEL_BYTES_MAX: usize = 63;
/// How long a topic keeps its records unless it says otherwise: 7 days.
pub const RETENTION_AGE_MS_DEFAULT: u64 = 7 * 24 * 60 * 60 * 1_000;

/// Most producers that one partition remembers. When one more appends, the one whose last append lies
/// furthest back is forgotten.
pub const PRODUCERS_PER_PARTITION_MAX: usize = 10_000;
/// How many of a producer's last batches a partition remembers: so many may be in flight at once and
/// still be retried safely.
pub const PRODUCER_WINDOW_BATCHES: usize = 8;

/// Most subscriptions of all topics together.
pub const SUBSCRIPTIONS_MAX: usize = 10_000;
/// Most subscriptions of one topic.
pub const SUBSCRIPTIONS_PER_TOPIC_MAX: usize = 1_000;
/// Longest filter of a subscription.
pub const FILTER_BYTES_MAX: usize = 1_024;
/// Most bytes of all subscriptions together. Names, labels, filters and the offsets where each begins are what they consist of:
/// 10,000 with 1,000 partitions each wouldn't fit a checkpoint.
pub const SUBSCRIPTIONS_BYTES_MAX: u64 = 16 << 20;
/// Shortest time that a subscriber may have to acknowledge a message: 1 s.
pub const ACK_DEADLINE_MS_MIN: u64 = 1_000;
/// Longest time that a subscriber may have to acknowledge a message: 12 h.
pub const ACK_DEADLINE_MS_MAX: u64 = 12 * 60 * 60 * 1_000;
/// The same for a subscription that doesn't say: 30 s.
pub const ACK_DEADLINE_MS_DEFAULT: u64 = 30 * 1_000;
/// How often a message is delivered at most before it becomes a dead letter, whatever the subscription says.
pub const DELIVERY_ATTEMPTS_MAX: u32 = 1_000;
/// The same for a subscription that names a dead-letter topic and no number.
pub const DELIVERY_ATTEMPTS_DEFAULT: u32 = 5;
/// Longest pause before a message is delivered again: 12 h.
pub const RETRY_PAUSE_MS_MAX: u64 = 12 * 60 * 60 * 1_000;
/// Most pauses in a list of them.
pub const RETRY_PAUSES_MAX: usize = 32;

/// Messages of one ordering key that wait in a subscription's memory; where the others are is found in the log.
pub const KEY_LINE_MAX: usize = 256;
/// Messages that wait behind their ordering keys in the memory of one subscription in one partition; beyond it one per key.
pub const KEY_LINES_TOTAL_MAX: usize = 65_536;
/// Messages of one ordering key that may be in flight at once, all at the same subscriber.
pub const KEY_BATCH_MAX: usize = 64;
/// Longest text about why a message was returned.
pub const RETURN_ERROR_BYTES_MAX: usize = 512;
/// Places of a partition's log where messages were deleted; those next to each other are one.
pub const DELETED_RANGES_MAX: usize = 10_000;
/// Messages that one request may delete.
pub const DELETIONS_MAX: usize = 1_000;
/// Largest encoded deletion.
pub const DELETION_BYTES_MAX: usize = 64 << 10;
/// Largest encoded snapshot of a subscription, over all partitions.
pub const SNAPSHOT_BYTES_MAX: usize = 3 << 20;
/// Largest encoded settlement.
pub const SETTLEMENT_BYTES_MAX: usize = 8 << 20;

/// Log entries that one segment of the offset index covers: one bit each.
pub const SEGMENT_ENTRIES_MAX: u32 = 64;
/// A segment of the offset index closes once it holds this many bytes of batches.
pub const SEGMENT_BYTES: u64 = 256 << 10;

/// A stretch of the log ends once it is one part in so many of a bound of retention: so much more than the
/// bound is kept, and so many checkpoints are.
pub const STRETCHES_PER_BOUND: u64 = 32;
/// Most stretches of a partition's log. More than one bound needs, because bounds can be changed.
pub const STRETCHES_MAX: usize = 64;
/// Points that each node has on the hash ring.
pub const RING_POINTS_PER_NODE: u32 = 128;
/// How far above the mean a node's share of the replicas may rise before placement passes it over.
pub const PLACEMENT_SLACK_PERCENT: u64 = 10;

/// Largest encoded metadata command.
pub const META_COMMAND_BYTES_MAX: usize = 1 << 20;
/// Largest encoded reply. A reply that describes a topic lists all its replicas.
pub const REPLY_BYTES_MAX: usize = 4 << 20;
/// Largest encoded machine checkpoint or cluster map. It travels whole to a replica that was left behind, so it must
/// fit in one message between nodes.
pub const CHECKPOINT_BYTES_MAX: usize = 60 << 20;

//! The one table of errors that a caller can see. The documentation, `quorate explain`, the server's
//! status codes and the SDK's retries all come from here.

use std::fmt;

/// The gRPC status codes that the table uses, by their numbers on the wire.
mod code {
    pub(super) const INVALID_ARGUMENT: i32 = 3;
    pub(super) const DEADLINE_EXCEEDED: i32 = 4;
    pub(super) const NOT_FOUND: i32 = 5;
    pub(super) const ALREADY_EXISTS: i32 = 6;
    pub(super) const RESOURCE_EXHAUSTED: i32 = 8;
    pub(super) const FAILED_PRECONDITION: i32 = 9;
    pub(super) const ABORTED: i32 = 10;
    pub(super) const OUT_OF_RANGE: i32 = 11;
    pub(super) const INTERNAL: i32 = 13;
    pub(super) const UNAVAILABLE: i32 = 14;
    pub(super) const DATA_LOSS: i32 = 15;
}

/// Whether the request that failed may have had an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Executed {
    /// It had none, and will have none later.
    No,
    /// It may have had one, or may yet. Unknown is not failure.
    Maybe,
    /// It wasn't a request to change anything.
    NotApplicable,
}

/// What a client does about it without asking anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RetryAdvice {
    /// Send it to the leader that the error names, at once.
    Reroute,
    /// Wait with jitter, refresh the cluster map, send it again.
    BackOff,
    /// Send it again only if it carries a producer id and sequence, else it could be done twice.
    OnlyWithProducer,
    /// Wait as long as the error says, then send it again.
    HonourDelay,
    /// Don't send it again; tell the caller.
    Surface,
    /// Send it to another node.
    Move,
}

macro_rules! reasons {
    ($($variant:ident $name:literal $code:ident $executed:ident $retry:ident
        $summary:literal $advice:literal)*) => {
        /// Why a request failed. The names are part of the API: they are added to, never changed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $(#[doc = $summary] $variant,)*
        }

        impl Reason {
            /// All reasons, in the order of the documentation.
            pub const ALL: &[Reason] = &[$(Reason::$variant),*];

            /// The name on the wire, such as `NOT_LEADER`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Reason::$variant => $name,)* }
            }

            /// Number of the gRPC status code.
            pub const fn code(self) -> i32 {
                match self { $(Reason::$variant => code::$code,)* }
            }

            /// Name of the gRPC status code, such as `UNAVAILABLE`.
            pub const fn code_name(self) -> &'static str {
                match self { $(Reason::$variant => stringify!($code),)* }
            }

            /// Whether the request may have had an effect.
            pub const fn executed(self) -> Executed {
                match self { $(Reason::$variant => Executed::$executed,)* }
            }

            /// What a client does about it.
            pub const fn retry(self) -> RetryAdvice {
                match self { $(Reason::$variant => RetryAdvice::$retry,)* }
            }

            /// What it means, in one line.
            pub const fn summary(self) -> &'static str {
                match self { $(Reason::$variant => $summary,)* }
            }

            /// What a person should do.
            pub const fn advice(self) -> &'static str {
                match self { $(Reason::$variant => $advice,)* }
            }
        }
    };
}

reasons! {
    NotLeader "NOT_LEADER" UNAVAILABLE No Reroute
        "The node doesn't lead the partition, and the request asked not to be forwarded."
        "Send it to the leader that the error names. The SDK does; without an SDK, leave out the metadata `quorate-routing: direct` and any node forwards the request."
    NoLeader "NO_LEADER" UNAVAILABLE No BackOff
        "The partition has no leader that the node knows or reaches, usually because an election is under way."
        "Try again after the delay that the error names. If it lasts longer than a few seconds, see `quorate cluster status`: a majority of the partition's replicas must be up and reach each other."
    NoReplica "NO_REPLICA" UNAVAILABLE No Move
        "The node holds no replica of the partition, and the request asked it to answer by itself."
        "Send it to one of the replicas that `quorate cluster status` lists, or leave out the metadata `quorate-routing: direct` and any node finds one."
    Unreachable "UNREACHABLE" UNAVAILABLE No BackOff
        "No connection to the server."
        "Check the address (`--server`, `QUORATE_SERVER` or the selected context), that a node listens there, and that no firewall is in between."
    Draining "DRAINING" UNAVAILABLE No Move
        "The node is shutting down and takes no new requests."
        "Send it to another node. The SDK does."
    CommitUnknown "COMMIT_UNKNOWN" UNAVAILABLE Maybe OnlyWithProducer
        "Leadership was lost after the request was proposed; it may have been carried out or not."
        "With a producer id, send it again: it can't be done twice. Without one, read back before you decide."
    DeadlineExceeded "DEADLINE_EXCEEDED" DEADLINE_EXCEEDED Maybe OnlyWithProducer
        "The request's deadline passed before there was an answer; it may have been carried out or not."
        "As for COMMIT_UNKNOWN. If it happens often, raise the deadline or look at the server's latency metrics."
    Overloaded "OVERLOADED" RESOURCE_EXHAUSTED No HonourDelay
        "The node has as much work in hand as it may have."
        "Wait as long as the error says. If it lasts, publish less, or add nodes and partitions."
    RateLimited "RATE_LIMITED" RESOURCE_EXHAUSTED No HonourDelay
        "The caller has used up its quota."
        "Wait as long as the error says, or ask for a higher quota."
    DiskFull "DISK_FULL" RESOURCE_EXHAUSTED No HonourDelay
        "The node's disk is nearly full, so it takes no more messages."
        "Free space, add a disk, or shorten the retention of topics."
    ProducerFenced "PRODUCER_FENCED" FAILED_PRECONDITION No Surface
        "A newer instance with the same producer id has taken over."
        "Stop this instance, or give each instance its own producer id."
    SequenceGap "SEQUENCE_GAP" FAILED_PRECONDITION No Surface
        "Records that the producer numbered before these haven't arrived."
        "Send the missing batches first; the error names the sequence that is expected."
    SequenceTooOld "SEQUENCE_TOO_OLD" FAILED_PRECONDITION Maybe Surface
        "The batch's sequence was appended by an earlier attempt that is no longer remembered; nothing was appended this time."
        "Don't send it again: it is in the log, only its offset isn't known. Keep at most 8 batches in flight per partition."
    SequenceConflict "SEQUENCE_CONFLICT" FAILED_PRECONDITION No Surface
        "The producer used this sequence before, for other records."
        "Give each instance its own producer id or a higher epoch, and send a batch again only with the very same bytes."
    UnknownProducer "UNKNOWN_PRODUCER" FAILED_PRECONDITION No Surface
        "The partition doesn't know the producer, and the batch isn't its first."
        "Begin anew with a new producer id, after reading back what became of requests without an answer. A partition forgets a producer once 10,000 others have appended since."
    InvalidArgument "INVALID_ARGUMENT" INVALID_ARGUMENT No Surface
        "A field has a value that it can't have."
        "Correct the field that the error names."
    InvalidName "INVALID_NAME" INVALID_ARGUMENT No Surface
        "The name isn't a letter followed by up to 248 letters, digits, dots, underscores and hyphens."
        "Choose another name."
    ReservedName "RESERVED_NAME" INVALID_ARGUMENT No Surface
        "Names that begin with an underscore are reserved for the system."
        "Choose a name that begins with a letter."
    MessageTooLarge "MESSAGE_TOO_LARGE" INVALID_ARGUMENT No Surface
        "A message's data is larger than its topic allows."
        "Send less, or raise the topic's `max_message_bytes`, up to 16 MiB."
    BatchTooLarge "BATCH_TOO_LARGE" INVALID_ARGUMENT No Surface
        "The messages of one request or batch are together too large."
        "Send them in several requests."
    TooManyMessages "TOO_MANY_MESSAGES" INVALID_ARGUMENT No Surface
        "One request or batch has more than 10,000 messages."
        "Send them in several requests."
    EmptyBatch "EMPTY_BATCH" INVALID_ARGUMENT No Surface
        "There is no message to publish."
        "Send at least one message."
    TooManyAttributes "TOO_MANY_ATTRIBUTES" INVALID_ARGUMENT No Surface
        "A message has more than 100 attributes."
        "Send fewer, or put them into the data."
    InvalidAttribute "INVALID_ATTRIBUTE" INVALID_ARGUMENT No Surface
        "An attribute's key is empty, longer than 256 bytes or there twice, or its value is longer than 1,024 bytes."
        "Correct the attribute, or put it into the data."
    InvalidOrderingKey "INVALID_ORDERING_KEY" INVALID_ARGUMENT No Surface
        "The ordering key is longer than 1,024 bytes, or not UTF-8."
        "Use a shorter key, such as a hash of the long one."
    CorruptBatch "CORRUPT_BATCH" INVALID_ARGUMENT No Surface
        "The record batch can't be read: it was damaged on the way, made for another partition, or made by a faulty client."
        "If the error persists, it is a fault of the client that made the batch."
    InvalidPosition "INVALID_POSITION" INVALID_ARGUMENT No Surface
        "The position to read from is neither an offset, a time, `earliest` nor `latest`."
        "Correct the position."
    OffsetOutOfRange "OFFSET_OUT_OF_RANGE" OUT_OF_RANGE NotApplicable Surface
        "The offset lies before the log start or beyond the log end."
        "Read from an offset between the two that the error names, or from `earliest`."
    InvalidMessageId "INVALID_MESSAGE_ID" INVALID_ARGUMENT No Surface
        "The text isn't a message id."
        "Use the id as it was returned by publishing or reading."
    InvalidFilter "INVALID_FILTER" INVALID_ARGUMENT No Surface
        "The filter can't be read as a CEL expression over a message that says yes or no, or it is too long or too deep."
        "Correct the place that the error names. docs/filters.md says what a filter may look like; `quorate subscription test-filter` tries one on recent messages."
    InvalidPageToken "INVALID_PAGE_TOKEN" INVALID_ARGUMENT NotApplicable Surface
        "The page token isn't one that this list returned."
        "Begin again without a page token."
    TooManyPartitions "TOO_MANY_PARTITIONS" INVALID_ARGUMENT No Surface
        "A topic can't have so many partitions, or the cluster would have too many."
        "Ask for fewer partitions: at most 1,000 per topic."
    ReplicationFactorTooHigh "REPLICATION_FACTOR_TOO_HIGH" FAILED_PRECONDITION No Surface
        "There are fewer nodes than replicas asked for."
        "Ask for fewer replicas, or add nodes first; `quorate cluster status` lists them."
    TopicExists "TOPIC_EXISTS" ALREADY_EXISTS No Surface
        "There is a topic with this name already."
        "Use it, or choose another name."
    TopicNotFound "TOPIC_NOT_FOUND" NOT_FOUND No Surface
        "There is no topic with this name or id."
        "`quorate topic ls` lists the topics; `quorate topic create` makes one."
    PartitionNotFound "PARTITION_NOT_FOUND" NOT_FOUND No Surface
        "The topic has no partition with this number."
        "Partitions count from 0; `quorate topic get` says how many there are."
    TooManyTopics "TOO_MANY_TOPICS" FAILED_PRECONDITION No Surface
        "The cluster has as many topics as it may have."
        "Delete topics that are no longer used, or use partitions and attributes instead of many topics."
    TopicInUse "TOPIC_IN_USE" FAILED_PRECONDITION No Surface
        "The topic can't be deleted: a subscription of another topic sends its dead letters there."
        "Delete the subscription that the error names, or change its dead-letter policy, first."
    SubscriptionExists "SUBSCRIPTION_EXISTS" ALREADY_EXISTS No Surface
        "There is a subscription with this name already, perhaps of another topic."
        "Use it, or choose another name."
    SubscriptionNotFound "SUBSCRIPTION_NOT_FOUND" NOT_FOUND No Surface
        "There is no subscription with this name. A subscription ends with its topic."
        "`quorate subscription ls` lists the subscriptions; `quorate subscription create` makes one."
    TooManySubscriptions "TOO_MANY_SUBSCRIPTIONS" FAILED_PRECONDITION No Surface
        "The topic or the cluster has as many subscriptions as it may have."
        "Delete subscriptions that are no longer used, or share one among consumers that do the same work."
    MessageNotFound "MESSAGE_NOT_FOUND" NOT_FOUND No Surface
        "There is no message with this id: it was deleted, retention removed it, or it was never published."
        "`quorate message ls` lists the messages of a topic; `quorate topic get` says which offsets are kept."
    TooManyDeleted "TOO_MANY_DELETED" FAILED_PRECONDITION No Surface
        "The deleted messages of the partition lie in as many places as they may."
        "Delete stretches rather than single messages (`quorate message purge`), or wait until retention has removed some."
    SnapshotTooLarge "SNAPSHOT_TOO_LARGE" FAILED_PRECONDITION No Surface
        "A snapshot of the subscription would be larger than an answer may be: acknowledged messages lie in too many places."
        "Acknowledge or seek past what has been waiting for long, and try again."
    InvalidSnapshot "INVALID_SNAPSHOT" INVALID_ARGUMENT No Surface
        "The snapshot can't be read, or belongs to another topic."
        "Give what `quorate subscription snapshot` wrote for a subscription of this topic, unchanged."
    EtagMismatch "ETAG_MISMATCH" ABORTED No Surface
        "The topic or subscription was changed since it was read."
        "Read it again, and repeat the change on what it is now."
    NodeNotFound "NODE_NOT_FOUND" NOT_FOUND No Surface
        "The cluster has no node with this number, or it holds no replica of the partition."
        "`quorate cluster status` lists the nodes and where the replicas are."
    TooManyNodes "TOO_MANY_NODES" FAILED_PRECONDITION No Surface
        "The cluster has as many nodes as it may have."
        "Run fewer, larger nodes, or several clusters."
    StoreMismatch "STORE_MISMATCH" FAILED_PRECONDITION No Surface
        "The node's data folder isn't the one with which the node joined the cluster."
        "Start the node with its own data folder. If that is lost, let the node join under a new node id: a node that forgot what it promised must not vote again."
    ClusterMismatch "CLUSTER_MISMATCH" FAILED_PRECONDITION No Surface
        "The data folder or the node belongs to another cluster."
        "Check the cluster name, the data folder and the peers' addresses in the configuration."
    NodeMismatch "NODE_MISMATCH" FAILED_PRECONDITION No Surface
        "The data folder belongs to another node of the cluster."
        "Check the node id and the data folder in the configuration."
    StoreInUse "STORE_IN_USE" FAILED_PRECONDITION No Surface
        "Another process is using the data folder."
        "Stop the other process, or use another folder."
    CorruptLog "CORRUPT_LOG" DATA_LOSS NotApplicable Surface
        "Stored bytes don't match their checksum."
        "The replica must not be used again: replace it by a new one. The other replicas still have the data."
    Internal "INTERNAL" INTERNAL Maybe Surface
        "The server made a mistake."
        "Report it with the server's log around that time."
}

impl Reason {
    /// The reason with this name on the wire. Upper or lower case, as people type it.
    pub fn parse(name: &str) -> Option<Reason> {
        Reason::ALL.iter().copied().find(|reason| reason.as_str().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Executed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Executed::No => "no",
            Executed::Maybe => "maybe",
            Executed::NotApplicable => "not applicable",
        })
    }
}

impl fmt::Display for RetryAdvice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RetryAdvice::Reroute => "re-route at once",
            RetryAdvice::BackOff => "back off with jitter, refresh the map",
            RetryAdvice::OnlyWithProducer => "retry only with producer id and sequence",
            RetryAdvice::HonourDelay => "honour the delay",
            RetryAdvice::Surface => "surface",
            RetryAdvice::Move => "move to another node",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Executed, Reason, RetryAdvice};

    #[test]
    fn every_name_is_unique_and_found_again() {
        let names: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
        for &reason in Reason::ALL {
            assert_eq!(Reason::parse(reason.as_str()), Some(reason));
            assert_eq!(Reason::parse(&reason.as_str().to_lowercase()), Some(reason));
        }
        assert_eq!(Reason::parse("NO_SUCH_REASON"), None);
    }

    #[test]
    fn what_may_have_happened_is_never_repeated_without_a_producer() {
        for &reason in Reason::ALL {
            if reason.executed() == Executed::Maybe {
                assert!(matches!(reason.retry(), RetryAdvice::OnlyWithProducer | RetryAdvice::Surface), "{reason}");
            }
        }
    }

    #[test]
    fn every_text_is_a_sentence() {
        for &reason in Reason::ALL {
            for text in [reason.summary(), reason.advice()] {
                assert!(text.ends_with('.') && !text.contains('\n'), "{reason}: {text}");
            }
        }
    }
}

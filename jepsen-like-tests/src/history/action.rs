//! What an operation does, and what came of it.

use serde::{Deserialize, Serialize};

use crate::checker::Expected;

/// What an operation does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// Creates the topic.
    Create {
        /// Its number of partitions.
        partitions: u32,
        /// Newest messages that each partition keeps; `None`: all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        keep_messages: Option<u64>,
    },
    /// Publishes one message.
    Publish {
        /// Unique in the history.
        message: String,
        /// Where it is to go.
        partition: u32,
        /// What it says of its deliveries.
        #[serde(flatten)]
        terms: Terms,
        /// Where it went; known after `ok`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        offset: Option<u64>,
        /// Why it wasn't `ok`.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        why: String,
    },
    /// Reads all partitions from the beginning.
    Read {
        /// What it is for.
        purpose: Purpose,
        /// What was seen, in the order of arrival; also after `unknown`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        seen: Vec<Seen>,
        /// Why it wasn't `ok`.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        why: String,
    },
    /// Hands the leadership of a partition to a node.
    Transfer {
        /// The partition.
        partition: u32,
        /// The node; known after `ok`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        node: Option<u64>,
        /// Why it wasn't `ok`.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        why: String,
    },
    /// Does something to a topic, which is a register: there or not, with a value in its labels.
    Topic {
        /// Its name.
        name: String,
        /// What is done.
        #[serde(flatten)]
        operation: TopicOperation,
        /// What the broker says of the topic where it refuses, before the end of the request: whether it is there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exists: Option<bool>,
        /// Why it wasn't `ok`.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        why: String,
    },
    /// Publishes to a topic that comes and goes: the message says which of those of that name was meant.
    PublishTo {
        /// The topic's name.
        name: String,
        /// Its id, which no other has.
        topic: u64,
        /// Unique in the history.
        message: String,
        /// Why it wasn't `ok`.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        why: String,
    },
    /// What is in a topic in the end.
    Found {
        /// Its name.
        name: String,
        /// Its id; known after `ok`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        topic: Option<u64>,
        /// All its messages, as `id/message`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        messages: Vec<String>,
        /// Why it wasn't `ok`.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        why: String,
    },
    /// Makes a subscription of the topic, which begins with the first message.
    Subscription {
        /// Its name.
        subscription: String,
        /// Whether messages of one key keep their order.
        ordered: bool,
        /// The region whose messages its filter asks for; `None`: it has no filter.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        region: Option<String>,
        /// After so many attempts a message becomes a dead letter; `None`: never.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_attempts: Option<u32>,
    },
    /// A subscriber takes a message from its stream. What it says of it later names it by the number of this operation.
    Deliver {
        /// Of which subscription.
        subscription: String,
        /// The message, as in its `Publish`.
        message: String,
        /// Where it is.
        partition: u32,
        /// Where in it.
        offset: u64,
        /// Its ordering key, if it has one.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        key: String,
        /// 1 for the first delivery.
        attempt: u32,
    },
    /// A subscriber says that a message is done.
    Acknowledge {
        /// Of which subscription.
        subscription: String,
        /// The message.
        message: String,
        /// Number of its `Deliver`.
        delivery: u64,
        /// What became of it; known after `ok` and `fail`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        settled: Option<Settled>,
        /// Why it wasn't `ok`.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        why: String,
    },
    /// A subscriber returns a message.
    Return {
        /// Of which subscription.
        subscription: String,
        /// The message.
        message: String,
        /// Number of its `Deliver`.
        delivery: u64,
        /// The pause that it asks for; `None`: as the subscription says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pause_ms: Option<u64>,
        /// What became of it; known after `ok`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        settled: Option<Settled>,
        /// Why it wasn't `ok`.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        why: String,
    },
    /// Somebody who follows the dead-letter topic sees one more.
    DeadLetter {
        /// The letter.
        #[serde(flatten)]
        letter: DeadLetter,
    },
    /// In the end: reads the dead-letter topic from its beginning to its end.
    DeadLetters {
        /// What was seen, in the order of arrival; also after `unknown`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        seen: Vec<DeadLetter>,
        /// Why it wasn't `ok`.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        why: String,
    },
    /// In the end: waits until nothing is left to be settled, and a while longer; `unknown` if something is.
    Emptied {
        /// What is left, of all subscriptions together; known after the end.
        left: usize,
    },
    /// How often a publisher sent a batch again, and how many messages were acknowledged as repeats: few, because the answer
    /// to the first attempt mostly comes first.
    Repeated {
        /// Batches sent again.
        batches: u64,
        /// Messages that were acknowledged as repeats.
        recognised: u64,
    },
    /// A fault: `invoke` when it begins, `ok` when it ends and took effect, `fail` when it ended without effect.
    Fault {
        /// Its number in the run.
        #[serde(default)]
        number: u32,
        /// Its name.
        fault: String,
        /// Number of the partition whose leader it hit, if it aimed at one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        partition: Option<u32>,
        /// What it did to whom.
        detail: String,
        /// A majority of nodes goes on undisturbed.
        #[serde(default)]
        spares_majority: bool,
    },
    /// What the run set out to cover; without it nothing counts as covered.
    Plan(Expected),
    /// No more faults from here on.
    Healed,
    /// After the run, the logs of a group's replicas were read from their disks.
    Compared {
        /// The group, for people.
        group: String,
        /// Replicas whose logs were there.
        replicas: usize,
        /// Entries of the longest of them.
        entries: usize,
        /// In what they differ.
        differences: Vec<String>,
    },
    /// An invariant of Raft didn't hold at some moment.
    Invariant {
        /// Which, when, and how.
        broken: String,
    },
    /// What a node's processes used at most, and how often they panicked.
    Resources {
        /// The node.
        node: u64,
        /// Memory that a process of it held.
        resident_kib: u64,
        /// Files and connections that a process of it had open.
        open_files: u64,
        /// Panics in its log.
        panics: u64,
    },
    /// Something outside the operations went wrong, such as a node that gave up.
    Broken {
        /// What.
        what: String,
    },
}

/// What is done to a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "snake_case")]
pub enum TopicOperation {
    /// It is made.
    Create {
        /// With this value.
        value: u64,
    },
    /// It gets another value.
    Write {
        /// The value.
        value: u64,
    },
    /// It is removed, with its messages.
    Delete,
    /// It is looked at.
    Look {
        /// Its value; `None`: it isn't there. Known after `ok`.
        value: Option<u64>,
    },
}

/// What became of what a subscriber said of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Settled {
    /// As it asked for.
    Done,
    /// The message had been settled before.
    Already,
    /// Nothing: the message was or will be delivered again.
    LeaseLost,
    /// Nothing: the subscription was moved.
    Seeked,
}

/// What a read is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// To the end, while others publish.
    Snapshot,
    /// Onwards as records appear, until it is told to stop.
    Tail,
    /// To the end, after everything has come to rest.
    Final,
}

/// A record as a reader saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Partition.
    pub partition: u32,
    /// Offset in it.
    pub offset: u64,
    /// The message, as in its `Publish`.
    pub message: String,
}

/// What a message says of its deliveries, counted from the beginning of its publish.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// How long subscriptions must not deliver it; `None`: they may at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// When they stop delivering it; `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry_ms: Option<u64>,
    /// The attribute that filters ask for, if it has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

/// A record of the dead-letter topic, which has one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Its offset there.
    pub letter: u64,
    /// The subscription that gave it up.
    pub subscription: String,
    /// The message, as in its `Publish`.
    pub message: String,
    /// Where it came from.
    pub partition: u32,
    /// Where in it.
    pub offset: u64,
    /// How often it was delivered.
    pub attempts: u32,
}

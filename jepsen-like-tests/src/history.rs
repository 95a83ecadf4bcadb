//! What clients asked for and what they were told, in the order in which it happened.
//!
//! An operation begins with `invoke` and ends as `ok`, `fail` (certainly not executed) or `unknown` (perhaps executed).
//! Checkers see nothing else, so a history that was written down can be judged again later.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::checker::Expected;
use crate::trace::Trace;

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Time since the world began.
    pub at_ms: u64,
    /// Who did it: a client, or `nemesis`.
    pub process: String,
    /// Number of the operation, the same in its first and its last event.
    pub op: u64,
    /// Where in its life the operation is.
    pub phase: Phase,
    /// What is done, and after the end what came of it.
    #[serde(flatten)]
    pub action: Action,
}

/// Where in its life an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It begins.
    Invoke,
    /// It was executed.
    Ok,
    /// It was not executed and never will be.
    Fail,
    /// Nobody can tell.
    Unknown,
}

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
        /// How long subscriptions must not deliver it; `None`: they may at once.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        delay_ms: Option<u64>,
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
    /// In the end: waits until nothing is left to be acknowledged, and a while longer; `unknown` if something is.
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

/// The events of a run.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// In the order in which they happened.
    pub events: Vec<Event>,
}

impl History {
    /// Writes it as JSON lines.
    ///
    /// # Errors
    /// What the writer says.
    pub fn write_to(&self, mut out: impl Write) -> io::Result<()> {
        for event in &self.events {
            serde_json::to_writer(&mut out, event)?;
            writeln!(out)?;
        }
        Ok(())
    }

    /// Writes it to a file, as JSON lines.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn write_file(&self, path: &Path) -> io::Result<()> {
        let mut out = BufWriter::new(File::create(path)?);
        self.write_to(&mut out)?;
        out.flush()
    }

    /// Reads JSON lines.
    ///
    /// # Errors
    /// If a line isn't an event.
    pub fn parse(text: &str) -> serde_json::Result<Self> {
        let events = text.lines().map(serde_json::from_str).collect::<serde_json::Result<_>>()?;
        Ok(Self { events })
    }
}

/// Writes the history while it happens. Cheap to clone; the clones write the same one.
#[derive(Clone)]
pub struct Recorder {
    recorded: Arc<Mutex<Recorded>>,
    trace: Trace,
}

#[derive(Default)]
struct Recorded {
    history: History,
    next_op: u64,
}

/// An operation that has begun.
#[derive(Clone, Debug)]
#[must_use = "an operation that never ends is a violation"]
pub struct Op {
    number: u64,
    process: String,
}

impl Recorder {
    /// Everything recorded also goes into `trace`, and gets its time from there.
    #[must_use]
    pub fn new(trace: Trace) -> Self {
        Self { recorded: Arc::default(), trace }
    }

    /// An operation begins.
    pub fn invoke(&self, process: &str, action: Action) -> Op {
        let mut recorded = self.lock();
        recorded.next_op += 1;
        let op = Op { number: recorded.next_op, process: process.to_owned() };
        self.record(recorded, &op, Phase::Invoke, action);
        op
    }

    /// An operation ends.
    pub fn end(&self, op: &Op, phase: Phase, action: Action) {
        self.record(self.lock(), op, phase, action);
    }

    /// Something that has no duration, and that others name by the number that is returned.
    pub fn occurrence(&self, process: &str, action: Action) -> u64 {
        let mut recorded = self.lock();
        recorded.next_op += 1;
        let op = Op { number: recorded.next_op, process: process.to_owned() };
        self.record(recorded, &op, Phase::Ok, action);
        op.number
    }

    /// Something that has no duration.
    pub fn remark(&self, process: &str, action: Action) {
        let op = Op { number: 0, process: process.to_owned() };
        self.record(self.lock(), &op, Phase::Ok, action);
    }

    /// Shows everybody's events from a position on, and says where the next ones will be.
    pub fn follow(&self, from: usize, mut look: impl FnMut(&Event)) -> usize {
        let recorded = self.lock();
        let events = &recorded.history.events;
        events.iter().skip(from).for_each(&mut look);
        events.len()
    }

    /// Time since the world began.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.trace.now_ms()
    }

    /// What was recorded so far.
    #[must_use]
    pub fn history(&self) -> History {
        self.lock().history.clone()
    }

    /// The time is taken while nobody else can record, so that it never goes back from one event to the next.
    fn record(&self, mut recorded: MutexGuard<'_, Recorded>, op: &Op, phase: Phase, action: Action) {
        let event = Event { at_ms: self.trace.now_ms(), process: op.process.clone(), op: op.number, phase, action };
        if self.trace.is_kept() {
            // An event always has a JSON form; if it had none, the trace would miss its content and nothing else.
            let line = serde_json::to_string(&event).unwrap_or_default();
            self.trace.note(&op.process, "history", &line);
        }
        recorded.history.events.push(event);
    }

    fn lock(&self) -> MutexGuard<'_, Recorded> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
    use super::*;

    #[test]
    fn a_history_survives_being_written_down() {
        let recorder = Recorder::new(Trace::new());
        let publish = |offset| Action::Publish {
            message: "a-1".to_owned(),
            partition: 2,
            delay_ms: None,
            offset,
            why: String::new(),
        };
        let op = recorder.invoke("a", publish(None));
        recorder.end(&op, Phase::Ok, publish(Some(7)));
        let seen = vec![Seen { partition: 2, offset: 7, message: "a-1".to_owned() }];
        recorder.remark("b", Action::Read { purpose: Purpose::Tail, seen, why: "cut".to_owned() });
        let (subscription, message) = ("plain".to_owned(), "a-1".to_owned());
        let delivery = recorder.occurrence(
            "s",
            Action::Deliver {
                subscription: subscription.clone(),
                message: message.clone(),
                partition: 2,
                offset: 7,
                key: String::new(),
                attempt: 1,
            },
        );
        let settled = Some(Settled::Already);
        recorder.remark("s", Action::Acknowledge { subscription, message, delivery, settled, why: String::new() });
        recorder.remark("nemesis", Action::Healed);
        let history = recorder.history();
        let mut text = Vec::new();
        history.write_to(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains(r#""phase":"invoke","action":"publish","message":"a-1","partition":2}"#), "{text}");
        assert_eq!(History::parse(&text).unwrap().events, history.events);
    }
}

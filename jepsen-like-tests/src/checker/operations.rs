//! Events paired into operations.

use std::collections::BTreeMap;

use super::deliveries::Deliveries;
use crate::history::{Action, History, Phase, Purpose, Seen, Terms};

/// The operations of a history.
#[derive(Debug, Default)]
pub struct Operations<'a> {
    /// By message.
    pub publishes: BTreeMap<&'a str, Publish<'a>>,
    /// In the order in which they began.
    pub reads: Vec<Read<'a>>,
    /// Of subscriptions.
    pub deliveries: Deliveries<'a>,
    /// Operations that began and never ended, described.
    pub unfinished: Vec<String>,
    /// Newest messages that retention leaves each partition; `None`: nothing is ever removed.
    pub keep_messages: Option<u64>,
    /// Position and time of the end of all faults.
    pub healed: Option<(usize, u64)>,
    /// Whether a fault was about the nodes' clocks.
    pub clocks_were_set: bool,
}

/// A message on its way.
#[derive(Clone, Copy, Debug)]
pub struct Publish<'a> {
    /// Who sent it.
    pub process: &'a str,
    /// Where it was to go.
    pub partition: u32,
    /// What it says of its deliveries.
    pub terms: &'a Terms,
    /// Position of its first event.
    pub began: usize,
    /// Time of its first event.
    pub began_ms: u64,
    /// How it ended; `None`: it didn't.
    pub end: Option<End>,
    /// Where it went, if that was said.
    pub offset: Option<u64>,
}

impl Publish<'_> {
    /// When subscriptions stop delivering it, if they do.
    #[must_use]
    pub fn expires_ms(&self) -> Option<u64> {
        self.terms.expiry_ms.map(|expiry_ms| self.began_ms + expiry_ms)
    }
}

/// The end of an operation.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// Position of the last event.
    pub at: usize,
    /// Its time.
    pub at_ms: u64,
    /// How.
    pub phase: Phase,
}

/// A read that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Read<'a> {
    /// Who read.
    pub process: &'a str,
    /// What for.
    pub purpose: Purpose,
    /// Position of its first event.
    pub began: usize,
    /// How it ended.
    pub end: End,
    /// What it saw.
    pub seen: &'a [Seen],
}

impl Read<'_> {
    /// Where the log of a partition began for this read: what lies before was trimmed, if anything may be.
    #[must_use]
    pub fn log_start(&self, partition: u32, keep_messages: Option<u64>) -> u64 {
        if keep_messages.is_none() {
            return 0;
        }
        let first = self.seen.iter().find(|seen| seen.partition == partition);
        first.map_or(0, |first| first.offset)
    }

    /// Whether it saw everything up to an end.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.end.phase == Phase::Ok && self.purpose != Purpose::Tail
    }

    /// Whether it is one of those that saw what was left in the end.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.is_complete() && self.purpose == Purpose::Final
    }
}

impl<'a> Operations<'a> {
    /// Pairs the events of a history.
    #[must_use]
    pub fn of(history: &'a History) -> Self {
        let mut operations = Self::default();
        let mut open: BTreeMap<u64, usize> = BTreeMap::new();
        for (at, event) in history.events.iter().enumerate() {
            if let Action::Create { keep_messages, .. } = event.action {
                operations.keep_messages = keep_messages;
            }
            operations.deliveries.add(at, event);
            operations.clocks_were_set |= matches!(&event.action, Action::Fault { fault, .. } if fault == "clock");
            if event.action == Action::Healed {
                operations.healed = Some((at, event.at_ms));
            }
            if event.phase == Phase::Invoke {
                open.insert(event.op, at);
                operations.begin(history, at);
            } else {
                let began = open.remove(&event.op).unwrap_or(at);
                operations.end(history, began, at);
            }
        }
        for at in open.into_values() {
            let event = &history.events[at];
            operations.unfinished.push(format!("{} ms: {}: {:?}", event.at_ms, event.process, event.action));
        }
        operations
    }

    fn begin(&mut self, history: &'a History, at: usize) {
        let event = &history.events[at];
        if let Action::Publish { message, partition, terms, .. } = &event.action {
            let publish = Publish {
                process: &event.process,
                partition: *partition,
                terms,
                began: at,
                began_ms: event.at_ms,
                end: None,
                offset: None,
            };
            self.publishes.insert(message, publish);
        }
    }

    fn end(&mut self, history: &'a History, began: usize, at: usize) {
        let event = &history.events[at];
        let end = End { at, at_ms: event.at_ms, phase: event.phase };
        match &event.action {
            Action::Publish { message, offset, .. } => {
                if let Some(publish) = self.publishes.get_mut(message.as_str()) {
                    publish.end = Some(end);
                    publish.offset = *offset;
                }
            }
            Action::Read { purpose, seen, .. } => {
                self.reads.push(Read { process: &event.process, purpose: *purpose, began, end, seen });
            }
            _ => {}
        }
    }

    /// Messages that were acknowledged, with the place that they were said to have.
    pub fn acknowledged(&self) -> impl Iterator<Item = (&'a str, &Publish<'a>, u64)> {
        self.publishes.iter().filter_map(|(message, publish)| {
            let ok = publish.end.filter(|end| end.phase == Phase::Ok);
            ok.and(publish.offset).map(|offset| (*message, publish, offset))
        })
    }

    /// Where the log of a partition begins in the end: what lies before it was removed by retention.
    #[must_use]
    pub fn trimmed(&self, partition: u32) -> u64 {
        let reads = self.reads.iter().filter(|read| read.is_final());
        reads.map(|read| read.log_start(partition, self.keep_messages)).max().unwrap_or(0)
    }

    /// Everything that any read saw.
    pub fn seen(&self) -> impl Iterator<Item = (&Read<'a>, &'a Seen)> {
        self.reads.iter().flat_map(|read| read.seen.iter().map(move |seen| (read, seen)))
    }
}

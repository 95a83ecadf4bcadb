//! The events of a run, and who writes them down.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Action, Event, Phase};
use crate::trace::Trace;

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
    use crate::history::{Purpose, Seen, Settled, Terms};

    #[test]
    fn a_history_survives_being_written_down() {
        let recorder = Recorder::new(Trace::new());
        let publish = |offset| Action::Publish {
            message: "a-1".to_owned(),
            partition: 2,
            terms: Terms::default(),
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

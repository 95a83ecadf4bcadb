//! Hand-made histories for the tests of the checkers.

use crate::checker::Operations;
use crate::history::{Action, History, Op, Phase, Purpose, Recorder, Seen};
use crate::trace::Trace;

/// A history that is written line by line.
pub(super) struct Script {
    pub(super) trace: Trace,
    recorder: Recorder,
}

impl Script {
    pub(super) fn new() -> Self {
        let trace = Trace::new();
        Self { recorder: Recorder::new(trace.clone()), trace }
    }

    /// A topic with retention.
    pub(super) fn keeping(self, messages: u64) -> Self {
        self.remark(Action::Create { partitions: 1, keep_messages: Some(messages) })
    }

    /// A publish to partition 0 that begins and ends.
    pub(super) fn publish(self, process: &str, message: &str, phase: Phase, offset: Option<u64>) -> Self {
        let action = |offset| Action::Publish { message: message.to_owned(), partition: 0, offset, why: String::new() };
        let op = self.recorder.invoke(process, action(None));
        self.recorder.end(&op, phase, action(offset));
        self
    }

    /// A publish to partition 0 that is acknowledged.
    pub(super) fn published(self, message: &str, offset: u64) -> Self {
        self.publish("a", message, Phase::Ok, Some(offset))
    }

    /// A publish that never ends.
    pub(super) fn pending(self, message: &str) -> Self {
        let action = Action::Publish { message: message.to_owned(), partition: 0, offset: None, why: String::new() };
        let _ = self.recorder.invoke("a", action);
        self
    }

    /// A read of partition 0.
    pub(super) fn read(self, purpose: Purpose, phase: Phase, seen: &[(u64, &str)]) -> Self {
        let action = |seen| Action::Read { purpose, seen, why: String::new() };
        let op = self.recorder.invoke("r", action(Vec::new()));
        let seen =
            seen.iter().map(|(offset, message)| Seen { partition: 0, offset: *offset, message: (*message).to_owned() });
        self.recorder.end(&op, phase, action(seen.collect()));
        self
    }

    /// A complete read.
    pub(super) fn snapshot(self, seen: &[(u64, &str)]) -> Self {
        self.read(Purpose::Snapshot, Phase::Ok, seen)
    }

    /// A complete read at the end.
    pub(super) fn finally(self, seen: &[(u64, &str)]) -> Self {
        self.read(Purpose::Final, Phase::Ok, seen)
    }

    pub(super) fn remark(self, action: Action) -> Self {
        self.recorder.remark("nemesis", action);
        self
    }

    pub(super) fn fault(self, fault: &str, phase: Phase) -> Self {
        let op = self.recorder.invoke("nemesis", a_fault(fault, false));
        self.recorder.end(&op, phase, a_fault(fault, false));
        self
    }

    /// A fault that begins.
    pub(super) fn begin_fault(&self, spares_majority: bool) -> Op {
        self.recorder.invoke("nemesis", a_fault("a fault", spares_majority))
    }

    pub(super) fn end_fault(self, fault: &Op) -> Self {
        self.recorder.end(fault, Phase::Ok, a_fault("a fault", false));
        self
    }

    /// An operation of another kind that begins and ends.
    pub(super) fn end_of(self, action: impl Fn() -> Action, phase: Phase) -> Self {
        let op = self.recorder.invoke("setup", action());
        self.recorder.end(&op, phase, action());
        self
    }

    pub(super) fn at(self, now_ms: u64) -> Self {
        self.trace.advance_to(now_ms);
        self
    }

    pub(super) fn history(&self) -> History {
        self.recorder.history()
    }

    /// How many complaints a checker has.
    pub(super) fn complaints(&self, check: impl Fn(&Operations<'_>) -> Vec<String>) -> usize {
        check(&Operations::of(&self.history())).len()
    }
}

fn a_fault(fault: &str, spares_majority: bool) -> Action {
    Action::Fault { number: 0, fault: fault.to_owned(), detail: "n1".to_owned(), spares_majority }
}

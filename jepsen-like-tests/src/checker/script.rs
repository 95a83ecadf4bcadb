//! Hand-made histories for the tests of the checkers.

use crate::checker::Operations;
use crate::history::{Action, DeadLetter, History, Op, Phase, Purpose, Recorder, Seen, Settled, Terms};
use crate::trace::Trace;

/// A history that is written line by line.
pub(crate) struct Script {
    pub(crate) trace: Trace,
    recorder: Recorder,
    /// The fault that is under way.
    fault: Option<(Op, Action)>,
}

impl Script {
    pub(crate) fn new() -> Self {
        let trace = Trace::new();
        Self { recorder: Recorder::new(trace.clone()), trace, fault: None }
    }

    /// A topic with retention.
    pub(crate) fn keeping(self, messages: u64) -> Self {
        self.remark(Action::Create { partitions: 1, keep_messages: Some(messages) })
    }

    /// A publish to partition 0 that begins and ends.
    pub(crate) fn publish(self, process: &str, message: &str, phase: Phase, offset: Option<u64>) -> Self {
        let action = |offset| Action::Publish {
            message: message.to_owned(),
            partition: 0,
            terms: Terms::default(),
            offset,
            why: String::new(),
        };
        let op = self.recorder.invoke(process, action(None));
        self.recorder.end(&op, phase, action(offset));
        self
    }

    /// A publish to partition 0 that is acknowledged, of a message with terms of its own.
    pub(crate) fn published_on(self, message: &str, offset: u64, terms: Terms) -> Self {
        let (message, why) = (message.to_owned(), String::new());
        let action = Action::Publish { message, partition: 0, terms, offset: Some(offset), why };
        let op = self.recorder.invoke("a", action.clone());
        self.recorder.end(&op, Phase::Ok, action);
        self
    }

    /// A publish to partition 0 that is acknowledged.
    pub(crate) fn published(self, message: &str, offset: u64) -> Self {
        self.publish("a", message, Phase::Ok, Some(offset))
    }

    /// A publish that never ends.
    pub(crate) fn pending(self, message: &str) -> Self {
        let action = Action::Publish {
            message: message.to_owned(),
            partition: 0,
            terms: Terms::default(),
            offset: None,
            why: String::new(),
        };
        let _ = self.recorder.invoke("a", action);
        self
    }

    /// A read of partition 0.
    pub(crate) fn read(self, purpose: Purpose, phase: Phase, seen: &[(u64, &str)]) -> Self {
        let action = |seen| Action::Read { purpose, seen, why: String::new() };
        let op = self.recorder.invoke("r", action(Vec::new()));
        let seen =
            seen.iter().map(|(offset, message)| Seen { partition: 0, offset: *offset, message: (*message).to_owned() });
        self.recorder.end(&op, phase, action(seen.collect()));
        self
    }

    /// A complete read.
    pub(crate) fn snapshot(self, seen: &[(u64, &str)]) -> Self {
        self.read(Purpose::Snapshot, Phase::Ok, seen)
    }

    /// A complete read, and a message that was published while it went on.
    pub(crate) fn overtaken(self, seen: &[(u64, &str)], message: &str, offset: u64) -> Self {
        let action = |seen| Action::Read { purpose: Purpose::Snapshot, seen, why: String::new() };
        let op = self.recorder.invoke("r", action(Vec::new()));
        let script = self.published(message, offset);
        let seen =
            seen.iter().map(|(offset, message)| Seen { partition: 0, offset: *offset, message: (*message).to_owned() });
        script.recorder.end(&op, Phase::Ok, action(seen.collect()));
        script
    }

    /// A complete read at the end.
    pub(crate) fn finally(self, seen: &[(u64, &str)]) -> Self {
        self.read(Purpose::Final, Phase::Ok, seen)
    }

    pub(crate) fn subscription(self, subscription: &str, ordered: bool) -> Self {
        let subscription = subscription.to_owned();
        self.remark(Action::Subscription { subscription, ordered, region: None, max_attempts: None })
    }

    /// A subscription whose filter asks for a region, and that gives up a message after three attempts.
    pub(crate) fn choosy(self, subscription: &str, ordered: bool, region: &str) -> Self {
        let (subscription, region) = (subscription.to_owned(), Some(region.to_owned()));
        self.remark(Action::Subscription { subscription, ordered, region, max_attempts: Some(3) })
    }

    /// Somebody sees a dead letter of partition 0: its offset among them, its subscription, where it came from, and its
    /// attempts.
    pub(crate) fn dead(self, letter: u64, subscription: &str, (offset, message): (u64, &str), attempts: u32) -> Self {
        let [subscription, message] = [subscription, message].map(ToOwned::to_owned);
        let letter = DeadLetter { letter, subscription, message, partition: 0, offset, attempts };
        self.remark(Action::DeadLetter { letter })
    }

    /// A subscriber takes a message of partition 0, which has an offset, a name and a key; the number of the delivery.
    pub(crate) fn deliver(
        self,
        subscriber: &str,
        subscription: &str,
        (offset, message, key): (u64, &str, &str),
        attempt: u32,
    ) -> (Self, u64) {
        let [subscription, message, key] = [subscription, message, key].map(ToOwned::to_owned);
        let action = Action::Deliver { subscription, message, partition: 0, offset, key, attempt };
        let number = self.recorder.occurrence(subscriber, action);
        (self, number)
    }

    /// A subscriber says that a delivery is done.
    pub(crate) fn acknowledge(self, delivery: u64, phase: Phase, settled: Option<Settled>) -> Self {
        self.say(delivery, phase, |subscription, message, is_end| Action::Acknowledge {
            subscription,
            message,
            delivery,
            settled: settled.filter(|_| is_end),
            why: String::new(),
        })
    }

    /// A subscriber returns a delivery.
    pub(crate) fn give_back(self, delivery: u64, phase: Phase, settled: Option<Settled>) -> Self {
        self.say(delivery, phase, |subscription, message, is_end| Action::Return {
            subscription,
            message,
            delivery,
            pause_ms: None,
            settled: settled.filter(|_| is_end),
            why: String::new(),
        })
    }

    fn say(self, delivery: u64, phase: Phase, action: impl Fn(String, String, bool) -> Action) -> Self {
        let delivered = self.history().events.into_iter().find(|event| event.op == delivery);
        let Some(Action::Deliver { subscription, message, .. }) = delivered.map(|event| event.action) else {
            panic!("there is no delivery {delivery}")
        };
        let op = self.recorder.invoke("s", action(subscription.clone(), message.clone(), false));
        self.recorder.end(&op, phase, action(subscription, message, true));
        self
    }

    pub(crate) fn remark(self, action: Action) -> Self {
        self.recorder.remark("nemesis", action);
        self
    }

    pub(crate) fn fault(self, fault: &str, phase: Phase) -> Self {
        let op = self.recorder.invoke("nemesis", a_fault(fault, false));
        self.recorder.end(&op, phase, a_fault(fault, false));
        self
    }

    /// A fault that begins.
    pub(crate) fn begin_fault(&self, spares_majority: bool) -> Op {
        self.recorder.invoke("nemesis", a_fault("a fault", spares_majority))
    }

    pub(crate) fn end_fault(self, fault: &Op) -> Self {
        self.recorder.end(fault, Phase::Ok, a_fault("a fault", false));
        self
    }

    /// An operation of another kind that begins and ends.
    pub(crate) fn end_of(self, action: impl Fn() -> Action, phase: Phase) -> Self {
        let op = self.recorder.invoke("setup", action());
        self.recorder.end(&op, phase, action());
        self
    }

    /// A fault that aims at a partition, perhaps, and lasts until [`Self::fault_ends`].
    pub(crate) fn fault_begins(mut self, number: u32, fault: &str, partition: Option<u32>) -> Self {
        let detail = "n1".to_owned();
        let action = Action::Fault { number, fault: fault.to_owned(), partition, detail, spares_majority: false };
        self.fault = Some((self.recorder.invoke("nemesis", action.clone()), action));
        self
    }

    pub(crate) fn fault_ends(mut self, phase: Phase) -> Self {
        let (op, action) = self.fault.take().expect("a fault is under way");
        self.recorder.end(&op, phase, action);
        self
    }

    pub(crate) fn at(self, now_ms: u64) -> Self {
        self.trace.advance_to(now_ms);
        self
    }

    pub(crate) fn history(&self) -> History {
        self.recorder.history()
    }

    /// How many complaints a checker has.
    pub(crate) fn complaints(&self, check: impl Fn(&Operations<'_>) -> Vec<String>) -> usize {
        check(&Operations::of(&self.history())).len()
    }
}

fn a_fault(fault: &str, spares_majority: bool) -> Action {
    Action::Fault { number: 0, fault: fault.to_owned(), partition: None, detail: "n1".to_owned(), spares_majority }
}

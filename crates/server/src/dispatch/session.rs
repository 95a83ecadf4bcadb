//! A subscriber, as actors see it: what it can take, and the way to it.

use std::sync::{Arc, Mutex, PoisonError};

use quorate_model::AckId;
use quorate_model::partition::subscription::deliver::SessionId;
use quorate_proto::v1;
use tokio::sync::{mpsc, watch};

use crate::limits::{CREDIT_BYTES_MAX, CREDIT_MESSAGES_MAX};

/// One that takes messages, of any number of partitions.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) purse: Purse,
    events: mpsc::UnboundedSender<Event>,
}

/// What a subscriber gets. As many wait for it as it has granted credit for.
#[derive(Debug)]
pub(crate) enum Event {
    Delivered(Vec<v1::Delivery>),
    /// Messages are ready, and there is no credit.
    Waiting,
    /// Nothing is ready, and there is credit left.
    Idle,
    Answered(Answered),
}

/// What became of one delivery.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered {
    pub(crate) delivery: AckId,
    /// What was asked for.
    pub(crate) action: v1::Action,
    pub(crate) outcome: v1::Outcome,
}

/// Where answers go.
#[derive(Clone)]
pub(crate) enum Answers {
    /// To a subscriber's stream, among all else.
    Session(Session),
    /// To whoever waits for them alone.
    Alone(mpsc::UnboundedSender<Answered>),
}

/// What a subscriber said about one delivery. It is always answered: whoever drops it says that the outcome is unknown.
pub(crate) struct Question {
    pub(crate) delivery: AckId,
    action: v1::Action,
    /// Until it is answered.
    answers: Option<Answers>,
}

impl Question {
    pub(crate) fn new(delivery: AckId, action: v1::Action, answers: Answers) -> Self {
        Self { delivery, action, answers: Some(answers) }
    }

    pub(crate) fn answer(mut self, outcome: v1::Outcome) {
        self.say(outcome);
    }

    fn say(&mut self, outcome: v1::Outcome) {
        let answered = Answered { delivery: self.delivery, action: self.action, outcome };
        match self.answers.take() {
            Some(Answers::Session(session)) => session.send(Event::Answered(answered)),
            // Nobody may be waiting any more.
            Some(Answers::Alone(waiting)) => _ = waiting.send(answered),
            None => {}
        }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        self.say(v1::Outcome::Unknown);
    }
}

/// Credit, shared by all actors that deliver to a session.
#[derive(Clone)]
pub(crate) struct Purse {
    credit: Arc<Mutex<Credit>>,
    /// Notified when credit was added.
    filled: Arc<watch::Sender<()>>,
    /// Whoever fills it wants to be told when it is empty, and when it isn't needed.
    on_demand: bool,
}

/// Messages, and bytes of their data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Credit {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

impl Session {
    pub(super) fn new(id: SessionId, purse: Purse) -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (events, receiver) = mpsc::unbounded_channel();
        (Self { id, purse, events }, receiver)
    }

    /// A session whose receiver is gone has left, or is about to.
    pub(crate) fn send(&self, event: Event) {
        let _ = self.events.send(event);
    }
}

impl Purse {
    /// One that its owner fills as it likes.
    pub(crate) fn new(credit: Credit) -> Self {
        Self { credit: Arc::new(Mutex::new(credit)), filled: Arc::default(), on_demand: false }
    }

    /// One that is filled when it is said to be empty.
    pub(crate) fn on_demand() -> Self {
        Self { on_demand: true, ..Self::new(Credit::default()) }
    }

    /// Adds credit, up to what a stream may have.
    pub(crate) fn put(&self, more: Credit) {
        let mut credit = self.credit();
        credit.messages = credit.messages.saturating_add(more.messages).min(CREDIT_MESSAGES_MAX);
        credit.bytes = credit.bytes.saturating_add(more.bytes).min(CREDIT_BYTES_MAX);
        drop(credit);
        self.filled.send_replace(());
    }

    /// Follows when credit is added.
    pub(crate) fn watch(&self) -> watch::Receiver<()> {
        self.filled.subscribe()
    }

    /// Whether a message can be delivered.
    pub(crate) fn has_credit(&self) -> bool {
        let credit = self.credit();
        credit.messages > 0 && credit.bytes > 0
    }

    pub(crate) fn is_on_demand(&self) -> bool {
        self.on_demand
    }

    /// Takes one message of this size off the credit, if a message and a byte are left.
    pub(crate) fn spend(&self, bytes: u32) -> bool {
        let mut credit = self.credit();
        if credit.messages == 0 || credit.bytes == 0 {
            return false;
        }
        credit.messages -= 1;
        credit.bytes = credit.bytes.saturating_sub(bytes.into());
        true
    }

    /// Takes part of the credit, for so many messages at most, with as large a part of the bytes.
    pub(crate) fn split(&self, messages: u64) -> Credit {
        let mut credit = self.credit();
        if credit.messages == 0 || credit.bytes == 0 {
            return Credit::default();
        }
        let messages = messages.min(credit.messages);
        let bytes = u128::from(credit.bytes) * u128::from(messages) / u128::from(credit.messages);
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX).max(1);
        credit.messages -= messages;
        credit.bytes -= bytes;
        Credit { messages, bytes }
    }

    /// Takes all of it.
    pub(crate) fn empty(&self) -> Credit {
        std::mem::take(&mut *self.credit())
    }

    fn credit(&self) -> std::sync::MutexGuard<'_, Credit> {
        self.credit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use quorate_model::partition::subscription::Position;
    use quorate_model::partition::subscription::deliver::LeaseId;
    use quorate_model::{Offset, PartitionId, SubscriptionId, TopicId};

    use super::*;

    fn delivery() -> AckId {
        AckId {
            partition: PartitionId::new(TopicId::new(1), 0),
            subscription: SubscriptionId::new(1),
            generation: 1,
            term: 1,
            lease: LeaseId(1),
            position: Position::at(Offset::ZERO),
        }
    }

    #[test]
    fn a_question_is_answered_once_also_by_whoever_drops_it() {
        let (answers, mut answered) = mpsc::unbounded_channel();
        let answers = Answers::Alone(answers);
        let question = || Question::new(delivery(), v1::Action::Nack, answers.clone());
        question().answer(v1::Outcome::Done);
        drop(question());
        let outcomes: Vec<_> = std::iter::from_fn(|| answered.try_recv().ok()).map(|one| one.outcome).collect();
        assert_eq!(outcomes, [v1::Outcome::Done, v1::Outcome::Unknown]);
    }

    #[test]
    fn lent_credit_is_a_fair_part_and_never_without_bytes() {
        let purse = Purse::new(Credit { messages: 4, bytes: 101 });
        assert_eq!(purse.split(3), Credit { messages: 3, bytes: 75 });
        assert_eq!(purse.split(3), Credit { messages: 1, bytes: 26 });
        assert_eq!(purse.split(3), Credit::default());
        purse.put(Credit { messages: 9, bytes: 1 });
        assert_eq!(purse.split(3), Credit { messages: 3, bytes: 1 });
        assert_eq!(purse.split(3), Credit::default(), "without a byte nothing can be delivered");
    }
}

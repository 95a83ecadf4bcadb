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

impl Answers {
    pub(crate) fn send(&self, answered: Answered) {
        match self {
            Self::Session(session) => session.send(Event::Answered(answered)),
            // Nobody waits any more.
            Self::Alone(waiting) => _ = waiting.send(answered),
        }
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

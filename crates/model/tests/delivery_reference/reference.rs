//! What the documents promise of deliveries, on a list of messages that are looked through one by one.
//!
//! - **Attempts**: one more than the deliveries that failed: returned, kept too long, or in the hands of a subscriber that
//!   left. A message that was called back, because an earlier one of its key failed, didn't.
//! - **Certain** is what stands in a settlement that was carried out. A later leader knows of that alone.
//! - **Keys** (`ordered`): a message is delivered when no other of its key is busy: in flight, waiting for its next attempt,
//!   or settled and not certainly so. Nor before an earlier one of its lane, unless that is certainly settled or has expired.
//!   Several at once go to one subscriber.
//! - **Priority**: while a message that has been read, or is due again, could be delivered, none of a lower priority is.
//! - **Bound**: with as many messages in flight or in vain as may be, only the latter are delivered, and what stands before
//!   them: earlier messages of their keys.

use std::collections::BTreeMap;

use quorate_model::Offset;
use quorate_model::partition::subscription::deliver::{Bounds, Delivery, LeaseId, Outcome, Rules, SessionId};
use quorate_model::partition::subscription::{Lane, Place, Position};

use crate::commands::Saying;

/// Why a message needn't be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    Acknowledged,
    Dead,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) settled: Option<Why>,
    /// Deliveries that failed.
    pub(crate) failed: u32,
    pub(crate) due_ms: u64,
}

#[derive(Clone, Copy, Debug)]
struct Out {
    lease: LeaseId,
    /// Nobody, if the subscriber has left it behind.
    session: Option<SessionId>,
    deadline_ms: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) position: Position,
    pub(crate) key: Option<u8>,
    pub(crate) expires_ms: u64,
    pub(crate) wanted: bool,
    pub(crate) certain: State,
    proposed: State,
    /// What this leader has decided.
    now: State,
    out: Option<Out>,
    /// By which lease it was delivered last, if it came back.
    came_back: Option<LeaseId>,
}

impl Message {
    pub(crate) fn new(position: Position, key: Option<u8>, expires_ms: u64, wanted: bool) -> Self {
        let state = State::default();
        let (certain, proposed, now) = (state, state, state);
        Self { position, key, expires_ms, wanted, certain, proposed, now, out: None, came_back: None }
    }

    pub(crate) fn has_expired(&self, now_ms: u64) -> bool {
        (1..=now_ms).contains(&self.expires_ms)
    }

    fn is_vain(&self) -> bool {
        self.now.settled.is_none() && self.now.failed > 0
    }

    /// It failed, and its next attempt isn't due or must not be made yet.
    fn is_waiting(&self, now_ms: u64) -> bool {
        self.is_vain() && self.out.is_none() && (self.now.failed > self.certain.failed || self.now.due_ms > now_ms)
    }

    /// Whether others of its key may have to wait.
    fn may_be_busy(&self, now_ms: u64) -> bool {
        let is_uncertain = self.now.settled.is_some() && self.certain.settled.is_none();
        self.out.is_some() || is_uncertain || self.is_waiting(now_ms)
    }

    /// Whether they have to. What was acknowledged after it expired may have been passed over before.
    fn is_busy(&self, now_ms: u64) -> bool {
        self.may_be_busy(now_ms) && (self.out.is_some() || !self.has_expired(now_ms))
    }
}

/// What becomes of a request.
pub(crate) struct Expected {
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) is_at_once: bool,
}

pub(crate) struct Reference {
    pub(crate) messages: Vec<Message>,
    rules: Rules,
    bounds: Bounds,
    /// Nothing before it is delivered by this leader.
    pub(crate) floor: Offset,
    /// How far this leader has read each lane.
    pub(crate) read: BTreeMap<Lane, Place>,
    /// Dead letters that are on their way.
    pub(crate) letters: usize,
    is_proposed: bool,
}

impl Reference {
    pub(crate) fn new(rules: Rules, bounds: Bounds) -> Self {
        let (messages, read) = (Vec::new(), BTreeMap::new());
        Self { messages, rules, bounds, floor: Offset::ZERO, read, letters: 0, is_proposed: false }
    }

    pub(crate) fn at(&self, offset: Offset) -> &Message {
        &self.messages[offset.get() as usize]
    }

    fn at_mut(&mut self, offset: Offset) -> &mut Message {
        &mut self.messages[offset.get() as usize]
    }

    /// Messages that may be delivered at all.
    fn live(&self) -> impl Iterator<Item = &Message> {
        self.messages.iter().filter(|message| message.position.offset() >= self.floor && message.wanted)
    }

    fn read_upto(&self, lane: Lane) -> Place {
        let first = if lane.delayed { Place::FIRST } else { Place::at(self.floor) };
        self.read.get(&lane).copied().unwrap_or(first)
    }

    fn key_of(&self, message: &Message) -> Option<u8> {
        message.key.filter(|_| self.rules.ordered)
    }
}

/// What is said and decided.
impl Reference {
    pub(crate) fn say(&mut self, what: Saying, lease: Option<LeaseId>, offset: Offset, now_ms: u64) -> Expected {
        let floor = self.floor;
        let pause_ms = |rules: &Rules, attempts| rules.retry.pause_ms(attempts, 0);
        let rules = self.rules.clone();
        let message = self.at_mut(offset);
        let expected = |outcome, is_at_once| Expected { outcomes: vec![outcome], is_at_once };
        if message.now.settled.is_some() || offset < floor {
            return expected(Outcome::AlreadySettled, false);
        }
        let is_held = lease.is_some() && message.out.map(|out| out.lease) == lease;
        let counts = is_held || (what == Saying::Ack && lease.is_some() && message.came_back == lease);
        // Nobody sees when it is passed over.
        let may_be_gone = !is_held && message.has_expired(now_ms);
        if !counts {
            let mut expected = expected(Outcome::LeaseLost, !may_be_gone);
            expected.outcomes.extend(may_be_gone.then_some(Outcome::AlreadySettled));
            return expected;
        }
        match what {
            Saying::Ack => {
                message.now.settled = Some(Why::Acknowledged);
                (message.out, message.came_back) = (None, None);
                let mut expected = expected(Outcome::Done, false);
                expected.outcomes.extend(may_be_gone.then_some(Outcome::AlreadySettled));
                return expected;
            }
            Saying::Nack { pause_ms: pause } => {
                let pause_ms = pause.unwrap_or_else(|| pause_ms(&rules, message.now.failed + 1));
                self.fails(offset, now_ms, now_ms + pause_ms);
            }
            Saying::Release => self.comes_back(offset),
            Saying::Extend { by_ms } => {
                message.out.iter_mut().for_each(|out| out.deadline_ms = now_ms + by_ms);
                return expected(Outcome::Done, true);
            }
        }
        expected(Outcome::Done, false)
    }

    /// Those of its key that were delivered behind it come back with it.
    fn comes_back(&mut self, offset: Offset) {
        let (key, lease) = (self.key_of(self.at(offset)), self.at(offset).out.unwrap().lease);
        for message in &mut self.messages {
            let is_behind = key.is_some() && message.key == key && message.out.is_some_and(|out| out.lease > lease);
            if is_behind || message.position.offset() == offset {
                message.came_back = message.out.take().map(|out| out.lease);
            }
        }
    }

    fn fails(&mut self, offset: Offset, now_ms: u64, due_ms: u64) {
        self.comes_back(offset);
        let letters = self.letters + self.uncertain_letters();
        let has_room = letters < self.bounds.dead_letters;
        let most = self.rules.max_attempts;
        let message = self.at_mut(offset);
        assert!(message.certain.failed == message.now.failed, "an attempt that isn't certain was followed by another");
        message.now.failed += 1;
        if has_room && most.is_some_and(|most| message.now.failed >= most) {
            message.now.settled = Some(Why::Dead);
        } else {
            message.now.due_ms = due_ms.max(now_ms);
        }
    }

    fn uncertain_letters(&self) -> usize {
        let is_new = |message: &&Message| message.now.settled == Some(Why::Dead) && message.certain.settled.is_none();
        self.messages.iter().filter(is_new).count()
    }

    pub(crate) fn expire(&mut self, now_ms: u64) {
        loop {
            let out = self.messages.iter().filter_map(|message| Some((message.out?, message)));
            let overdue = out.filter(|(out, _)| out.deadline_ms <= now_ms);
            let Some((_, first)) = overdue.min_by_key(|(out, _)| (out.deadline_ms, out.lease)) else { return };
            let due_ms = now_ms + self.rules.retry.pause_ms(first.now.failed + 1, 0);
            self.fails(first.position.offset(), now_ms, due_ms);
        }
    }

    pub(crate) fn leaves(&mut self, session: SessionId, keeps: bool, now_ms: u64) {
        loop {
            let of_session = |out: &Out| out.session == Some(session);
            let out = self.messages.iter().filter_map(|message| Some((message.out.filter(of_session)?, message)));
            let Some((_, first)) = out.min_by_key(|(out, _)| out.lease) else { return };
            let offset = first.position.offset();
            if keeps {
                self.at_mut(offset).out.iter_mut().for_each(|out| out.session = None);
            } else {
                self.fails(offset, now_ms, now_ms);
            }
        }
    }

    /// Retention removed what lies before `floor`.
    pub(crate) fn trimmed(&mut self, floor: Offset) {
        self.floor = self.floor.max(floor);
        for message in self.messages.iter_mut().filter(|message| message.position.offset() < floor) {
            (message.out, message.came_back) = (None, None);
        }
    }

    pub(crate) fn proposed(&mut self) {
        self.messages.iter_mut().for_each(|message| message.proposed = message.now);
        self.is_proposed = true;
    }

    /// Whether all that was decided is certain. What was acknowledged after it expired may have been passed over before.
    pub(crate) fn is_all_certain(&self, now_ms: u64) -> bool {
        self.live().all(|message| message.now == message.certain || message.has_expired(now_ms))
    }

    pub(crate) fn committed(&mut self) {
        assert!(std::mem::take(&mut self.is_proposed));
        self.messages.iter_mut().for_each(|message| message.certain = message.proposed);
    }

    /// Another leader knows what is certain.
    pub(crate) fn forgets(&mut self, floor: Offset) {
        self.is_proposed = false;
        self.floor = floor;
        self.read.clear();
        for message in &mut self.messages {
            (message.now, message.out, message.came_back) = (message.certain, None, None);
        }
    }

    pub(crate) fn sought(&mut self) {
        self.messages.iter_mut().for_each(|message| message.certain = State::default());
    }
}

/// What is delivered.
impl Reference {
    /// A message of a key is due again, and what lies before it isn't read.
    fn is_reading_up(&self, now_ms: u64) -> bool {
        self.live().any(|message| {
            let is_due = message.is_vain() && message.out.is_none() && !message.is_waiting(now_ms);
            let Position { lane, place } = message.position;
            is_due && self.key_of(message).is_some() && self.read_upto(lane) <= place
        })
    }

    fn is_full(&self, now_ms: u64) -> bool {
        let unsettled = self.live().map(|message| usize::from(message.out.is_some()) + usize::from(message.is_vain()));
        unsettled.sum::<usize>() >= self.bounds.unsettled && !self.is_reading_up(now_ms)
    }

    /// Messages that nothing holds up.
    pub(crate) fn ready(&self, now_ms: u64) -> Vec<&Message> {
        let is_full = self.is_full(now_ms);
        let ready = self.live().filter(|message| {
            let Position { lane, place } = message.position;
            let is_read = place < self.read_upto(lane);
            let is_first = self.key_of(message).is_none_or(|key| {
                // What was forgotten of a long line must be read again first.
                let is_kept = self.bounds.keys.line.min(self.bounds.keys.lines_total) >= self.messages.len();
                let mut others = self.messages.iter().filter(|other| other.key == Some(key));
                let waits_for = |other: &Message| {
                    if other.position.offset() < self.floor {
                        return other.now.settled != other.certain.settled;
                    }
                    let is_unread = other.is_vain() && self.read_upto(other.position.lane) <= other.position.place;
                    is_unread || other.may_be_busy(now_ms) || (other.wanted && self.is_before(other, message, now_ms))
                };
                is_read && is_kept && !others.any(waits_for)
            });
            let is_known = is_read || message.is_vain();
            is_known && is_first && self.is_deliverable(message, now_ms) && (!is_full || message.is_vain())
        });
        ready.collect()
    }

    /// Whether an earlier message of the same key and lane is still to come.
    fn is_before(&self, other: &Message, message: &Message, now_ms: u64) -> bool {
        let is_earlier = other.position.lane == message.position.lane && other.position.place < message.position.place;
        is_earlier && other.certain.settled.is_none() && !other.has_expired(now_ms)
    }

    fn is_deliverable(&self, message: &Message, now_ms: u64) -> bool {
        let State { settled, .. } = message.now;
        settled.is_none() && message.out.is_none() && !message.is_waiting(now_ms) && !message.has_expired(now_ms)
    }

    /// Deliveries of one call, one after another.
    pub(crate) fn delivered(&mut self, deliveries: &[Delivery], now_ms: u64) {
        let mut batches: BTreeMap<u8, (SessionId, Vec<Offset>)> = BTreeMap::new();
        for Delivery { session, lease, position, attempt, .. } in deliveries {
            let message = self.at(position.offset());
            let told = || format!("{} of {message:?}", position.place);
            assert_eq!(message.position, *position);
            assert!(message.wanted, "filtered: {}", told());
            assert!(position.offset() >= self.floor, "before the start: {}", told());
            assert!(position.place.due_ms <= now_ms, "early: {}", told());
            assert!(message.certain.settled.is_none(), "settled: {}", told());
            assert!(self.is_deliverable(message, now_ms), "not at {now_ms}: {}", told());
            assert_eq!(*attempt, message.now.failed + 1, "{}", told());
            let higher = |other: &&&Message| other.position.lane.priority > position.lane.priority;
            let ready = self.ready(now_ms);
            assert!(ready.iter().find(higher).is_none(), "{:?} is higher than {}", ready.iter().find(higher), told());
            self.check_bound(message, now_ms);
            if let Some(key) = self.key_of(message) {
                self.check_key(message, batches.get(&key), *session, now_ms);
                let batch = batches.entry(key).or_insert((*session, Vec::new()));
                batch.1.push(position.offset());
            }
            let deadline_ms = now_ms + self.rules.ack_deadline_ms;
            let message = self.at_mut(position.offset());
            message.out = Some(Out { lease: *lease, session: Some(*session), deadline_ms });
            message.came_back = None;
        }
    }

    fn check_bound(&self, message: &Message, now_ms: u64) {
        // Nobody sees when one is passed over that has expired.
        let is_vain = |other: &Message| other.is_vain() && !other.has_expired(now_ms);
        let unsettled = self.live().filter(|other| other.out.is_some() || is_vain(other)).count();
        let key = self.key_of(message);
        let leads_to_vain = key.is_some() && self.live().any(|other| other.key == key && other.is_vain());
        let is_allowed =
            message.is_vain() || leads_to_vain || self.is_reading_up(now_ms) || unsettled < self.bounds.unsettled;
        assert!(is_allowed, "{unsettled} are unsettled, and {message:?} is delivered");
    }

    fn check_key(&self, message: &Message, batch: Option<&(SessionId, Vec<Offset>)>, session: SessionId, now_ms: u64) {
        let in_batch = |other: &Message| batch.is_some_and(|(_, batch)| batch.contains(&other.position.offset()));
        assert!(batch.is_none_or(|(holds, _)| *holds == session), "one batch, two subscribers: {message:?}");
        assert!(batch.is_none_or(|(_, batch)| batch.len() < self.bounds.keys.batch), "too many at once");
        for other in self.live().filter(|other| other.key == message.key && !in_batch(other)) {
            assert!(!other.is_busy(now_ms), "at {now_ms}, {message:?} while its key is busy with {other:?}");
            assert!(!self.is_before(other, message, now_ms), "at {now_ms}, {message:?} before {other:?}");
        }
    }

    /// How many are in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.messages.iter().filter(|message| message.out.is_some()).count()
    }
}

//! One partition, its leader, and what the leader would do for a subscription: each step is checked against the reference.

use std::collections::{BTreeMap, BTreeSet};

use quorate_model::partition::subscription::deliver::{
    Answer, Credits, Dispatcher, LeaseId, Outcome, Return, SessionId, WaiterId,
};
use quorate_model::partition::subscription::{KeyHash, Lane, Place, Position, SubscriptionRejected, SubscriptionState};
use quorate_model::{
    Change, Codec, DeliveryOptions, Machine, MachineKind, Offset, PartitionCommand, PartitionId, PartitionMachine,
    Record, RecordBatchBuilder, Reply, SubscriptionId, TopicId,
};

use crate::commands::{Command, Draft, Program, Saying};
use crate::reference::{Message, Reference, Why};

const PARTITION: PartitionId = PartitionId::new(TopicId::new(1), 0);
pub(crate) const SUBSCRIPTION: SubscriptionId = SubscriptionId::new(7);

/// How many messages each subscriber still takes.
#[derive(Default)]
pub(crate) struct Purses(pub(crate) BTreeMap<SessionId, u64>);

impl Credits for Purses {
    fn spend(&mut self, session: SessionId, _: u32) -> bool {
        let Some(left) = self.0.get_mut(&session).filter(|left| **left > 0) else { return false };
        *left -= 1;
        true
    }
}

/// A delivery that a subscriber may speak of.
#[derive(Clone, Copy)]
struct Handed {
    term: u64,
    lease: LeaseId,
    position: Position,
}

/// Somebody who waits for an answer.
struct Asked {
    what: Saying,
    position: Position,
    outcomes: Vec<Outcome>,
    /// How often the message had failed then.
    failed: u32,
}

pub(crate) struct World {
    pub(crate) program: Program,
    machine: Machine,
    index: u64,
    pub(crate) places: BTreeMap<Lane, BTreeSet<Place>>,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) now_ms: u64,
    pub(crate) reference: Reference,
    pub(crate) purses: Purses,
    proposed: Option<PartitionCommand>,
    term: u64,
    dispatchers: u64,
    handed: Vec<Handed>,
    asked: BTreeMap<WaiterId, Asked>,
    last_waiter: u64,
    /// Messages that became dead letters since the last seek, and how many did ever.
    letters: BTreeSet<Offset>,
    letters_ever: u32,
    last_seek: u64,
}

impl World {
    pub(crate) fn new(program: Program) -> Self {
        let mut machine = Machine::new(MachineKind::Partition(PARTITION));
        let begin = PartitionCommand::BeginSubscription { subscription: SUBSCRIPTION, start: Offset::ZERO };
        machine.apply(0, &begin.encode());
        let state = machine.as_partition().unwrap().subscriptions().get(SUBSCRIPTION).unwrap();
        let first_lease = LeaseId(1);
        let (rules, bounds) = (program.rules.clone(), program.bounds);
        Self {
            dispatcher: Dispatcher::new(SUBSCRIPTION, rules.clone(), bounds, state, first_lease),
            reference: Reference::new(rules, bounds),
            program,
            machine,
            index: 1,
            places: BTreeMap::new(),
            now_ms: 100,
            purses: Purses::default(),
            proposed: None,
            term: 1,
            dispatchers: 1,
            handed: Vec::new(),
            asked: BTreeMap::new(),
            last_waiter: 0,
            letters: BTreeSet::new(),
            letters_ever: 0,
            last_seek: 0,
        }
    }

    pub(crate) fn partition(&self) -> &PartitionMachine {
        self.machine.as_partition().unwrap()
    }

    pub(crate) fn state(&self) -> &SubscriptionState {
        self.partition().subscriptions().get(SUBSCRIPTION).unwrap()
    }

    pub(crate) fn run(&mut self, command: &Command) {
        match command {
            Command::Publish(drafts) => self.publish(drafts),
            Command::Grant { session, messages } => self.grant(SessionId(*session), *messages),
            Command::Leave { session, keeps } => {
                let session = SessionId(*session);
                self.purses.0.remove(&session);
                self.reference.leaves(session, *keeps, self.now_ms);
                if *keeps { self.dispatcher.detach(session) } else { self.dispatcher.leave(session, self.now_ms) }
            }
            Command::Deliver { reads, at_a_time } => self.deliver(*reads, *at_a_time),
            Command::Say { what, back, count } => {
                let back = 1 + back % self.handed.len().max(1);
                let from = self.handed.len().saturating_sub(back);
                let spoken_of: Vec<Handed> = self.handed.iter().skip(from).take(*count).copied().collect();
                spoken_of.into_iter().for_each(|handed| self.say(*what, handed));
            }
            Command::Propose { all } => self.propose(*all),
            Command::Commit => self.commit(),
            Command::Fail { is_carried_out, is_same_term } => self.fail(*is_carried_out, *is_same_term),
            Command::Advance(by_ms) => self.now_ms += by_ms,
            Command::Release => drop(self.apply(&PartitionCommand::Release { time_ms: self.now_ms })),
            Command::Mark => drop(self.apply(&PartitionCommand::Mark)),
            Command::Trim { percent } => drop(self.apply(&PartitionCommand::TrimTo { offset: self.part(*percent) })),
            Command::Seek { percent, is_carried_out_before } => self.seek(*percent, *is_carried_out_before),
            Command::SendLetter => self.send_letter(),
        }
        self.hear_answers();
        let gauges = self.dispatcher.gauges();
        assert_eq!(gauges.in_flight, self.reference.in_flight());
        assert!(self.state().outbox().len() <= self.program.bounds.dead_letters);
    }

    fn part(&self, percent: u64) -> Offset {
        let (start, end) = (self.partition().log_start().get(), self.partition().next_offset().get());
        Offset::new(start + (end - start) * percent / 100)
    }

    fn apply(&mut self, command: &PartitionCommand) -> Reply {
        let applied = self.machine.apply(self.index, &command.encode());
        self.index += 1;
        for change in applied.changes {
            match change {
                Change::Lanes(positions) => {
                    for Position { lane, place } in positions {
                        self.places.entry(lane).or_default().insert(place);
                    }
                }
                Change::LanesTrimmed(trimmed) => {
                    for (lane, end) in trimmed {
                        let places = self.places.entry(lane).or_default();
                        *places = places.split_off(&end);
                    }
                }
                Change::Segment(_) | Change::Checkpoint => {}
            }
        }
        let letters = self.state().outbox().len();
        self.reference.letters = letters;
        self.dispatcher.set_dead_letters(letters);
        applied.reply
    }

    fn publish(&mut self, drafts: &[Draft]) {
        let mut batch = RecordBatchBuilder::new(PARTITION, Codec::None, None);
        let mut options = Vec::new();
        for draft in drafts {
            let deliver_at_ms = draft.delay_ms.map_or(0, |delay_ms| self.now_ms + delay_ms);
            let lives_from_ms = deliver_at_ms.max(self.now_ms);
            let expire_at_ms = draft.lives_ms.map_or(0, |lives_ms| lives_from_ms + lives_ms);
            options.push(DeliveryOptions { priority: draft.priority, deliver_at_ms, expire_at_ms });
            let key = draft.key.map_or(String::new(), |key| key.to_string());
            batch.push(Record { options: options[options.len() - 1], ..Record::new(0, key, [], "x") }).unwrap();
        }
        let base = self.partition().next_offset().get();
        let batch = batch.build().unwrap().bytes().clone();
        self.apply(&PartitionCommand::Append { time_ms: self.now_ms, batch });
        for ((offset, draft), options) in (base..).map(Offset::new).zip(drafts).zip(options) {
            let lanes = self.places.iter().flat_map(|(lane, places)| places.iter().map(|place| (*lane, *place)));
            let found = lanes.map(|(lane, place)| Position { lane, place }).find(|found| found.offset() == offset);
            let position = found.unwrap_or(Position::at(offset));
            assert_eq!(position.lane.priority, draft.priority);
            assert!(position.place.due_ms >= options.deliver_at_ms);
            self.reference.messages.push(Message::new(position, draft.key, options.expire_at_ms, draft.wanted));
        }
    }

    pub(crate) fn grant(&mut self, session: SessionId, messages: u64) {
        *self.purses.0.entry(session).or_default() += messages;
        self.dispatcher.join(session);
    }

    /// A turn of the leader, as far as that is about deliveries.
    pub(crate) fn deliver(&mut self, reads: usize, at_a_time: usize) {
        self.dispatcher.expire(self.now_ms, || 0);
        self.reference.expire(self.now_ms);
        self.read(reads, at_a_time);
        let has_ready = self.dispatcher.has_ready(self.now_ms);
        let before = self.purses.0.values().sum::<u64>();
        let deliveries =
            if has_ready { self.dispatcher.take(self.now_ms, &mut self.purses, |_| false) } else { Vec::new() };
        self.reference.delivered(&deliveries, self.now_ms);
        let after: u64 = self.purses.0.values().sum();
        assert_eq!(before - after, deliveries.len() as u64);
        let ready = self.reference.ready(self.now_ms);
        // Beyond the bound on intervals what is new waits until older messages are settled; that it comes is checked at the end.
        let may_wait = self.program.bounds.intervals < 100;
        assert!(may_wait || after == 0 || ready.is_empty(), "at {}, nobody gets {ready:?}", self.now_ms);
        let term = self.term;
        self.handed.extend(deliveries.iter().map(|delivery| {
            let (lease, position) = (delivery.lease, delivery.position);
            Handed { term, lease, position }
        }));
    }

    fn say(&mut self, what: Saying, handed: Handed) {
        let Handed { term, lease, position } = handed;
        let lease = (term == self.term).then_some(lease);
        self.last_waiter += 1;
        let (waiter, now_ms) = (WaiterId(self.last_waiter), self.now_ms);
        let expected = self.reference.say(what, lease, position.offset(), now_ms);
        let failed =
            self.reference.at(position.offset()).certain.failed + u32::from(expected.outcomes == [Outcome::Done]);
        self.asked.insert(waiter, Asked { what, position, outcomes: expected.outcomes, failed });
        match what {
            Saying::Ack => self.dispatcher.acknowledge(lease, position, waiter),
            Saying::Nack { pause_ms } => {
                let returned = Return::Failed { pause_ms, error: String::new() };
                self.dispatcher.give_back(lease, position, returned, (now_ms, 0), waiter);
            }
            Saying::Release => self.dispatcher.give_back(lease, position, Return::Untouched, (now_ms, 0), waiter),
            Saying::Extend { by_ms } => self.dispatcher.extend(lease, position, now_ms + by_ms, waiter),
        }
        self.hear_answers();
        assert!(!(expected.is_at_once && self.asked.contains_key(&waiter)), "{what:?} isn't answered at once");
    }

    /// Whoever is told that something is done can rely on it.
    fn hear_answers(&mut self) {
        for Answer { waiter, outcome } in self.dispatcher.answers() {
            let Asked { what, position, outcomes, failed } = self.asked.remove(&waiter).expect("one answer each");
            assert!(outcomes.contains(&outcome), "{what:?} of {}: {outcome:?} and not {outcomes:?}", position.place);
            let is_settled = self.state().is_settled(position);
            let attempts = self.state().retries().get(&position).map_or(0, |retry| retry.attempts);
            match (what, outcome) {
                (_, Outcome::AlreadySettled) | (Saying::Ack, Outcome::Done) => {
                    assert!(is_settled, "{what:?} of {} is {outcome:?}, and nobody knows", position.place);
                }
                (Saying::Nack { .. }, Outcome::Done) => assert!(is_settled || attempts >= failed),
                _ => {}
            }
        }
        let is_quiet = self.proposed.is_none() && !self.dispatcher.has_pending();
        assert!(!is_quiet || self.asked.is_empty(), "nothing is under way, and somebody waits");
    }

    pub(crate) fn propose(&mut self, all: bool) {
        if self.proposed.is_some() {
            return assert!(self.dispatcher.settlement(all).is_none(), "one at a time");
        }
        match self.dispatcher.settlement(all) {
            Some(settlement) => {
                self.reference.proposed();
                self.proposed = Some(PartitionCommand::Settle(settlement));
            }
            None => assert!(self.reference.is_all_certain(self.now_ms), "something was forgotten"),
        }
    }

    pub(crate) fn commit(&mut self) {
        let Some(proposed) = self.proposed.take() else { return };
        self.carry_out(&proposed);
        self.dispatcher.confirmed();
        self.hear_answers();
    }

    fn carry_out(&mut self, proposed: &PartitionCommand) {
        let reply = self.apply(proposed);
        assert!(matches!(reply, Reply::Subscription(Ok(_))), "{reply:?}");
        self.reference.committed();
        self.hear_of_letters();
        self.check_state();
    }

    fn hear_of_letters(&mut self) {
        let letters: Vec<(u32, Offset, u32)> = {
            let letters = self.state().outbox().letters();
            letters.map(|(number, letter)| (number, letter.offset, letter.attempts)).collect()
        };
        for (number, offset, attempts) in letters {
            if number < self.letters_ever {
                continue;
            }
            assert_eq!(number, self.letters_ever);
            self.letters_ever += 1;
            assert!(self.letters.insert(offset), "{offset} became a dead letter twice");
            let certain = self.reference.at(offset).certain;
            assert_eq!((certain.settled, certain.failed), (Some(Why::Dead), attempts));
        }
    }

    /// What is certain is what the machine says.
    fn check_state(&self) {
        let state = self.state();
        for message in &self.reference.messages {
            let (position, certain) = (message.position, message.certain);
            if position.offset() < state.start() {
                continue;
            }
            let may_be_passed_over = !message.wanted || message.has_expired(self.now_ms);
            let is_settled = state.is_settled(position);
            assert!(is_settled || certain.settled.is_none(), "not settled: {message:?}");
            assert!(!is_settled || certain.settled.is_some() || may_be_passed_over, "lost: {message:?}");
            if !is_settled {
                let retry = state.retries().get(&position).map(|retry| (retry.attempts, retry.due_ms));
                assert_eq!(retry, (certain.failed > 0).then_some((certain.failed, certain.due_ms)));
            }
            let is_dead = certain.settled == Some(Why::Dead);
            assert_eq!(is_dead, self.letters.contains(&position.offset()), "{message:?}");
        }
        assert_eq!(u64::from(self.letters_ever), state.tally().dead_lettered);
    }

    pub(crate) fn fail(&mut self, is_carried_out: bool, is_same_term: bool) {
        if let Some(proposed) = self.proposed.take().filter(|_| is_carried_out) {
            self.carry_out(&proposed);
        }
        let checkpoint = self.machine.checkpoint();
        let restored = Machine::restore(self.machine.kind(), &checkpoint).unwrap();
        assert_eq!(restored, self.machine);
        self.term += u64::from(!is_same_term);
        self.purses = Purses::default();
        self.begin_anew();
    }

    fn seek(&mut self, percent: u64, is_carried_out_before: bool) {
        let proposed = self.proposed.take();
        if let Some(proposed) = proposed.as_ref().filter(|_| is_carried_out_before) {
            self.carry_out(proposed);
        }
        self.last_seek += 1;
        let (subscription, request, to) = (SUBSCRIPTION, self.last_seek, self.part(percent));
        assert_eq!(self.apply(&PartitionCommand::Seek { subscription, request, to }), Reply::Seeked(to));
        if let Some(proposed) = proposed.filter(|_| !is_carried_out_before) {
            let reply = self.apply(&proposed);
            let moved = |rejected: &SubscriptionRejected| matches!(rejected, SubscriptionRejected::Moved { .. });
            assert!(matches!(&reply, Reply::Subscription(Err(rejected)) if moved(rejected)), "{reply:?}");
        }
        self.reference.sought();
        self.letters.clear();
        // What was delivered before belongs to another generation, and is refused at the door.
        self.handed.clear();
        let sessions: Vec<SessionId> = self.purses.0.keys().copied().collect();
        self.begin_anew();
        sessions.into_iter().for_each(|session| self.dispatcher.join(session));
    }

    fn begin_anew(&mut self) {
        let first_lease = LeaseId(1 + 100_000 * self.dispatchers);
        self.dispatchers += 1;
        let (rules, bounds) = (self.program.rules.clone(), self.program.bounds);
        let dispatcher = Dispatcher::new(SUBSCRIPTION, rules, bounds, self.state(), first_lease);
        let unanswered: BTreeSet<WaiterId> = std::mem::replace(&mut self.dispatcher, dispatcher).unanswered().collect();
        let waiting: BTreeSet<WaiterId> = std::mem::take(&mut self.asked).into_keys().collect();
        assert_eq!(unanswered, waiting);
        self.reference.forgets(self.state().start());
        self.check_state();
    }

    pub(crate) fn send_letter(&mut self) {
        let Some(number) = self.state().outbox().letters().next().map(|(number, _)| number) else { return };
        self.apply(&PartitionCommand::DeadLettersSent { subscription: SUBSCRIPTION, next: number + 1 });
    }

    /// Delivers, and acknowledges all of it.
    pub(crate) fn turn_and_acknowledge(&mut self) {
        let before = self.handed.len();
        self.deliver(usize::MAX, 5);
        let handed = self.handed.split_off(before);
        handed.into_iter().for_each(|handed| self.say(Saying::Ack, handed));
    }

    /// Whether something is left to do, after time has moved on to it.
    pub(crate) fn goes_on(&mut self) -> bool {
        let is_busy = |world: &World| {
            world.dispatcher.has_ready(world.now_ms)
                || world.dispatcher.wants().is_some()
                || world.dispatcher.has_pending()
                || world.reference.in_flight() > 0
                || !world.state().outbox().is_empty()
        };
        if is_busy(self) && self.dispatcher.next_due_ms(self.now_ms).is_none() {
            return true;
        }
        let released_ms = self.partition().lanes().released_ms();
        let delayed = self.places.iter().filter(|(lane, _)| lane.delayed).flat_map(|(_, places)| places);
        let unreleased = delayed.map(|place| place.due_ms).filter(|due_ms| *due_ms > released_ms).min();
        let next = self.dispatcher.next_due_ms(self.now_ms).into_iter().chain(unreleased).min();
        self.now_ms = next.unwrap_or(self.now_ms).max(self.now_ms);
        if unreleased.is_some_and(|due_ms| due_ms <= self.now_ms) {
            self.apply(&PartitionCommand::Release { time_ms: self.now_ms });
        }
        next.is_some() || is_busy(self)
    }

    /// The key as the dispatcher knows it.
    pub(crate) fn key(message: &Message) -> Option<KeyHash> {
        message.key.map(|key| KeyHash(key.into()))
    }
}

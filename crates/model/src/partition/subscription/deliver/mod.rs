//! Who gets which message next, and what follows from it: the leader's part of a subscription in one partition.
//!
//! A [`Dispatcher`] lives as long as its leader leads. It does no IO and has no clock: it says what it wants to be read
//! ([`Dispatcher::wants`]), is told what was found, who can take messages and what they say, and hands out deliveries
//! ([`Dispatcher::take`]). What must outlive it leaves as a [`Settlement`]; whoever proposes that says when it is certain
//! ([`Dispatcher::confirmed`]), and only then are acknowledgements answered, later attempts scheduled, and the next
//! messages of an ordering key let go. A dispatcher whose settlement didn't become certain is given up, for a new one.
//!
//! ```text
//!  unread ─► ready ─► in flight ─► acknowledged ─► settled
//!              ▲          └─► returned ─► scheduled ─┐
//!              └──── in line, behind its key ◄───────┘
//! ```

mod leases;
mod lines;
mod pending;
mod reading;
mod ready;
mod sessions;
mod settling;

use std::collections::{BTreeMap, BTreeSet};

pub use pending::{Answer, Outcome};
pub use sessions::Credits;

use self::leases::{Lease, Leases};
use self::lines::Lines;
use self::pending::{Pending, Then};
use self::ready::{Ready, ReadyQueue};
use self::sessions::Sessions;
use super::{KeyHash, Lane, Place, Position, Retry, Settled, SubscriptionState};
use crate::ids::{Offset, SubscriptionId};
use crate::limits::{KEY_BATCH_MAX, KEY_LINE_MAX, KEY_LINES_TOTAL_MAX};
use crate::policy::RetryPolicy;

/// One who takes messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// A delivery, unique for as long as its leader leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeaseId(pub u64);

/// Somebody who waits for an [`Answer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WaiterId(pub u64);

/// What the subscription says about its deliveries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How long a message may be in flight, unless its time is extended.
    pub ack_deadline_ms: u64,
    /// When it is delivered again after it was returned or kept for too long.
    pub retry: RetryPolicy,
    /// After so many attempts it goes to the dead letters instead.
    pub max_attempts: Option<u32>,
    /// Whether messages of one key keep their order.
    pub ordered: bool,
}

/// What a dispatcher may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Messages in flight, and messages that were delivered in vain: beyond them only those are delivered again.
    pub unsettled: usize,
    /// Intervals of settled messages: beyond them nothing new is read until older messages are settled.
    pub intervals: usize,
    /// Messages of one lane that were read and can be handed out.
    pub read_ahead: usize,
    /// Dead letters that wait to be published: beyond them messages are tried once more.
    pub dead_letters: usize,
    /// What a dispatcher may hold of ordering keys.
    pub keys: KeyBounds,
}

/// What a dispatcher may hold of ordering keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyBounds {
    /// Messages of one key that wait in line.
    pub line: usize,
    /// Messages that wait in line, over all keys: beyond them one of each key.
    pub lines_total: usize,
    /// Messages of one key that may be in flight at once, all at the same subscriber.
    pub batch: usize,
}

impl KeyBounds {
    /// Those of a broker. Tests have smaller ones, to meet them.
    pub const LIMITS: KeyBounds =
        KeyBounds { line: KEY_LINE_MAX, lines_total: KEY_LINES_TOTAL_MAX, batch: KEY_BATCH_MAX };
}

/// What should be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// The next messages of a lane.
    Lane {
        /// Which, and from where on.
        from: Position,
        /// Where it ends.
        upto: Place,
    },
    /// Messages of one ordering key that were read before and forgotten.
    Key {
        /// The key.
        key: KeyHash,
        /// The lane, and from where on.
        from: Position,
        /// Where to end.
        upto: Place,
    },
}

/// A message that was read, and that the subscription wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its place.
    pub place: Place,
    /// What is delivered.
    pub parcel: Parcel,
    /// Its ordering key, if it has one.
    pub key: Option<KeyHash>,
}

/// What there is to know of a message to deliver it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parcel {
    /// Size of its data.
    pub bytes: u32,
    /// From then on it isn't delivered any more; 0: always.
    pub expires_ms: u64,
}

/// A message on its way to a subscriber.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// To whom.
    pub session: SessionId,
    /// Its name.
    pub lease: LeaseId,
    /// Which message.
    pub position: Position,
    /// 1 for the first.
    pub attempt: u32,
    /// What a subscriber said when it was last returned.
    pub error: String,
}

/// How a message comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Return {
    /// It was tried in vain, for this reason.
    Failed {
        /// The pause before the next attempt; `None`: as the retry policy says.
        pause_ms: Option<u64>,
        /// In the subscriber's words.
        error: String,
    },
    /// It wasn't tried: this attempt doesn't count.
    Untouched,
}

/// Numbers for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Messages in flight.
    pub in_flight: usize,
    /// Messages that wait for their next attempt.
    pub scheduled: usize,
    /// Messages that can be handed out at once.
    pub ready: usize,
    /// Subscribers.
    pub sessions: usize,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Dispatcher {
    subscription: SubscriptionId,
    generation: u32,
    rules: Rules,
    bounds: Bounds,
    /// What is settled, including what isn't certain yet.
    settled: BTreeMap<Lane, Settled>,
    /// Messages that were delivered in vain, including what isn't certain yet.
    retries: BTreeMap<Position, Retry>,
    /// Nothing that stands in the log before it is delivered.
    floor: Offset,
    /// How far each lane can be read.
    ends: BTreeMap<Lane, Place>,
    /// How far each lane was read.
    read: BTreeMap<Lane, Place>,
    ready: ReadyQueue,
    /// When messages are due for their next attempt.
    schedule: BTreeSet<(u64, Position)>,
    leases: Leases,
    /// Messages that were delivered and came back: by which lease the last time, and the key that they are to be in order of.
    came_back: BTreeMap<Position, (LeaseId, Option<KeyHash>)>,
    lines: Lines,
    sessions: Sessions,
    pending: Pending,
    /// What follows from the settlement that is being proposed.
    proposed: Option<Then>,
    answers: Vec<Answer>,
    /// Messages are due that were delivered by an earlier leader, and what lies before them isn't read yet.
    is_reading_up: bool,
    /// Dead letters that are certain and not published.
    dead_letters: usize,
    /// Numbers the calls of [`Dispatcher::take`].
    round: u64,
}

impl Dispatcher {
    /// The dispatcher of a leader that has just been elected: everything that isn't settled is to be delivered. Leases are
    /// numbered from `first_lease` on, which tells them from those of another dispatcher of the same term.
    pub fn new(
        subscription: SubscriptionId,
        rules: Rules,
        bounds: Bounds,
        state: &SubscriptionState,
        first_lease: LeaseId,
    ) -> Self {
        let mut lines = Lines::new(bounds.keys);
        for (position, retry) in state.retries() {
            if let Some(key) = retry.key.filter(|_| rules.ordered) {
                lines.goes_out(key, *position, None);
            }
        }
        let mut dispatcher = Self {
            subscription,
            generation: state.generation(),
            rules,
            bounds,
            floor: state.start(),
            ends: BTreeMap::new(),
            read: BTreeMap::new(),
            settled: state.lanes().clone(),
            retries: state.retries().clone(),
            ready: ReadyQueue::default(),
            schedule: state.retries().iter().map(|(position, retry)| (retry.due_ms, *position)).collect(),
            leases: Leases::from(first_lease),
            came_back: BTreeMap::new(),
            lines,
            sessions: Sessions::default(),
            pending: Pending::default(),
            proposed: None,
            answers: Vec::new(),
            is_reading_up: false,
            dead_letters: state.outbox().len(),
            round: 0,
        };
        dispatcher.pass_over_before_the_floor();
        dispatcher
    }

    /// From now on the subscription says this. What is in flight keeps its deadline.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// So many dead letters are certain and wait to be published.
    pub fn set_dead_letters(&mut self, waiting: usize) {
        self.dead_letters = waiting;
    }

    /// Numbers for people.
    pub fn gauges(&self) -> Gauges {
        Gauges {
            in_flight: self.leases.len(),
            scheduled: self.schedule.len(),
            ready: self.ready.len(),
            sessions: self.sessions.len(),
        }
    }

    /// Whether a message could be handed out now.
    pub fn has_ready(&self, now_ms: u64) -> bool {
        let due = self.schedule.first().is_some_and(|(due_ms, _)| *due_ms <= now_ms);
        self.sessions.len() > 0 && (due || !self.ready.is_empty())
    }

    /// When something is to be done although nobody says anything: a lease ends, or a message is due. One that was due by
    /// `now_ms` and wasn't handed out waits for somebody who takes it, not for time.
    pub fn next_due_ms(&self, now_ms: u64) -> Option<u64> {
        let later = (now_ms.saturating_add(1), Position::at(Offset::ZERO));
        let due = self.schedule.range(later..).next().map(|(due_ms, _)| *due_ms);
        due.into_iter().chain(self.leases.first_deadline_ms()).min()
    }
}

/// Delivering.
impl Dispatcher {
    /// A session wants messages.
    pub fn join(&mut self, session: SessionId) {
        self.sessions.insert(session);
    }

    /// Hands out what is ready, by turns to those with credit; what was deleted is done with, and costs nobody's.
    pub fn take(
        &mut self,
        now_ms: u64,
        credits: &mut impl Credits,
        is_deleted: impl Fn(Offset) -> bool,
    ) -> Vec<Delivery> {
        self.round += 1;
        self.make_due(now_ms);
        let (mut deliveries, mut without, mut keys_in_vain) = (Vec::new(), BTreeSet::new(), None);
        while let Some(session) = self.sessions.next(&without)
            && let Some((position, next)) = self.next_ready(&mut keys_in_vain)
        {
            if self.is_settled(position) {
                self.let_go(position);
                continue;
            }
            if (1..=now_ms).contains(&next.parcel.expires_ms) {
                self.let_expire(position);
                continue;
            }
            if is_deleted(position.offset()) {
                self.withdraw_for_good(position, next.key);
                continue;
            }
            if next.key.is_some_and(|key| self.lines.is_forgotten(key, position)) {
                // Earlier ones of its key were forgotten: it is read again behind them.
                continue;
            }
            match (self.who_gets(next.key, session), next.key) {
                (Some(gets), _) if credits.spend(gets, next.parcel.bytes) => {
                    deliveries.push(self.deliver(gets, position, next, now_ms));
                }
                (Some(gets), None) => {
                    without.insert(gets);
                    self.ready.insert(position, next);
                }
                (Some(gets), Some(key)) if gets == session => {
                    without.insert(gets);
                    self.make_ready(position, next.parcel, Some(key));
                }
                // Whoever has the key takes no more, or it is out: in line, then.
                (_, Some(key)) => self.lines.wait(key, position, next.parcel),
                (None, None) => {}
            }
        }
        deliveries
    }

    /// What is ready and first. If as much is unsettled as may be, that is what was delivered before and the earlier
    /// messages of its keys, unless some of it waits until what lies before it was read.
    fn next_ready(&mut self, keys_in_vain: &mut Option<BTreeSet<KeyHash>>) -> Option<(Position, Ready)> {
        let full = self.leases.len() + self.retries.len() >= self.bounds.unsettled && !self.is_reading_up;
        if !full {
            return self.ready.take_first(|_, _| true);
        }
        let keys_in_vain = keys_in_vain.get_or_insert_with(|| self.retries.values().filter_map(|it| it.key).collect());
        self.ready.take_first(|position, ready| {
            self.retries.contains_key(&position) || ready.key.is_some_and(|key| keys_in_vain.contains(&key))
        })
    }

    /// A message is passed over, because its time is over.
    fn let_expire(&mut self, position: Position) {
        self.retries.remove(&position);
        self.came_back.remove(&position);
        let Position { lane, place } = position;
        self.settled.entry(lane).or_default().insert(place..place.next());
        self.pending.settle(lane, place..place.next());
        self.pending.expired += 1;
    }

    /// Who may get a message of this key, if it is `session`'s turn.
    fn who_gets(&self, key: Option<KeyHash>, session: SessionId) -> Option<SessionId> {
        let Some(key) = key.filter(|key| self.rules.ordered && !self.lines.is_free(*key)) else { return Some(session) };
        self.lines.batch(key, self.round).filter(|session| self.sessions.contains(*session))
    }

    fn deliver(&mut self, session: SessionId, position: Position, next: Ready, now_ms: u64) -> Delivery {
        let Ready { parcel, key } = next;
        let earlier = self.retries.get(&position);
        let attempt = earlier.map_or(0, |retry| retry.attempts) + 1;
        let first_delivered_ms = earlier.map_or(now_ms, |retry| retry.first_delivered_ms);
        let error = earlier.map(|retry| retry.error.clone()).unwrap_or_default();
        let deadline_ms = now_ms.saturating_add(self.rules.ack_deadline_ms);
        let lease =
            self.leases.insert(Lease { session, position, attempt, deadline_ms, first_delivered_ms, parcel, key });
        self.came_back.remove(&position);
        self.sessions.hand(session, lease);
        if let Some(key) = key.filter(|_| self.rules.ordered) {
            self.lines.goes_out(key, position, Some((session, self.round)));
        }
        Delivery { session, lease, position, attempt, error }
    }

    /// Messages whose next attempt is due are ready, those of busy keys in line. A new leader has yet to read what lies before
    /// them: until then a message with a key would overtake others of it.
    fn make_due(&mut self, now_ms: u64) {
        let due = (0, Position::FIRST)..=(now_ms, Position::LAST);
        let due: Vec<(u64, Position)> = self.schedule.range(due).copied().collect();
        self.is_reading_up = false;
        for (due_ms, position) in due {
            let retry = self.retries.get(&position);
            let key = retry.and_then(|retry| retry.key);
            if key.is_some() && self.read_upto(position.lane) <= position.place {
                self.is_reading_up = true;
                continue;
            }
            self.schedule.remove(&(due_ms, position));
            let Some(retry) = retry else { continue };
            let parcel = Parcel { bytes: retry.bytes, expires_ms: retry.expires_ms };
            if let Some(key) = key {
                self.lines.comes_back(key, position);
            }
            self.make_ready(position, parcel, key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Credit without end.
    struct Endless;

    impl Credits for Endless {
        fn spend(&mut self, _: SessionId, _: u32) -> bool {
            true
        }
    }

    /// An actor that was woken for it again and again would do nothing else.
    #[test]
    fn what_is_due_and_taken_by_nobody_wakes_nobody() {
        let retry = RetryPolicy::Fixed { pause_ms: 100 };
        let rules = Rules { ack_deadline_ms: 1_000, retry, ordered: false, max_attempts: None };
        let bounds = Bounds { unsettled: 10, intervals: 10, read_ahead: 10, dead_letters: 10, keys: KeyBounds::LIMITS };
        let state = SubscriptionState::new(Offset::ZERO);
        let mut dispatcher = Dispatcher::new(SubscriptionId::new(1), rules, bounds, &state, LeaseId(1));
        dispatcher.join(SessionId(1));
        let place = Place::at(Offset::ZERO);
        let parcel = Parcel { bytes: 1, expires_ms: 0 };
        dispatcher.offer(Lane::LOG, place..place.next(), &[Candidate { place, parcel, key: None }]);
        assert_eq!(dispatcher.take(5, &mut Endless, |_| false).len(), 1);
        dispatcher.leave(SessionId(1), 10);
        assert!(dispatcher.settlement(false).is_some());
        dispatcher.confirmed();
        assert_eq!(dispatcher.next_due_ms(9), Some(10));
        assert_eq!(dispatcher.next_due_ms(10), None);
    }
}

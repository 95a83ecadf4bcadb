//! What a subscription has settled in one partition. Replicated: it survives the leader.
//!
//! Settled is what needn't be delivered again: acknowledged, passed over, or on its way to the dead letters. What is in
//! flight, to whom, and until when, only the leader knows ([`deliver`]); after a failover everything that isn't settled
//! is delivered, with the number of attempts that is noted here (ADR 0015).

mod dead_letters;
pub mod deliver;
mod place;
mod settled;
mod snapshot;
mod standing;

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

pub use dead_letters::{DeadLetter, Outbox};
pub use place::{Lane, Place, Position};
pub use settled::Settled;
pub use snapshot::{Snapshot, SubscriptionSnapshot};
pub use standing::{ATTEMPTS_BUCKETS, Standing};

use crate::ids::{Offset, SubscriptionId};

/// The state of one subscription in one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionState {
    /// Grows whenever the subscription is moved, so that what was delivered before can't settle anything after.
    generation: u32,
    /// Of the last seek, so that one that comes again moves nothing.
    last_seek: Option<u64>,
    /// Nothing before it is delivered.
    start: Offset,
    lanes: BTreeMap<Lane, Settled>,
    /// Messages that were returned, or kept for too long, and aren't settled.
    retries: BTreeMap<Position, Retry>,
    outbox: Outbox,
    tally: Tally,
}

/// A message that was delivered in vain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// How often it was delivered.
    pub attempts: u32,
    /// When it is due again, by the leader's clock.
    pub due_ms: u64,
    /// When it was delivered for the first time.
    pub first_delivered_ms: u64,
    /// Size of its data.
    pub bytes: u32,
    /// From then on it isn't delivered any more; 0: always.
    pub expires_ms: u64,
    /// Stands for its ordering key, if that counts.
    pub key: Option<KeyHash>,
    /// Why it was returned, in the subscriber's words. Empty: it didn't say.
    pub error: String,
}

/// Stands for an ordering key. Two keys with the same one wait for each other, which harms nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeyHash(pub u64);

impl KeyHash {
    /// Of a message's ordering key; `None` if it has none.
    pub fn of(key: &[u8]) -> Option<KeyHash> {
        (!key.is_empty()).then(|| KeyHash(xxh3_64(key)))
    }
}

/// What became of messages of one subscription, as its leader tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    /// The subscription.
    pub subscription: SubscriptionId,
    /// As [`SubscriptionState::generation`] was when the messages were delivered.
    pub generation: u32,
    /// What is settled now.
    pub settled: BTreeMap<Lane, Settled>,
    /// What is to be delivered again.
    pub retries: Vec<(Position, Retry)>,
    /// What goes to the dead letters. Settled by that, too.
    pub dead: Vec<(Position, DeadLetter)>,
    /// How many messages of what is settled were acknowledged.
    pub acknowledged: u64,
    /// How many were passed over because their time was over.
    pub expired: u64,
}

/// Counts of what a subscription did in one partition, ever since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Messages acknowledged.
    pub acknowledged: u64,
    /// Deliveries in vain.
    pub returned: u64,
    /// Messages that went to the dead letters.
    pub dead_lettered: u64,
    /// Messages that were passed over because their time was over.
    pub expired: u64,
    /// Messages that retention removed before they were settled.
    pub lost: u64,
}

/// A partition's answer to a command about a subscription that was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionChanged {
    /// Its generation.
    pub generation: u32,
}

/// Why a command about a subscription wasn't carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum SubscriptionRejected {
    /// It was never begun in this partition, or has ended.
    #[error("subscription {subscription} is not known in this partition")]
    Unknown {
        /// The subscription.
        subscription: SubscriptionId,
    },
    /// It was moved since.
    #[error("subscription {subscription} was moved since: its generation is {current}, not {presented}")]
    Moved {
        /// The subscription.
        subscription: SubscriptionId,
        /// Its generation.
        current: u32,
        /// The one named.
        presented: u32,
    },
}

/// All subscriptions of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscriptions {
    states: BTreeMap<SubscriptionId, SubscriptionState>,
    /// How often one of them was moved.
    seeks: u64,
}

impl Subscriptions {
    /// The state of one.
    pub fn get(&self, subscription: SubscriptionId) -> Option<&SubscriptionState> {
        self.states.get(&subscription)
    }

    /// Which there are.
    pub fn ids(&self) -> impl Iterator<Item = SubscriptionId> {
        self.states.keys().copied()
    }

    /// How often one of them was moved: while it stays the same, all are where they were.
    pub fn seeks(&self) -> u64 {
        self.seeks
    }

    /// Begins one, unless it has begun.
    pub(super) fn begin(&mut self, subscription: SubscriptionId, start: Offset) -> SubscriptionChanged {
        let state = self.states.entry(subscription).or_insert_with(|| SubscriptionState::new(start));
        SubscriptionChanged { generation: state.generation }
    }

    /// Ends one. It needn't be there.
    pub(super) fn end(&mut self, subscription: SubscriptionId) -> SubscriptionChanged {
        let ended = self.states.remove(&subscription);
        SubscriptionChanged { generation: ended.map_or(0, |state| state.generation) }
    }

    /// Notes what became of messages.
    pub(super) fn settle(&mut self, settlement: Settlement) -> Result<SubscriptionChanged, SubscriptionRejected> {
        let Settlement { subscription, generation: presented, .. } = settlement;
        let unknown = SubscriptionRejected::Unknown { subscription };
        let state = self.states.get_mut(&subscription).ok_or(unknown)?;
        let current = state.generation;
        if current != presented {
            return Err(SubscriptionRejected::Moved { subscription, current, presented });
        }
        state.settle(settlement);
        Ok(SubscriptionChanged { generation: current })
    }

    /// Dead letters with numbers below `next` are published.
    pub(super) fn dead_letters_sent(
        &mut self,
        subscription: SubscriptionId,
        next: u32,
    ) -> Result<SubscriptionChanged, SubscriptionRejected> {
        let state = self.states.get_mut(&subscription).ok_or(SubscriptionRejected::Unknown { subscription })?;
        state.outbox.sent(next);
        Ok(SubscriptionChanged { generation: state.generation })
    }

    /// Moves one, which needn't have begun, unless this request has; where it stands then.
    pub(super) fn seek(&mut self, subscription: SubscriptionId, request: u64, to: Offset) -> Offset {
        let state = self.states.entry(subscription).or_insert_with(|| SubscriptionState::new(to));
        if state.last_seek != Some(request) {
            state.seek(request, to);
            self.seeks += 1;
        }
        state.start
    }

    /// Takes one back to a snapshot, as far as the log still reaches; where it stands then.
    pub(super) fn restore(
        &mut self,
        subscription: SubscriptionId,
        request: u64,
        snapshot: &Snapshot,
        log: Range<Offset>,
        ends: &BTreeMap<Lane, Place>,
    ) -> Offset {
        let seeks = self.seeks;
        let start = self.seek(subscription, request, snapshot.start().min(log.end).max(log.start));
        if self.seeks > seeks
            && let Some(state) = self.states.get_mut(&subscription)
        {
            for (lane, places) in snapshot.settled(ends) {
                state.lanes.entry(lane).or_default().insert(places);
            }
        }
        start
    }

    /// Forgets what is settled. For a planted bug only.
    pub(super) fn sabotage(&mut self) {
        for state in self.states.values_mut() {
            state.lanes.clear();
            state.pass_to(state.start);
        }
    }

    /// Retention removed what lies before `log_start`.
    pub(super) fn trim_to(&mut self, log_start: Offset) {
        self.states.values_mut().for_each(|state| state.trim_to(log_start));
    }
}

impl SubscriptionState {
    /// One that begins here, and has settled nothing from there on.
    pub fn new(start: Offset) -> Self {
        let mut state = Self {
            generation: 1,
            last_seek: None,
            start,
            lanes: BTreeMap::new(),
            retries: BTreeMap::new(),
            outbox: Outbox::default(),
            tally: Tally::default(),
        };
        state.pass_to(start);
        state
    }

    /// Grows whenever the subscription is moved.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Nothing before it is delivered.
    pub fn start(&self) -> Offset {
        self.start
    }

    /// What is settled, by lane.
    pub fn lanes(&self) -> &BTreeMap<Lane, Settled> {
        &self.lanes
    }

    /// Messages that were delivered in vain and aren't settled.
    pub fn retries(&self) -> &BTreeMap<Position, Retry> {
        &self.retries
    }

    /// Dead letters that aren't published yet.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// What it did so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Whether a message is settled.
    pub fn is_settled(&self, position: Position) -> bool {
        position.offset() < self.start
            || self.lanes.get(&position.lane).is_some_and(|settled| settled.contains(position.place))
    }

    fn settle(&mut self, settlement: Settlement) {
        // A message moves there once, and by that it is settled.
        for (position, letter) in settlement.dead {
            if !self.is_settled(position) {
                self.outbox.push(letter);
                self.tally.dead_lettered += 1;
                self.retries.remove(&position);
                let Position { lane, place } = position;
                self.lanes.entry(lane).or_default().insert(place..place.next());
            }
        }
        for (lane, settled) in settlement.settled {
            for places in settled.intervals() {
                let (first, end) = (Position { lane, place: places.start }, Position { lane, place: places.end });
                let done: Vec<Position> = self.retries.range(first..end).map(|(position, _)| *position).collect();
                done.iter().for_each(|position| drop(self.retries.remove(position)));
                self.lanes.entry(lane).or_default().insert(places);
            }
        }
        for (position, retry) in settlement.retries {
            // An attempt is never taken back, in whatever order such news comes.
            let known = self.retries.get(&position).map_or(0, |known| known.attempts);
            if !self.is_settled(position) && retry.attempts > known {
                self.retries.insert(position, retry);
                self.tally.returned += 1;
            }
        }
        self.tally.acknowledged += settlement.acknowledged;
        self.tally.expired += settlement.expired;
    }

    /// Dead letters stay on their way, and what was done stays counted.
    fn seek(&mut self, request: u64, to: Offset) {
        self.generation = self.generation.checked_add(1).expect("nobody moves it four thousand million times");
        self.last_seek = Some(request);
        self.start = to;
        self.lanes.clear();
        self.retries.clear();
        self.pass_to(to);
    }

    fn trim_to(&mut self, log_start: Offset) {
        let gone = Place::FIRST..Place::at(log_start);
        if let Some(log) = self.lanes.get(&Lane::LOG) {
            let offsets = |places: Range<Place>| places.end.offset.checked_since(places.start.offset);
            self.tally.lost += log.gaps(gone.clone()).filter_map(offsets).sum::<u64>();
        }
        for (_, settled) in self.lanes.iter_mut().filter(|(lane, _)| !lane.delayed) {
            settled.insert(gone.clone());
        }
        self.start = self.start.max(log_start);
        self.retries.retain(|position, _| position.offset() >= log_start);
    }

    /// Settles what stands in the log before `offset`.
    fn pass_to(&mut self, offset: Offset) {
        self.lanes.entry(Lane::LOG).or_default().insert(Place::FIRST..Place::at(offset));
    }
}

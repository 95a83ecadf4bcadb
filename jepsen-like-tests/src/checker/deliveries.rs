//! Deliveries, and what subscribers said of them.

use std::collections::BTreeMap;

use super::operations::End;
use crate::history::{Action, DeadLetter, Event, Phase, Settled};

/// How long a delivery may have been on its way when it is taken. It is sent by a node that heard of a quorum within the
/// last 250 ms (`DISPATCH_DOUBT` of the server), and dies with its connection, which is given up after 2.5 s of silence
/// (keepalive, of clients and of peers alike); the rest is for queues. What leaders have promised since isn't broken by a
/// delivery that is that old.
pub(super) const ON_ITS_WAY_MS: u64 = 3_000;

/// What happened to subscriptions.
#[derive(Debug, Default)]
pub struct Deliveries<'a> {
    /// By name.
    pub subscriptions: BTreeMap<&'a str, Subscription<'a>>,
    /// In the order in which they were taken.
    pub taken: Vec<Delivery<'a>>,
    /// Which of them has a number.
    numbers: BTreeMap<u64, usize>,
    /// Which of them an operation is about.
    open: BTreeMap<u64, usize>,
    /// Dead letters, each as often as it was seen.
    pub letters: Vec<Letter<'a>>,
    /// How the last read of all dead letters ended, if there was one.
    pub letters_read: Option<Phase>,
    /// Messages that were left at the end of the run, if that was waited for.
    pub left: Option<(Phase, usize)>,
}

/// What a subscription was made for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subscription<'a> {
    /// Whether messages of one key keep their order in it.
    pub ordered: bool,
    /// The region whose messages its filter asks for.
    pub region: Option<&'a str>,
    /// After so many attempts a message becomes a dead letter.
    pub max_attempts: Option<u32>,
}

impl Subscription<'_> {
    /// Whether it is to get a message with this attribute.
    #[must_use]
    pub fn wants(&self, region: Option<&str>) -> bool {
        self.region.is_none() || self.region == region
    }
}

/// A dead letter that somebody saw.
#[derive(Clone, Copy, Debug)]
pub struct Letter<'a> {
    /// Its offset in the dead-letter topic.
    pub number: u64,
    /// Which subscription gave it up, and where it came from.
    pub place: Place<'a>,
    /// The message.
    pub message: &'a str,
    /// How often it was delivered.
    pub attempts: u32,
    /// Position of the event.
    pub at: usize,
    /// Its time.
    pub at_ms: u64,
}

impl std::fmt::Display for Letter<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Letter { number, place: Place { subscription, partition, offset }, message, attempts, .. } = self;
        write!(
            out,
            "dead letter {number}: {message} of {subscription} (partition {partition} offset {offset}), after {attempts} attempts"
        )
    }
}

/// A place of a subscription's topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place<'a> {
    /// The subscription.
    pub subscription: &'a str,
    /// The partition.
    pub partition: u32,
    /// The offset in it.
    pub offset: u64,
}

/// A message that a subscriber took.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// Who took it.
    pub subscriber: &'a str,
    /// Of which subscription, and where it is.
    pub place: Place<'a>,
    /// The message.
    pub message: &'a str,
    /// Its ordering key; empty: none.
    pub key: &'a str,
    /// 1 for the first.
    pub attempt: u32,
    /// Position of the event.
    pub at: usize,
    /// Its time.
    pub at_ms: u64,
    /// What its subscriber said of it, if anything.
    pub said: Option<Said>,
}

/// What a subscriber said of a delivery.
#[derive(Clone, Copy, Debug)]
pub struct Said {
    /// That the message is done; otherwise, that it comes back.
    pub done: bool,
    /// Position of the event with which that began.
    pub began: usize,
    /// How it ended; `None`: it didn't.
    pub end: Option<End>,
    /// What the broker said became of it.
    pub settled: Option<Settled>,
}

impl Delivery<'_> {
    /// When it was certain that the message is settled, if its subscriber was told so.
    #[must_use]
    pub fn confirmed(&self) -> Option<End> {
        self.said.filter(|said| said.done)?.end.filter(|end| end.phase == Phase::Ok)
    }

    /// When its subscriber said that it is done, unless it was told that this came to nothing.
    #[must_use]
    pub fn acknowledged(&self) -> Option<usize> {
        let said = self.said.filter(|said| said.done)?;
        said.end.is_none_or(|end| end.phase != Phase::Fail).then_some(said.began)
    }

    /// When it was certain that the message comes back after this attempt, if its subscriber was told so.
    #[must_use]
    pub fn returned(&self) -> Option<End> {
        let said = self.said.filter(|said| !said.done && said.settled == Some(Settled::Done))?;
        said.end.filter(|end| end.phase == Phase::Ok)
    }
}

impl std::fmt::Display for Delivery<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Delivery { subscriber, place, message, attempt, at_ms, .. } = self;
        let Place { subscription, partition, offset } = place;
        write!(
            out,
            "{message} of {subscription} (partition {partition} offset {offset}), attempt {attempt}, taken by {subscriber} at {at_ms} ms"
        )
    }
}

impl<'a> Deliveries<'a> {
    /// Takes in one event of a history.
    pub(super) fn add(&mut self, at: usize, event: &'a Event) {
        match &event.action {
            Action::Subscription { subscription, ordered, region, max_attempts } => {
                let (ordered, region, max_attempts) = (*ordered, region.as_deref(), *max_attempts);
                self.subscriptions.insert(subscription, Subscription { ordered, region, max_attempts });
            }
            Action::Deliver { subscription, message, partition, offset, key, attempt } => {
                self.numbers.insert(event.op, self.taken.len());
                self.taken.push(Delivery {
                    subscriber: &event.process,
                    place: Place { subscription, partition: *partition, offset: *offset },
                    message,
                    key,
                    attempt: *attempt,
                    at,
                    at_ms: event.at_ms,
                    said: None,
                });
            }
            Action::Acknowledge { delivery, settled, .. } => self.say(at, event, *delivery, true, *settled),
            Action::Return { delivery, settled, .. } => self.say(at, event, *delivery, false, *settled),
            Action::DeadLetter { letter } => self.letters.push(seen(at, event.at_ms, letter)),
            Action::DeadLetters { seen: letters, .. } if event.phase != Phase::Invoke => {
                self.letters.extend(letters.iter().map(|letter| seen(at, event.at_ms, letter)));
                self.letters_read = Some(event.phase);
            }
            Action::Emptied { left } if event.phase != Phase::Invoke => self.left = Some((event.phase, *left)),
            _ => {}
        }
    }

    fn say(&mut self, at: usize, event: &Event, delivery: u64, done: bool, settled: Option<Settled>) {
        let position = match event.phase {
            Phase::Invoke => self.numbers.get(&delivery).copied(),
            _ => self.open.remove(&event.op),
        };
        let Some((position, taken)) = position.and_then(|at| Some((at, self.taken.get_mut(at)?))) else { return };
        if event.phase == Phase::Invoke {
            self.open.insert(event.op, position);
            taken.said = Some(Said { done, began: at, end: None, settled: None });
        } else if let Some(said) = &mut taken.said {
            said.end = Some(End { at, at_ms: event.at_ms, phase: event.phase });
            said.settled = settled;
        }
    }

    /// By place, in the order in which they were taken.
    pub(super) fn by_place(&self) -> BTreeMap<Place<'a>, Vec<&Delivery<'a>>> {
        let mut by_place: BTreeMap<Place<'a>, Vec<&Delivery<'a>>> = BTreeMap::new();
        for delivery in &self.taken {
            by_place.entry(delivery.place).or_default().push(delivery);
        }
        by_place
    }

    /// By place: each letter once, as it was seen first.
    pub(super) fn letters_by_place(&self) -> BTreeMap<Place<'a>, Vec<&Letter<'a>>> {
        let mut by_place: BTreeMap<Place<'a>, Vec<&Letter<'a>>> = BTreeMap::new();
        for letter in &self.letters {
            let of_place = by_place.entry(letter.place).or_default();
            if of_place.iter().all(|known| known.number != letter.number) {
                of_place.push(letter);
            }
        }
        by_place
    }
}

fn seen(at: usize, at_ms: u64, letter: &DeadLetter) -> Letter<'_> {
    let DeadLetter { letter: number, subscription, message, partition, offset, attempts } = letter;
    let place = Place { subscription, partition: *partition, offset: *offset };
    Letter { number: *number, place, message, attempts: *attempts, at, at_ms }
}

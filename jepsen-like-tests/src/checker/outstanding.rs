//! What was published and acknowledged, and isn't settled in every subscription that wants it, as far as clients can know:
//! what a run waits for in the end, and what its judge asks for. Settled is what was acknowledged, became a dead letter, or
//! has expired.

use std::collections::BTreeMap;

use crate::history::{Action, DeadLetter, Event, Phase};

/// A message whose acknowledgement got no answer is settled if it doesn't come again: it would have within this time.
const PERHAPS_MS: u64 = 10_000;

/// See the module. Takes in a history event by event, while it is written or later.
#[derive(Debug, Default)]
pub struct Outstanding {
    /// With the region that each asks for, if any.
    subscriptions: BTreeMap<String, Option<String>>,
    /// What was acknowledged to publishers.
    published: BTreeMap<String, Published>,
    /// When messages expire that do.
    expiries: BTreeMap<String, u64>,
    /// By subscription and message.
    states: BTreeMap<String, BTreeMap<String, State>>,
    /// Time of the last event.
    now_ms: u64,
}

#[derive(Debug)]
struct Published {
    place: (u32, u64),
    region: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It was taken, so often, and last by an attempt that came to nothing or is still under way.
    Taken(u32),
    /// Acknowledged at this time, without an answer.
    Perhaps(u64),
    Settled,
}

/// A message that a subscription lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing<'a> {
    /// The subscription.
    pub subscription: &'a str,
    /// The message.
    pub message: &'a str,
    /// Its partition and offset.
    pub place: (u32, u64),
    /// How often it was delivered.
    pub deliveries: u32,
}

impl Outstanding {
    /// Takes in the next event.
    pub fn add(&mut self, event: &Event) {
        self.now_ms = event.at_ms;
        match (&event.action, event.phase) {
            (Action::Subscription { subscription, region, .. }, Phase::Ok) => {
                self.subscriptions.insert(subscription.clone(), region.clone());
            }
            (Action::Publish { message, terms, .. }, Phase::Invoke) => {
                if let Some(expiry_ms) = terms.expiry_ms {
                    self.expiries.insert(message.clone(), event.at_ms + expiry_ms);
                }
            }
            (Action::Publish { message, partition, terms, offset: Some(offset), .. }, Phase::Ok) => {
                let published = Published { place: (*partition, *offset), region: terms.region.clone() };
                self.published.insert(message.clone(), published);
            }
            (Action::DeadLetter { letter }, _) => self.bury(letter),
            (Action::DeadLetters { seen, .. }, _) => seen.iter().for_each(|letter| self.bury(letter)),
            (Action::Deliver { subscription, message, .. }, _) => {
                let state = self.state(subscription, message);
                *state = match *state {
                    State::Taken(times) => State::Taken(times + 1),
                    State::Perhaps(_) => State::Taken(2),
                    State::Settled => State::Settled,
                };
            }
            (Action::Acknowledge { subscription, message, .. }, Phase::Ok) => {
                *self.state(subscription, message) = State::Settled;
            }
            (Action::Acknowledge { subscription, message, .. }, Phase::Unknown) => {
                let state = self.state(subscription, message);
                if *state != State::Settled {
                    *state = State::Perhaps(event.at_ms);
                }
            }
            _ => {}
        }
    }

    fn bury(&mut self, letter: &DeadLetter) {
        *self.state(&letter.subscription, &letter.message) = State::Settled;
    }

    fn state(&mut self, subscription: &str, message: &str) -> &mut State {
        let states = self.states.entry(subscription.to_owned()).or_default();
        states.entry(message.to_owned()).or_insert(State::Taken(0))
    }

    /// What isn't settled at a time.
    pub fn missing(&self, now_ms: u64) -> impl Iterator<Item = Missing<'_>> {
        self.subscriptions.iter().flat_map(move |(subscription, wanted)| {
            let states = self.states.get(subscription);
            self.published.iter().filter_map(move |(message, Published { place, region })| {
                let is_wanted = wanted.is_none() || wanted == region;
                if !is_wanted || self.expiries.get(message).is_some_and(|expires_ms| *expires_ms <= now_ms) {
                    return None;
                }
                let deliveries = match states.and_then(|states| states.get(message)) {
                    Some(State::Settled) => return None,
                    Some(State::Perhaps(at_ms)) if *at_ms + PERHAPS_MS <= now_ms => return None,
                    Some(State::Perhaps(_)) => 1,
                    Some(State::Taken(times)) => *times,
                    None => 0,
                };
                Some(Missing { subscription, message, place: *place, deliveries })
            })
        })
    }
}

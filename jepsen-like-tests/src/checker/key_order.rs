//! Order per key: in a subscription that keeps it, messages of one key and partition are delivered one after another.
//!
//! Two things are asked of a delivery, both without a margin:
//! - **First deliveries** of a key's messages come in the order of their offsets.
//! - **Nothing is passed over**: when a message is taken, every earlier one of its key is acknowledged (its
//!   acknowledgement had begun, and didn't come to nothing), or is in the same subscriber's hand: that subscriber took it
//!   before, at its latest attempt, and wasn't told that it comes back. Several messages of a key may be in flight at
//!   one subscriber; how it deals with them is its own affair.
//!
//! What retention removed can't be acknowledged by anybody, and is left out. A dead letter holds up nothing from when its last
//! attempt was returned, or taken if its subscriber returned nothing; a message that has expired holds up nothing from then on.

use std::collections::{BTreeMap, BTreeSet};

use super::Operations;
use super::deliveries::{Delivery, Letter, Place};
use super::early::ROUNDING_MS;
use super::operations::Publish;

type Letters<'a> = BTreeMap<Place<'a>, Vec<&'a Letter<'a>>>;

/// A subscription, a partition and a key.
type Line<'a> = (&'a str, u32, &'a str);

/// Deliveries that one response brought are taken within this time: a later attempt that somebody else takes between
/// two of them doesn't tear them apart.
const ONE_RESPONSE_MS: u64 = 100;

pub(super) fn check(operations: &Operations<'_>) -> Vec<String> {
    let deliveries = &operations.deliveries;
    let mut lines: BTreeMap<Line<'_>, Vec<&Delivery<'_>>> = BTreeMap::new();
    for delivery in &deliveries.taken {
        let place = delivery.place;
        let is_ordered = deliveries.subscriptions.get(place.subscription).is_some_and(|made| made.ordered);
        if is_ordered && !delivery.key.is_empty() {
            lines.entry((place.subscription, place.partition, delivery.key)).or_default().push(delivery);
        }
    }
    let letters = deliveries.letters_by_place();
    let check = |((_, partition, _), mut line): (Line<'_>, Vec<&Delivery<'_>>)| {
        let log_start = operations.trimmed(partition);
        line.retain(|delivery| delivery.place.offset >= log_start);
        check_line(operations, &letters, &line)
    };
    lines.into_iter().flat_map(check).collect()
}

/// A message that isn't acknowledged.
#[derive(Default)]
struct Open<'a> {
    attempt: u32,
    /// Its latest deliveries.
    hands: Vec<&'a Delivery<'a>>,
    /// From then on it may be passed over.
    expires_ms: Option<u64>,
}

fn check_line(operations: &Operations<'_>, letters: &Letters<'_>, line: &[&Delivery<'_>]) -> Vec<String> {
    let mut complaints = Vec::new();
    let is_open = |taken: &&Delivery<'_>| {
        let expires_ms = operations.publishes.get(taken.message).and_then(Publish::expires_ms);
        // By which clock, if they were set?
        let expires_ms = expires_ms.map(|at_ms| if operations.clocks_were_set { 0 } else { at_ms });
        (taken.place.offset, Open { expires_ms, ..Open::default() })
    };
    let mut open: BTreeMap<u64, Open<'_>> = line.iter().map(is_open).collect();
    let acknowledged = line.iter().filter_map(|taken| Some((taken.acknowledged()?, taken.place.offset)));
    let mut acknowledged: Vec<(usize, u64)> = acknowledged.chain(buried(letters, line)).collect();
    acknowledged.sort_unstable();
    let (mut done, mut seen, mut furthest) = (0, BTreeSet::new(), 0);
    for taken in line {
        while let Some((_, offset)) = acknowledged.get(done).filter(|(at, _)| *at < taken.at) {
            open.remove(offset);
            done += 1;
        }
        let offset = taken.place.offset;
        if seen.insert(offset) {
            if offset < furthest {
                complaints.push(format!("{taken}, for the first time, after one of its key at offset {furthest}"));
            }
            furthest = furthest.max(offset);
        }
        for (earlier, state) in open.range(..offset) {
            let is_expired = state.expires_ms.is_some_and(|expires_ms| expires_ms <= taken.at_ms + ROUNDING_MS);
            if !is_expired && !state.hands.iter().any(|hand| is_in_hand(hand, taken, state.attempt)) {
                complaints
                    .push(format!("{taken}, while offset {earlier} of its key {} is not acknowledged", taken.key));
            }
        }
        if let Some(state) = open.get_mut(&offset) {
            state.attempt = state.attempt.max(taken.attempt);
            state.hands.retain(|hand| hand.attempt == state.attempt || taken.at_ms <= hand.at_ms + ONE_RESPONSE_MS);
            state.hands.push(taken);
        }
    }
    complaints
}

/// From when on dead letters hold up nothing, with their offsets.
fn buried(letters: &Letters<'_>, line: &[&Delivery<'_>]) -> impl Iterator<Item = (usize, u64)> {
    let mut buried: BTreeMap<u64, (u32, usize)> = BTreeMap::new();
    for taken in line {
        let Some(letter) = letters.get(&taken.place).and_then(|letters| letters.first()) else { continue };
        let at = taken.said.filter(|said| !said.done).map_or(taken.at, |said| said.began);
        // If the last attempt reached nobody, the one before it counts.
        let attempt = taken.attempt.min(letter.attempts);
        let known = buried.entry(taken.place.offset).or_insert((attempt, at));
        if attempt > known.0 || (attempt == known.0 && at < known.1) {
            *known = (attempt, at);
        }
    }
    buried.into_iter().map(|(offset, (_, at))| (at, offset))
}

/// Whether who takes `taken` has an earlier message of its key.
fn is_in_hand(hand: &Delivery<'_>, taken: &Delivery<'_>, latest_attempt: u32) -> bool {
    hand.subscriber == taken.subscriber
        && (hand.attempt == latest_attempt || taken.at_ms <= hand.at_ms + ONE_RESPONSE_MS)
        && hand.returned().is_none_or(|end| end.at > taken.at)
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::checker::script::Script;
    use crate::history::{Phase, Settled, Terms};

    const M1: (u64, &str, &str) = (0, "m1", "k");
    const M2: (u64, &str, &str) = (1, "m2", "k");

    fn script() -> Script {
        Script::new().subscription("s", true).published("m1", 0).published("m2", 1)
    }

    fn done(script: Script, subscriber: &str, message: (u64, &str, &str), attempt: u32) -> Script {
        let (script, delivery) = script.deliver(subscriber, "s", message, attempt);
        script.acknowledge(delivery, Phase::Ok, Some(Settled::Done))
    }

    #[test]
    fn one_after_another() {
        assert_eq!(done(done(script(), "c", M1, 1), "d", M2, 1).complaints(check), 0);
        assert_eq!(done(done(script(), "c", M2, 1), "d", M1, 1).complaints(check), 2, "first later, and passed over");
    }

    #[test]
    fn several_may_be_in_one_hand_and_not_in_two() {
        let (in_hand, _) = script().deliver("c", "s", M1, 1);
        assert_eq!(in_hand.deliver("c", "s", M2, 1).0.complaints(check), 0);
        let (in_hand, _) = script().deliver("c", "s", M1, 1);
        assert_eq!(in_hand.deliver("d", "s", M2, 1).0.complaints(check), 1);
    }

    #[test]
    fn what_was_returned_holds_the_later_ones_up() {
        let returned = || {
            let (script, delivery) = script().deliver("c", "s", M1, 1);
            script.give_back(delivery, Phase::Ok, Some(Settled::Done))
        };
        assert_eq!(returned().deliver("c", "s", M2, 1).0.complaints(check), 1);
        let again = || done(returned(), "d", M1, 2);
        assert_eq!(again().deliver("c", "s", M2, 1).0.complaints(check), 0);
        let elsewhere = returned().deliver("d", "s", M1, 2).0.at(1_000);
        assert_eq!(elsewhere.deliver("c", "s", M2, 1).0.complaints(check), 1, "the later attempt is another's");
    }

    #[test]
    fn an_acknowledgement_that_came_to_nothing_is_none() {
        let then = |phase, settled| {
            let (script, delivery) = script().deliver("c", "s", M1, 1);
            script.acknowledge(delivery, phase, settled).deliver("d", "s", M2, 1).0.complaints(check)
        };
        assert_eq!(then(Phase::Fail, Some(Settled::LeaseLost)), 1);
        assert_eq!(then(Phase::Unknown, None), 0);
    }

    #[test]
    fn a_dead_letter_holds_up_nothing_once_its_last_attempt_is_over() {
        let third = || script().deliver("c", "s", M1, 3);
        let then = |script: Script| script.deliver("d", "s", M2, 1).0.dead(0, "s", (0, "m1"), 3).complaints(check);
        let returned = |attempt| {
            let (script, delivery) = script().deliver("c", "s", M1, attempt);
            script.give_back(delivery, Phase::Ok, Some(Settled::Done))
        };
        assert_eq!(then(returned(3)), 0);
        assert_eq!(then(third().0), 0, "kept for too long");
        assert_eq!(then(returned(2)), 0, "the last attempt reached nobody");
        let (script, delivery) = third();
        let (early, _) = script.deliver("d", "s", M2, 1);
        let early = early.give_back(delivery, Phase::Ok, Some(Settled::Done)).dead(0, "s", (0, "m1"), 3);
        assert_eq!(early.complaints(check), 1, "before it was returned");
        assert_eq!(returned(3).deliver("d", "s", M2, 1).0.complaints(check), 1, "it is no dead letter");
    }

    #[test]
    fn what_has_expired_holds_up_nothing() {
        let then = |at| {
            let terms = Terms { expiry_ms: Some(1_000), ..Terms::default() };
            let script = Script::new().subscription("s", true).published_on("m1", 0, terms).published("m2", 1);
            let (script, delivery) = script.deliver("c", "s", M1, 1);
            let script = script.give_back(delivery, Phase::Ok, Some(Settled::Done)).at(at);
            script.deliver("d", "s", M2, 1).0.complaints(check)
        };
        assert_eq!(then(900), 1);
        assert_eq!(then(1_000), 0);
    }

    #[test]
    fn other_keys_and_subscriptions_without_order_are_free() {
        let (script, _) = script().deliver("c", "s", M1, 1);
        let (script, _) = script.deliver("d", "s", (1, "m2", "another"), 1);
        assert_eq!(script.complaints(check), 0);
        let plain = Script::new().subscription("s", false).published("m1", 0).published("m2", 1);
        assert_eq!(plain.deliver("c", "s", M2, 1).0.deliver("d", "s", M1, 1).0.complaints(check), 0);
    }
}

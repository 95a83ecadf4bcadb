//! Order per key: in a subscription that keeps it, messages of one key and partition are delivered one after another.
//!
//! Two things are asked of a delivery, both without a margin:
//! - **First deliveries** of a key's messages come in the order of their offsets.
//! - **Nothing is passed over**: when a message is taken, every earlier one of its key is acknowledged (its
//!   acknowledgement had begun, and didn't come to nothing), or is in the same subscriber's hand: that subscriber took it
//!   before, at its latest attempt, and wasn't told that it comes back. Several messages of a key may be in flight at
//!   one subscriber; how it deals with them is its own affair.
//!
//! What retention removed can't be acknowledged by anybody, and is left out.

use std::collections::{BTreeMap, BTreeSet};

use super::Operations;
use super::deliveries::Delivery;

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
        let is_ordered = deliveries.subscriptions.get(place.subscription).copied().unwrap_or(false);
        if is_ordered && !delivery.key.is_empty() {
            lines.entry((place.subscription, place.partition, delivery.key)).or_default().push(delivery);
        }
    }
    let check = |((_, partition, _), mut line): (Line<'_>, Vec<&Delivery<'_>>)| {
        let log_start = operations.trimmed(partition);
        line.retain(|delivery| delivery.place.offset >= log_start);
        check_line(&line)
    };
    lines.into_iter().flat_map(check).collect()
}

/// A message that isn't acknowledged.
#[derive(Default)]
struct Open<'a> {
    attempt: u32,
    /// Its latest deliveries.
    hands: Vec<&'a Delivery<'a>>,
}

fn check_line(line: &[&Delivery<'_>]) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut open: BTreeMap<u64, Open<'_>> = line.iter().map(|taken| (taken.place.offset, Open::default())).collect();
    let acknowledged = line.iter().filter_map(|taken| Some((taken.acknowledged()?, taken.place.offset)));
    let mut acknowledged: Vec<(usize, u64)> = acknowledged.collect();
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
            if !state.hands.iter().any(|hand| is_in_hand(hand, taken, state.attempt)) {
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
    use crate::history::{Phase, Settled};

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
    fn other_keys_and_subscriptions_without_order_are_free() {
        let (script, _) = script().deliver("c", "s", M1, 1);
        let (script, _) = script.deliver("d", "s", (1, "m2", "another"), 1);
        assert_eq!(script.complaints(check), 0);
        let plain = Script::new().subscription("s", false).published("m1", 0).published("m2", 1);
        assert_eq!(plain.deliver("c", "s", M2, 1).0.deliver("d", "s", M1, 1).0.complaints(check), 0);
    }
}

//! Once a subscriber was told that a message is settled, or somebody saw it among the dead letters, nobody takes that
//! message of that subscription again.
//!
//! One exception, because nothing can be called back from a wire: a delivery that was on its way when the message was
//! settled. It was sent before the acknowledgement was certain: to somebody whose time for it was over, or by a leader
//! that didn't know yet that it had been replaced, which asks a quorum before it delivers unless it heard of one within
//! the last 250 ms. So it arrives within [`ON_ITS_WAY_MS`], and bears an attempt no later than those that others had
//! taken before: a leader that delivers a later attempt has noted the one before, and the message was settled since.

use super::Operations;
use super::deliveries::{Delivery, Letter, ON_ITS_WAY_MS};

/// What is certain of a message from some moment on.
struct Settled<'a> {
    at: usize,
    at_ms: u64,
    /// Attempts that were made by then, as far as somebody says.
    attempts: u32,
    told: &'a str,
    what: String,
}

pub(super) fn check(operations: &Operations<'_>) -> Vec<String> {
    let mut again = Vec::new();
    let letters = operations.deliveries.letters_by_place();
    for (place, deliveries) in &operations.deliveries.by_place() {
        let confirmed = deliveries.iter().filter_map(|delivery| confirmed(delivery));
        let dead = letters.get(place).into_iter().flatten().map(|letter| dead(letter));
        let Some(settled) = confirmed.chain(dead).min_by_key(|settled| settled.at) else { continue };
        let before = deliveries.iter().filter(|delivery| delivery.at < settled.at);
        let last_attempt = before.map(|delivery| delivery.attempt).max().unwrap_or(0).max(settled.attempts);
        let later = deliveries.iter().filter(|delivery| delivery.at > settled.at);
        let unexcused = later.filter(|delivery| !was_on_its_way(delivery, &settled, last_attempt));
        again.extend(unexcused.map(|delivery| {
            let Settled { told, at_ms, what, .. } = &settled;
            format!("{delivery}, although {told} was told at {at_ms} ms that it is {what}")
        }));
    }
    again
}

fn confirmed<'a>(delivery: &Delivery<'a>) -> Option<Settled<'a>> {
    let end = delivery.confirmed()?;
    let (told, what) = (delivery.subscriber, "settled".to_owned());
    Some(Settled { at: end.at, at_ms: end.at_ms, attempts: 0, told, what })
}

fn dead<'a>(letter: &Letter<'a>) -> Settled<'a> {
    let what = format!("dead letter {}", letter.number);
    Settled { at: letter.at, at_ms: letter.at_ms, attempts: letter.attempts, told: "a reader", what }
}

fn was_on_its_way(delivery: &Delivery<'_>, settled: &Settled<'_>, last_attempt: u32) -> bool {
    delivery.at_ms <= settled.at_ms + ON_ITS_WAY_MS && delivery.attempt <= last_attempt
}

#[cfg(test)]
mod tests {
    use super::{ON_ITS_WAY_MS, check};
    use crate::checker::script::Script;
    use crate::history::{Phase, Settled};

    const M1: (u64, &str, &str) = (0, "m1", "");

    /// A message that was delivered and acknowledged.
    fn acknowledged(phase: Phase, settled: Settled) -> Script {
        let (script, delivery) = Script::new().subscription("s", false).published("m1", 0).deliver("c", "s", M1, 1);
        script.acknowledge(delivery, phase, Some(settled))
    }

    #[test]
    fn what_is_settled_is_not_delivered_again() {
        let later = |script: Script| script.at(60_000).deliver("d", "s", M1, 1).0.complaints(check);
        assert_eq!(acknowledged(Phase::Ok, Settled::Done).complaints(check), 0);
        assert_eq!(later(acknowledged(Phase::Ok, Settled::Done)), 1);
        assert_eq!(later(acknowledged(Phase::Ok, Settled::Already)), 1, "it was settled before");
        assert_eq!(later(acknowledged(Phase::Fail, Settled::LeaseLost)), 0, "it wasn't settled");
        assert_eq!(later(acknowledged(Phase::Unknown, Settled::Done)), 0, "nobody was told");
    }

    #[test]
    fn another_subscription_has_its_own() {
        let script = acknowledged(Phase::Ok, Settled::Done).subscription("t", false);
        assert_eq!(script.at(60_000).deliver("d", "t", M1, 1).0.complaints(check), 0);
    }

    #[test]
    fn a_dead_letter_is_not_delivered_again() {
        let dead = || acknowledged(Phase::Fail, Settled::LeaseLost).dead(0, "s", (0, "m1"), 3);
        let arrives = |at, attempt| dead().at(at).deliver("d", "s", M1, attempt).0.complaints(check);
        assert_eq!(arrives(ON_ITS_WAY_MS, 3), 0, "it was on its way");
        assert_eq!(arrives(ON_ITS_WAY_MS, 4), 1, "the letter says how often it was tried");
        assert_eq!(arrives(ON_ITS_WAY_MS + 1, 3), 1, "late");
        assert_eq!(dead().at(60_000).deliver("d", "t", M1, 1).0.complaints(check), 0, "another subscription has it");
    }

    #[test]
    fn what_was_on_its_way_arrives_soon_and_bears_no_later_attempt() {
        let arrives = |at, attempt| {
            acknowledged(Phase::Ok, Settled::Done).at(at).deliver("d", "s", M1, attempt).0.complaints(check)
        };
        assert_eq!(arrives(ON_ITS_WAY_MS, 1), 0);
        assert_eq!(arrives(ON_ITS_WAY_MS + 1, 1), 1, "late");
        assert_eq!(arrives(1, 2), 1, "a leader has counted it as returned");
    }
}

//! Once a subscriber was told that a message is settled, nobody takes that message of that subscription again.
//!
//! One exception, because nothing can be called back from a wire: a delivery that was on its way when the message was
//! settled. It was sent before the acknowledgement was certain: to somebody whose time for it was over, or by a leader
//! that didn't know yet that it had been replaced, which asks a quorum before it delivers unless it heard of one within
//! the last 250 ms. So it arrives within [`ON_ITS_WAY_MS`], and bears an attempt no later than those that others had
//! taken before: a leader that delivers a later attempt has noted the one before, and the message was settled since.

use super::Operations;
use super::deliveries::{Delivery, ON_ITS_WAY_MS};
use super::operations::End;

pub(super) fn check(operations: &Operations<'_>) -> Vec<String> {
    let mut again = Vec::new();
    for deliveries in operations.deliveries.by_place().values() {
        let confirmations = deliveries.iter().filter_map(|delivery| Some((delivery.confirmed()?, *delivery)));
        let Some((settled, by)) = confirmations.min_by_key(|(end, _)| end.at) else { continue };
        let before = deliveries.iter().filter(|delivery| delivery.at < settled.at);
        let last_attempt = before.map(|delivery| delivery.attempt).max().unwrap_or(0);
        let later = deliveries.iter().filter(|delivery| delivery.at > settled.at);
        let unexcused = later.filter(|delivery| !was_on_its_way(delivery, settled, last_attempt));
        again.extend(unexcused.map(|delivery| {
            format!("{delivery}, although {} was told at {} ms that it is settled", by.subscriber, settled.at_ms)
        }));
    }
    again
}

fn was_on_its_way(delivery: &Delivery<'_>, settled: End, last_attempt: u32) -> bool {
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
    fn what_was_on_its_way_arrives_soon_and_bears_no_later_attempt() {
        let arrives = |at, attempt| {
            acknowledged(Phase::Ok, Settled::Done).at(at).deliver("d", "s", M1, attempt).0.complaints(check)
        };
        assert_eq!(arrives(ON_ITS_WAY_MS, 1), 0);
        assert_eq!(arrives(ON_ITS_WAY_MS + 1, 1), 1, "late");
        assert_eq!(arrives(1, 2), 1, "a leader has counted it as returned");
    }
}

//! The number of a message's attempts never goes down, whoever leads.
//!
//! It is noted when a message is returned or kept for too long, and no later attempt is made before the note is
//! certain. So whoever takes a message at its third attempt knows that two are noted, and whoever was told that its
//! second attempt is returned knows the same: what is sent from then on is the third, or a later one. What is taken more
//! than [`ON_ITS_WAY_MS`] later was sent later.

use super::Operations;
use super::deliveries::ON_ITS_WAY_MS;

pub(super) fn check(operations: &Operations<'_>) -> Vec<String> {
    let mut complaints = Vec::new();
    for deliveries in operations.deliveries.by_place().values() {
        // From a time on, the next attempt is at least this one.
        let taken = deliveries.iter().map(|delivery| (delivery.at_ms, delivery.attempt));
        let returned =
            deliveries.iter().filter_map(|delivery| Some((delivery.returned()?.at_ms, delivery.attempt + 1)));
        let mut least: Vec<(u64, u32)> = taken.chain(returned).collect();
        least.sort_unstable();
        let (mut known, mut next) = (0, 0);
        for delivery in deliveries {
            let is_old = |(at_ms, _): &&(u64, u32)| *at_ms + ON_ITS_WAY_MS < delivery.at_ms;
            while let Some((_, attempt)) = least.get(next).filter(is_old) {
                known = known.max(*attempt);
                next += 1;
            }
            if delivery.attempt < known {
                complaints.push(format!("{delivery}, although attempt {known} was due {ON_ITS_WAY_MS} ms before"));
            }
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::{ON_ITS_WAY_MS, check};
    use crate::checker::script::Script;
    use crate::history::{Phase, Settled};

    const M1: (u64, &str, &str) = (0, "m1", "");

    fn taken(attempt: u32) -> (Script, u64) {
        Script::new().subscription("s", false).published("m1", 0).deliver("c", "s", M1, attempt)
    }

    #[test]
    fn a_later_delivery_bears_no_earlier_attempt() {
        let then = |attempt| taken(2).0.at(60_000).deliver("d", "s", M1, attempt).0.complaints(check);
        assert_eq!(then(1), 1);
        assert_eq!(then(2), 0, "after a failover nobody knows of what was in flight");
        assert_eq!(then(3), 0);
    }

    #[test]
    fn a_return_that_is_certain_counts() {
        let then = |settled, attempt| {
            let (script, delivery) = taken(1);
            let script = script.give_back(delivery, Phase::Ok, Some(settled));
            script.at(60_000).deliver("d", "s", M1, attempt).0.complaints(check)
        };
        assert_eq!(then(Settled::Done, 1), 1);
        assert_eq!(then(Settled::Done, 2), 0);
        assert_eq!(then(Settled::Already, 1), 0, "that is for another property to say");
    }

    #[test]
    fn what_was_on_its_way_may_be_older() {
        let arrives = |at| taken(2).0.at(at).deliver("d", "s", M1, 1).0.complaints(check);
        assert_eq!(arrives(ON_ITS_WAY_MS), 0);
        assert_eq!(arrives(ON_ITS_WAY_MS + 1), 1);
    }
}

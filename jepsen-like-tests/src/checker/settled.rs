//! At least once: in the end, every acknowledged message was delivered to every subscription whose filter matches it, and is
//! acknowledged there, a dead letter, or expired, within the time that the run waits for it. What retention removed is left
//! out.
//!
//! An acknowledgement without an answer counts if the message didn't come again: then it was carried out.

use super::Operations;
use super::outstanding::Outstanding;
use crate::history::{History, Phase};

pub(super) fn check(history: &History, operations: &Operations<'_>) -> Vec<String> {
    // A run that never came to its end has said so.
    let Some((phase, left)) = operations.deliveries.left else { return Vec::new() };
    let mut outstanding = Outstanding::default();
    history.events.iter().for_each(|event| outstanding.add(event));
    let now_ms = history.events.last().map_or(0, |event| event.at_ms);
    let missing = outstanding.missing(now_ms).filter(|missing| missing.place.1 >= operations.trimmed(missing.place.0));
    let mut complaints: Vec<String> = missing
        .map(|missing| {
            let (partition, offset) = missing.place;
            format!(
                "{} at partition {partition} offset {offset} was delivered {} times to {}, and never settled there",
                missing.message, missing.deliveries, missing.subscription
            )
        })
        .collect();
    if phase != Phase::Ok && left > 0 && complaints.is_empty() {
        complaints.push(format!("{left} messages weren't settled in time"));
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::checker::Operations;
    use crate::checker::script::Script;
    use crate::history::{Action, Phase, Settled, Terms};

    fn complaints(script: Script) -> usize {
        let script = script.at(60_000).remark(Action::Emptied { left: 0 });
        let history = script.history();
        check(&history, &Operations::of(&history)).len()
    }

    fn published() -> Script {
        Script::new().subscription("s", false).published("m1", 0)
    }

    #[test]
    fn every_message_is_acknowledged_in_every_subscription() {
        let (script, delivery) = published().deliver("c", "s", (0, "m1", ""), 1);
        let script = script.acknowledge(delivery, Phase::Ok, Some(Settled::Done));
        assert_eq!(complaints(script), 0);
        assert_eq!(complaints(published()), 1, "never delivered");
        assert_eq!(complaints(published().deliver("c", "s", (0, "m1", ""), 1).0), 1, "never acknowledged");
        assert_eq!(complaints(published().subscription("t", false)), 2, "each subscription has it");
    }

    #[test]
    fn what_nobody_answered_counts_unless_it_comes_again() {
        let (script, delivery) = published().deliver("c", "s", (0, "m1", ""), 1);
        let script = script.acknowledge(delivery, Phase::Unknown, None);
        assert_eq!(complaints(script), 0);
        let (script, delivery) = published().deliver("c", "s", (0, "m1", ""), 1);
        let script = script.acknowledge(delivery, Phase::Unknown, None);
        assert_eq!(complaints(script.deliver("c", "s", (0, "m1", ""), 1).0), 1);
        let (script, delivery) = published().deliver("c", "s", (0, "m1", ""), 1);
        assert_eq!(complaints(script.acknowledge(delivery, Phase::Fail, Some(Settled::LeaseLost))), 1);
    }

    #[test]
    fn what_was_published_in_vain_is_not_missed_and_neither_is_what_retention_removed() {
        let vain = Script::new().subscription("s", false).publish("a", "m1", Phase::Unknown, None);
        assert_eq!(complaints(vain), 0);
        let trimmed = Script::new().keeping(1).subscription("s", false).published("m1", 0).published("m2", 1);
        assert_eq!(complaints(trimmed.finally(&[(1, "m2")])), 1, "m2 alone");
    }

    #[test]
    fn a_dead_letter_is_settled_where_it_died() {
        let taken = || published().deliver("c", "s", (0, "m1", ""), 3).0;
        assert_eq!(complaints(taken()), 1);
        assert_eq!(complaints(taken().dead(0, "s", (0, "m1"), 3)), 0);
        assert_eq!(complaints(taken().dead(0, "t", (0, "m1"), 3)), 1);
    }

    #[test]
    fn what_has_expired_is_settled_and_what_has_not_is_not() {
        let expiring = |expiry_ms| {
            let terms = Terms { expiry_ms: Some(expiry_ms), ..Terms::default() };
            complaints(Script::new().subscription("s", false).published_on("m1", 0, terms))
        };
        assert_eq!(expiring(60_000), 0);
        assert_eq!(expiring(60_001), 1);
    }

    #[test]
    fn a_subscription_lacks_only_what_its_filter_matches() {
        let from = |region: Option<&str>| {
            let terms = Terms { region: region.map(ToOwned::to_owned), ..Terms::default() };
            complaints(Script::new().choosy("s", false, "eu").published_on("m1", 0, terms))
        };
        assert_eq!(from(Some("eu")), 1);
        assert_eq!(from(Some("us")), 0);
        assert_eq!(from(None), 0);
    }

    #[test]
    fn a_run_that_did_not_wait_says_nothing() {
        let history = published().history();
        assert_eq!(check(&history, &Operations::of(&history)).len(), 0);
    }
}

//! What is acknowledged never becomes a dead letter: a subscriber that was told DONE is the last that had the message.
//!
//! ALREADY_SETTLED says less: the message may have been given up before.

use super::Operations;
use super::deliveries::Delivery;
use crate::history::Settled;

pub(super) fn check(operations: &Operations<'_>) -> Vec<String> {
    let letters = operations.deliveries.letters_by_place();
    let is_done = |delivery: &&Delivery<'_>| {
        delivery.confirmed().is_some() && delivery.said.is_some_and(|said| said.settled == Some(Settled::Done))
    };
    let acknowledged = operations.deliveries.taken.iter().filter(is_done);
    let both = acknowledged.filter_map(|delivery| {
        let letter = letters.get(&delivery.place)?.first()?;
        Some(format!("{delivery}, who was told that it is acknowledged, is dead letter {}", letter.number))
    });
    both.collect()
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::checker::script::Script;
    use crate::history::{Phase, Settled};

    fn said(phase: Phase, settled: Option<Settled>) -> Script {
        let script = Script::new().subscription("s", false).published("m1", 0);
        let (script, delivery) = script.deliver("c", "s", (0, "m1", ""), 3);
        script.acknowledge(delivery, phase, settled)
    }

    #[test]
    fn what_is_acknowledged_is_no_dead_letter() {
        let done = || said(Phase::Ok, Some(Settled::Done));
        assert_eq!(done().complaints(check), 0);
        assert_eq!(done().dead(0, "s", (0, "m1"), 3).complaints(check), 1);
        assert_eq!(done().dead(0, "t", (0, "m1"), 3).complaints(check), 0, "another gave it up");
    }

    #[test]
    fn only_who_was_told_so_can_complain() {
        let dead = |script: Script| script.dead(0, "s", (0, "m1"), 3).complaints(check);
        assert_eq!(dead(said(Phase::Unknown, None)), 0);
        assert_eq!(dead(said(Phase::Fail, Some(Settled::LeaseLost))), 0);
        assert_eq!(dead(said(Phase::Ok, Some(Settled::Already))), 0, "it was dead by then");
    }
}

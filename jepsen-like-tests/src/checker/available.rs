//! While a majority of nodes is undisturbed, every partition goes on acknowledging: the time between two acknowledgements
//! in a row is bounded, whatever the others suffer.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::Operations;
use super::progress::BOUND_MS;
use crate::history::{Action, History, Phase};

pub(super) fn check(history: &History, operations: &Operations<'_>) -> Vec<String> {
    // Partition → times of its acknowledgements.
    let mut acknowledged: BTreeMap<u32, BTreeSet<u64>> = BTreeMap::new();
    let mut published_until = 0;
    for publish in operations.publishes.values() {
        published_until = published_until.max(publish.began_ms);
        let times = acknowledged.entry(publish.partition).or_default();
        times.extend(publish.end.filter(|end| end.phase == Phase::Ok).map(|end| end.at_ms));
    }
    let mut complaints = Vec::new();
    for undisturbed in undisturbed(history, published_until) {
        for (partition, times) in &acknowledged {
            let mut before = undisturbed.start;
            for at in times.range(undisturbed.clone()).copied().chain([undisturbed.end]) {
                if at - before > BOUND_MS {
                    complaints.push(format!("partition {partition} acknowledged nothing from {before} to {at} ms"));
                }
                before = at;
            }
        }
    }
    complaints
}

/// When a majority was undisturbed, as far as faults tell: two that spare a majority each may not, together. From the
/// time when there is a topic.
fn undisturbed(history: &History, until_ms: u64) -> Vec<Range<u64>> {
    let mut under_way: BTreeMap<u64, bool> = BTreeMap::new();
    let mut since: Option<u64> = None;
    let mut has_topic = false;
    let mut found = Vec::new();
    for event in history.events.iter().take_while(|event| event.at_ms <= until_ms) {
        match (&event.action, event.phase) {
            (Action::Create { .. }, Phase::Ok) => has_topic = true,
            (Action::Fault { spares_majority, .. }, Phase::Invoke) => _ = under_way.insert(event.op, *spares_majority),
            (Action::Fault { .. }, _) => _ = under_way.remove(&event.op),
            _ => continue,
        }
        let is_undisturbed = has_topic && under_way.len() <= 1 && under_way.values().all(|spares| *spares);
        match since {
            None if is_undisturbed => since = Some(event.at_ms),
            Some(from) if !is_undisturbed => {
                found.push(from..event.at_ms);
                since = None;
            }
            _ => {}
        }
    }
    found.extend(since.map(|from| from..until_ms.max(from)));
    found
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::checker::Operations;
    use crate::checker::script::Script;
    use crate::history::{Action, Phase};

    fn complaints(script: &Script) -> usize {
        let history = script.history();
        check(&history, &Operations::of(&history)).len()
    }

    fn with_topic() -> Script {
        let script = Script::new();
        let create = || Action::Create { partitions: 1, keep_messages: None };
        script.end_of(create, Phase::Ok).published("m0", 0)
    }

    #[test]
    fn a_partition_that_nothing_happens_to_acknowledges() {
        assert_eq!(complaints(&with_topic().at(10_000).published("m1", 1).at(20_000).published("m2", 2)), 0);
        assert_eq!(complaints(&with_topic().at(20_000).published("m1", 1)), 1, "a gap");
        assert_eq!(complaints(&with_topic().at(20_000).pending("m1")), 1, "nothing at all");
    }

    #[test]
    fn a_fault_that_spares_a_majority_is_no_excuse() {
        for (spares, expected) in [(true, 1), (false, 0)] {
            let script = with_topic();
            let fault = script.begin_fault(spares);
            let script = script.at(20_000).end_fault(&fault).at(21_000).published("m1", 1);
            assert_eq!(complaints(&script), expected, "spares a majority: {spares}");
        }
    }

    #[test]
    fn two_at_once_may_hit_a_majority() {
        let script = with_topic();
        let (one, other) = (script.begin_fault(true), script.begin_fault(true));
        let script = script.at(20_000).end_fault(&one).end_fault(&other).published("m1", 1);
        assert_eq!(complaints(&script), 0);
    }
}

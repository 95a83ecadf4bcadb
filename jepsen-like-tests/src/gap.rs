//! How long a partition acknowledged nothing when its leader was hit, from a history.
//!
//! ```text
//! acknowledged   │ │ │ │                         │ │ │ │ │ │ │ │
//! fault                 begin ════════════════════════ end ─ margin
//! gap                  └─────────────────────────┘
//! ```

use std::collections::BTreeMap;

use crate::history::{Action, History, Phase};

/// After the end of a fault, what else happens within this time belongs to it: the node comes back.
pub const MARGIN_MS: u64 = 3_000;

/// What a fault that took effect did to the partition that it aimed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap<'a> {
    /// Kind of the fault.
    pub fault: &'a str,
    /// The longest time between two acknowledgements in a row, from the last one before the fault until some time after
    /// its end.
    pub ms: u64,
}

/// One for each fault that aimed at a partition and took effect, in the order in which they ended.
#[must_use]
pub fn gaps(history: &History) -> Vec<Gap<'_>> {
    let mut acknowledged: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    let mut began_ms: BTreeMap<u64, u64> = BTreeMap::new();
    let mut hits = Vec::new();
    for event in &history.events {
        match (&event.action, event.phase) {
            (Action::Publish { partition, .. }, Phase::Ok) => {
                acknowledged.entry(*partition).or_default().push(event.at_ms);
            }
            (Action::Fault { .. }, Phase::Invoke) => _ = began_ms.insert(event.op, event.at_ms),
            (Action::Fault { fault, partition: Some(partition), .. }, Phase::Ok) => {
                let fault = fault.as_str();
                let began_ms = began_ms.get(&event.op).copied().unwrap_or(event.at_ms);
                hits.push((fault, *partition, began_ms, event.at_ms + MARGIN_MS));
            }
            _ => {}
        }
    }
    // A gap that nothing ended is at least as long as the history.
    let last_ms = history.events.last().map_or(0, |event| event.at_ms);
    acknowledged.values_mut().for_each(|times| times.push(last_ms));
    let gap = |(fault, partition, began_ms, until_ms)| {
        let times = acknowledged.get(&partition).map_or(&[][..], Vec::as_slice);
        let around = times.windows(2).filter(|pair| pair[1] > began_ms && pair[0] <= until_ms);
        Gap { fault, ms: around.map(|pair| pair[1] - pair[0]).max().unwrap_or(last_ms - began_ms) }
    };
    hits.into_iter().map(gap).collect()
}

#[cfg(test)]
mod tests {
    use super::{Gap, MARGIN_MS, gaps};
    use crate::checker::script::Script;
    use crate::history::Phase;

    /// A fault from 1,000 to 5,000 ms that aimed at a partition, and acknowledgements of partition 0 at some times.
    fn script(partition: Option<u32>, phase: Phase, acknowledged: &[u64]) -> Script {
        let mut times: Vec<(u64, &str)> = acknowledged.iter().map(|at_ms| (*at_ms, "publish")).collect();
        times.extend([(1_000, "begin"), (5_000, "end")]);
        times.sort_unstable();
        times.into_iter().fold(Script::new(), |script, (at_ms, what)| match what {
            "begin" => script.at(at_ms).fault_begins(0, "kill-leader", partition),
            "end" => script.at(at_ms).fault_ends(phase),
            _ => script.at(at_ms).published(&at_ms.to_string(), at_ms),
        })
    }

    fn measured(acknowledged: &[u64]) -> Vec<u64> {
        gaps(&script(Some(0), Phase::Ok, acknowledged).history()).iter().map(|gap| gap.ms).collect()
    }

    #[test]
    fn the_gap_begins_with_the_last_acknowledgement_before_the_fault() {
        assert_eq!(
            measured(&[100, 990, 1_890, 1_900, 5_100]),
            [3_200],
            "the longest, here before the end of the fault"
        );
        assert_eq!(measured(&[100, 990, 2_600, 2_700, 4_000, 5_100]), [1_610]);
        let history = script(Some(0), Phase::Ok, &[990, 2_600]).history();
        assert_eq!(gaps(&history)[0], Gap { fault: "kill-leader", ms: 2_400 }, "nothing more until the end");
    }

    #[test]
    fn what_lies_before_the_fault_and_behind_its_margin_is_another_matter() {
        let last = 5_000 + MARGIN_MS;
        let steady: Vec<u64> = (990..=last + 5).step_by(5).collect();
        assert_eq!(measured(&[&[10][..], &steady].concat()), [5], "before");
        assert_eq!(measured(&[&steady[..], &[last + 9_000]].concat()), [5], "behind it");
        let all_but_last = &steady[..steady.len() - 1];
        assert_eq!(measured(&[all_but_last, &[last + 9_000]].concat()), [9_000], "it began within the margin");
    }

    #[test]
    fn only_acknowledgements_of_the_partition_that_was_hit_count() {
        let acknowledged = [990, 1_100, 4_900, 5_100];
        let other = script(Some(1), Phase::Ok, &acknowledged).history();
        assert_eq!(gaps(&other)[0].ms, 4_100, "it acknowledged nothing at all");
        let unknown = script(Some(0), Phase::Ok, &[990]).at(5_500).publish("a", "m", Phase::Unknown, None);
        assert_eq!(gaps(&unknown.at(6_000).published("n", 9).history())[0].ms, 5_010);
    }

    #[test]
    fn faults_without_effect_or_without_an_aim_are_left_out() {
        assert!(gaps(&script(Some(0), Phase::Fail, &[990, 2_000]).history()).is_empty());
        assert!(gaps(&script(None, Phase::Ok, &[990, 2_000]).history()).is_empty());
    }
}

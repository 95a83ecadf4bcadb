//! Once the faults are over, every partition acknowledges messages again within a bound, without an operator.

use std::collections::BTreeMap;

use super::Operations;
use crate::history::Phase;

/// Time from the end of the last fault to the first acknowledgement of each partition: noticing a dead connection
/// (2.5 s), dialling again (up to 2 s apart), an election or two, and a margin of the same size.
pub(super) const BOUND_MS: u64 = 15_000;

pub(super) fn check(operations: &Operations<'_>) -> Vec<String> {
    let Some((healed_at, healed_ms)) = operations.healed else { return Vec::new() };
    // Partition → time of its first acknowledgement since.
    let mut first: BTreeMap<u32, Option<u64>> = BTreeMap::new();
    for publish in operations.publishes.values() {
        let Some(end) = publish.end.filter(|end| end.at > healed_at) else { continue };
        let first = first.entry(publish.partition).or_default();
        if end.phase == Phase::Ok {
            *first = Some(first.map_or(end.at_ms, |first| first.min(end.at_ms)));
        }
    }
    let stuck = first.into_iter().filter_map(|(partition, first)| match first.map(|at_ms| at_ms - healed_ms) {
        None => Some(format!("partition {partition} acknowledged nothing after the faults had ended")),
        Some(took_ms) if took_ms > BOUND_MS => Some(format!("partition {partition} needed {took_ms} ms")),
        Some(_) => None,
    });
    stuck.collect()
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::checker::script::Script;
    use crate::history::{Action, Phase};

    #[test]
    fn a_partition_recovers_in_time() {
        let healed = || Script::new().published("m0", 0).at(1_000).remark(Action::Healed);
        assert_eq!(healed().at(3_000).published("m1", 1).complaints(check), 0);
        assert_eq!(healed().at(3_000).publish("a", "m1", Phase::Unknown, None).complaints(check), 1, "never");
        assert_eq!(healed().at(60_000).published("m1", 1).complaints(check), 1, "late");
    }
}

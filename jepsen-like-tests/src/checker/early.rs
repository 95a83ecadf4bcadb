//! Delays: no message is delivered before its time, whoever leads.
//!
//! Its time is counted from the beginning of its publish. Where clocks were set, nodes may differ by as much, and nothing is
//! asked: a delayed message is early by what its leader's clock was ahead of the publisher's.

use super::Operations;

/// Times are rounded to the millisecond, by the publisher and by the leader.
pub(super) const ROUNDING_MS: u64 = 2;

pub(super) fn check(operations: &Operations<'_>) -> Vec<String> {
    if operations.clocks_were_set {
        return Vec::new();
    }
    let early = operations.deliveries.taken.iter().filter_map(|delivery| {
        let publish = operations.publishes.get(delivery.message)?;
        let due_ms = publish.began_ms + publish.terms.delay_ms?;
        (delivery.at_ms + ROUNDING_MS < due_ms).then(|| format!("{delivery}, although it is due at {due_ms} ms"))
    });
    early.collect()
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::checker::script::Script;
    use crate::history::{Phase, Terms};

    fn delay(delay_ms: u64) -> Terms {
        Terms { delay_ms: Some(delay_ms), ..Terms::default() }
    }

    #[test]
    fn a_delivery_waits_for_its_time() {
        let taken = |at, script: Script| {
            let script = script.subscription("s", false).published_on("m1", 0, delay(1_000));
            script.at(at).deliver("c", "s", (0, "m1", ""), 1).0.complaints(check)
        };
        assert_eq!(taken(900, Script::new()), 1);
        assert_eq!(taken(1_000, Script::new()), 0);
        assert_eq!(taken(900, Script::new().fault("clock", Phase::Ok)), 0, "whose clock?");
    }
}

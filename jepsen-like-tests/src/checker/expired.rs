//! Expiry: no message is taken later than [`ON_ITS_WAY_MS`] after its expiry, whoever leads and at whatever attempt.
//!
//! The leader looks at its clock when it hands a message out; from then on the message is in flight, and what its subscriber
//! does with it has as long as any. So a delivery that is taken was sent in time, unless it was longer on its way than
//! any can be. Where clocks were set, nodes may differ by as much, and nothing is asked.

use super::Operations;
use super::deliveries::ON_ITS_WAY_MS;

pub(super) fn check(operations: &Operations<'_>) -> Vec<String> {
    if operations.clocks_were_set {
        return Vec::new();
    }
    let late = operations.deliveries.taken.iter().filter_map(|delivery| {
        let expires_ms = operations.publishes.get(delivery.message)?.expires_ms()?;
        let is_late = delivery.at_ms > expires_ms + ON_ITS_WAY_MS;
        is_late.then(|| format!("{delivery}, although it expired at {expires_ms} ms"))
    });
    late.collect()
}

#[cfg(test)]
mod tests {
    use super::{ON_ITS_WAY_MS, check};
    use crate::checker::script::Script;
    use crate::history::{Phase, Terms};

    fn taken(at: u64, attempt: u32, script: Script) -> usize {
        let terms = Terms { expiry_ms: Some(1_000), ..Terms::default() };
        let script = script.at(50).subscription("s", false).published_on("m1", 0, terms).at(at);
        script.deliver("c", "s", (0, "m1", ""), attempt).0.complaints(check)
    }

    #[test]
    fn what_has_expired_is_not_delivered() {
        assert_eq!(taken(900, 1, Script::new()), 0);
        assert_eq!(taken(1_050 + ON_ITS_WAY_MS, 1, Script::new()), 0, "it was on its way");
        assert_eq!(taken(1_051 + ON_ITS_WAY_MS, 1, Script::new()), 1);
        assert_eq!(taken(60_000, 2, Script::new()), 1, "returned or not");
        assert_eq!(taken(60_000, 1, Script::new().fault("clock", Phase::Ok)), 0, "whose clock?");
    }
}

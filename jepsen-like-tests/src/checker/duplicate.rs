//! A message has one place: idempotent publishing stores it once, however often it was sent.

use std::collections::BTreeMap;

use super::Operations;

pub(super) fn check(operations: &Operations<'_>) -> Vec<String> {
    let mut places: BTreeMap<&str, (u32, u64)> = BTreeMap::new();
    let acknowledged =
        operations.acknowledged().map(|(message, publish, offset)| (message, (publish.partition, offset)));
    let seen = operations.seen().map(|(_, seen)| (seen.message.as_str(), (seen.partition, seen.offset)));
    let mut duplicates = Vec::new();
    for (message, place) in acknowledged.chain(seen) {
        let first = *places.entry(message).or_insert(place);
        if first != place {
            duplicates.push(format!(
                "{message} is at partition {} offset {} and at partition {} offset {}",
                first.0, first.1, place.0, place.1
            ));
        }
    }
    duplicates.sort();
    duplicates.dedup();
    duplicates
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::checker::script::Script;
    use crate::history::Phase;

    #[test]
    fn a_message_with_two_places_is_a_duplicate() {
        assert_eq!(Script::new().published("m1", 0).finally(&[(0, "m1")]).finally(&[(0, "m1")]).complaints(check), 0);
        assert_eq!(Script::new().published("m1", 0).finally(&[(0, "m1"), (1, "m1")]).complaints(check), 1);
        assert_eq!(
            Script::new().published("m1", 1).finally(&[(0, "m1")]).complaints(check),
            1,
            "not where it was said"
        );
    }

    #[test]
    fn an_unknown_message_may_be_there_once() {
        let script = || Script::new().publish("a", "m1", Phase::Unknown, None);
        assert_eq!(script().finally(&[(0, "m1")]).complaints(check), 0);
        assert_eq!(script().finally(&[(0, "m1"), (3, "m1")]).complaints(check), 1);
    }
}

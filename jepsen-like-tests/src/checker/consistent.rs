//! A place has one message: (partition, offset) never changes meaning, for anybody.

use std::collections::BTreeMap;

use super::Operations;

pub(super) fn check(operations: &Operations<'_>) -> Vec<String> {
    let mut messages: BTreeMap<(u32, u64), &str> = BTreeMap::new();
    let acknowledged =
        operations.acknowledged().map(|(message, publish, offset)| ((publish.partition, offset), message));
    let seen = operations.seen().map(|(_, seen)| ((seen.partition, seen.offset), seen.message.as_str()));
    let mut conflicts = Vec::new();
    for (place, message) in acknowledged.chain(seen) {
        let first = *messages.entry(place).or_insert(message);
        if first != message {
            conflicts.push(format!("partition {} offset {} is {first} and {message}", place.0, place.1));
        }
    }
    conflicts.sort();
    conflicts.dedup();
    conflicts
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::checker::script::Script;

    #[test]
    fn a_place_with_two_messages_is_inconsistent() {
        let script = || Script::new().published("m1", 0).published("m2", 1);
        assert_eq!(script().snapshot(&[(0, "m1")]).finally(&[(0, "m1"), (1, "m2")]).complaints(check), 0);
        assert_eq!(script().finally(&[(0, "m2")]).complaints(check), 1, "acknowledged one way, read another");
        assert_eq!(Script::new().snapshot(&[(0, "m1")]).finally(&[(0, "m2")]).complaints(check), 1, "two readers");
        assert_eq!(Script::new().published("m1", 0).published("m2", 0).complaints(check), 1, "two acknowledgements");
    }
}

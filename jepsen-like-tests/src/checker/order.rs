//! Messages of one publisher keep their order within a partition.

use std::collections::BTreeMap;

use super::Operations;

/// When a message was sent, its offset, and its name.
type Acknowledged<'a> = (usize, u64, &'a str);

pub(super) fn check(operations: &Operations<'_>) -> Vec<String> {
    let mut by_sender: BTreeMap<(&str, u32), Vec<Acknowledged<'_>>> = BTreeMap::new();
    for (message, publish, offset) in operations.acknowledged() {
        by_sender.entry((publish.process, publish.partition)).or_default().push((publish.began, offset, message));
    }
    let mut swapped = Vec::new();
    for ((process, partition), mut sent) in by_sender {
        sent.sort_unstable();
        let pairs = sent.windows(2).filter(|pair| pair[0].1 >= pair[1].1);
        swapped.extend(pairs.map(|pair| {
            let [(_, first, earlier), (_, second, later)] = [pair[0], pair[1]];
            format!("{process} sent {earlier} before {later}; partition {partition} has them at {first} and {second}")
        }));
    }
    swapped
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::checker::script::Script;
    use crate::history::Phase;

    #[test]
    fn what_was_sent_first_comes_first() {
        assert_eq!(Script::new().published("m1", 0).published("m2", 3).complaints(check), 0);
        assert_eq!(Script::new().published("m1", 3).published("m2", 0).complaints(check), 1);
        let two_publishers = Script::new().published("m1", 3).publish("b", "m2", Phase::Ok, Some(0));
        assert_eq!(two_publishers.complaints(check), 0, "there is no order between publishers");
    }
}

//! An acknowledged message is there in the end, in every final read, unless it lies before the log start.

use std::collections::BTreeSet;

use super::Operations;

pub(super) fn check(operations: &Operations<'_>) -> Vec<String> {
    let mut lost = Vec::new();
    for read in operations.reads.iter().filter(|read| read.is_final()) {
        let left: BTreeSet<&str> = read.seen.iter().map(|seen| seen.message.as_str()).collect();
        let start = |partition| read.log_start(partition, operations.keep_messages);
        let missing = operations
            .acknowledged()
            .filter(|(message, publish, offset)| *offset >= start(publish.partition) && !left.contains(message));
        lost.extend(missing.map(|(message, publish, offset)| {
            format!(
                "{message} of {} was acknowledged at partition {} offset {offset}, and is missing from a final read",
                publish.process, publish.partition
            )
        }));
    }
    lost
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::checker::script::Script;
    use crate::history::Phase;

    #[test]
    fn an_acknowledged_message_that_is_gone_is_lost() {
        let script = || Script::new().published("m1", 0).published("m2", 1);
        assert_eq!(script().finally(&[(0, "m1"), (1, "m2")]).complaints(check), 0);
        assert_eq!(script().finally(&[(0, "m1")]).complaints(check), 1);
        assert_eq!(script().finally(&[(0, "m1"), (1, "m2")]).finally(&[]).complaints(check), 2);
    }

    #[test]
    fn a_trimmed_message_is_not_lost_and_one_behind_the_log_start_is() {
        let script = || Script::new().keeping(2).published("m1", 0).published("m2", 1).published("m3", 2);
        assert_eq!(script().finally(&[(1, "m2"), (2, "m3")]).complaints(check), 0);
        assert_eq!(script().finally(&[(1, "m2")]).complaints(check), 1);
        assert_eq!(script().finally(&[]).complaints(check), 3, "all of it is never trimmed");
    }

    #[test]
    fn an_unknown_one_may_be_gone() {
        let script = Script::new().publish("a", "m1", Phase::Unknown, None).publish("a", "m2", Phase::Fail, None);
        assert_eq!(script.finally(&[]).complaints(check), 0);
    }
}

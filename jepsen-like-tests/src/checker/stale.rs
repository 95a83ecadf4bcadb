//! A read to the end sees everything that was acknowledged before it began, and was not trimmed.

use std::collections::BTreeSet;

use super::Operations;

pub(super) fn check(operations: &Operations<'_>) -> Vec<String> {
    let mut stale = Vec::new();
    for read in operations.reads.iter().filter(|read| read.is_complete()) {
        let seen: BTreeSet<(u32, u64)> = read.seen.iter().map(|seen| (seen.partition, seen.offset)).collect();
        for (message, publish, offset) in operations.acknowledged() {
            let before = publish.end.is_some_and(|end| end.at < read.began);
            let trimmed = offset < read.log_start(publish.partition, operations.keep_messages);
            if before && !trimmed && !seen.contains(&(publish.partition, offset)) {
                stale.push(format!(
                    "{} began to read after {message} was acknowledged at partition {} offset {offset}, and did not see it",
                    read.process, publish.partition
                ));
            }
        }
    }
    stale
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::checker::script::Script;
    use crate::history::{Phase, Purpose};

    #[test]
    fn a_read_sees_what_was_acknowledged_before() {
        assert_eq!(Script::new().published("m1", 0).snapshot(&[(0, "m1")]).complaints(check), 0);
        assert_eq!(Script::new().published("m1", 0).snapshot(&[]).complaints(check), 1);
        assert_eq!(Script::new().snapshot(&[]).published("m1", 0).complaints(check), 0, "the read was first");
        let cut_short = Script::new().published("m1", 0).read(Purpose::Snapshot, Phase::Unknown, &[]);
        assert_eq!(cut_short.complaints(check), 0, "it didn't come to the end");
    }
}

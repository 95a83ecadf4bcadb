//! Nobody reads past the commit point: what any read saw is still there in the end, unless it was trimmed.

use std::collections::BTreeSet;

use super::Operations;

pub(super) fn check(operations: &Operations<'_>) -> Vec<String> {
    let mut gone = BTreeSet::new();
    for last in operations.reads.iter().filter(|read| read.is_final()) {
        let left: BTreeSet<(u32, u64)> = last.seen.iter().map(|seen| (seen.partition, seen.offset)).collect();
        let earlier = operations.seen().filter(|(read, _)| !read.is_final());
        let start = |partition| last.log_start(partition, operations.keep_messages);
        let missing = earlier
            .filter(|(_, seen)| seen.offset >= start(seen.partition) && !left.contains(&(seen.partition, seen.offset)));
        gone.extend(missing.map(|(read, seen)| {
            format!(
                "{} read {} at partition {} offset {}, where a final read finds nothing",
                read.process, seen.message, seen.partition, seen.offset
            )
        }));
    }
    gone.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::checker::script::Script;
    use crate::history::{Phase, Purpose};

    #[test]
    fn what_was_read_is_still_there_in_the_end() {
        let tail = || Script::new().read(Purpose::Tail, Phase::Unknown, &[(0, "m1"), (1, "m2")]);
        assert_eq!(tail().finally(&[(0, "m1"), (1, "m2")]).complaints(check), 0);
        assert_eq!(tail().finally(&[(0, "m1")]).complaints(check), 1);
    }
}

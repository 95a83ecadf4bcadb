//! Every read is from the beginning of a log, so it sees 0, 1, 2, … in every partition, however leaders come and go
//! meanwhile. Where retention removes records it begins later, and goes on without a hole all the same.

use std::collections::BTreeMap;

use super::Operations;

pub(super) fn check(operations: &Operations<'_>) -> Vec<String> {
    let mut holes = Vec::new();
    for read in &operations.reads {
        let mut next: BTreeMap<u32, u64> = BTreeMap::new();
        for seen in read.seen {
            let start = || read.log_start(seen.partition, operations.keep_messages);
            let expected = next.entry(seen.partition).or_insert_with(start);
            if seen.offset != *expected {
                holes.push(format!(
                    "{} read offset {} of partition {} where {expected} comes next",
                    read.process, seen.offset, seen.partition
                ));
            }
            *expected = seen.offset + 1;
        }
    }
    holes
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::checker::script::Script;
    use crate::history::{Phase, Purpose};

    #[test]
    fn offsets_follow_one_another() {
        let read = |seen: &[(u64, &str)]| Script::new().read(Purpose::Tail, Phase::Unknown, seen).complaints(check);
        assert_eq!(read(&[(0, "m1"), (1, "m2"), (2, "m3")]), 0);
        assert_eq!(read(&[(0, "m1"), (2, "m3")]), 1, "a hole");
        assert_eq!(read(&[(0, "m1"), (0, "m1"), (1, "m2")]), 1, "twice");
        assert_eq!(read(&[(1, "m2"), (0, "m1")]), 2, "backwards");
    }

    #[test]
    fn a_trimmed_log_begins_later_and_has_no_hole_either() {
        let read =
            |seen: &[(u64, &str)]| Script::new().keeping(2).read(Purpose::Tail, Phase::Unknown, seen).complaints(check);
        assert_eq!(read(&[(7, "m1"), (8, "m2")]), 0);
        assert_eq!(read(&[(7, "m1"), (9, "m2")]), 1);
    }
}

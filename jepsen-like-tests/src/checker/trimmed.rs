//! Retention leaves what it promises: where the head of a log is gone, at least the newest messages that are to be kept
//! are there.

use super::Operations;

pub(super) fn check(operations: &Operations<'_>) -> Vec<String> {
    let Some(keep) = operations.keep_messages else { return Vec::new() };
    let mut found = Vec::new();
    for read in operations.reads.iter().filter(|read| read.is_complete()) {
        let mut partitions: Vec<u32> = read.seen.iter().map(|seen| seen.partition).collect();
        partitions.sort_unstable();
        partitions.dedup();
        for partition in partitions {
            let start = read.log_start(partition, Some(keep));
            let left = read.seen.iter().filter(|seen| seen.partition == partition).count() as u64;
            if start > 0 && left < keep {
                found.push(format!(
                    "{} found {left} messages from offset {start} of partition {partition} on, where {keep} are kept",
                    read.process
                ));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::checker::script::Script;

    #[test]
    fn what_is_kept_is_at_least_what_was_promised() {
        let read = |seen: &[(u64, &str)]| Script::new().keeping(2).snapshot(seen).complaints(check);
        assert_eq!(read(&[(7, "m1"), (8, "m2")]), 0);
        assert_eq!(read(&[(8, "m2")]), 1);
        assert_eq!(read(&[(0, "m1")]), 0, "there were no more");
    }
}

//! Retention leaves what it promises: where the head of a log is gone, at least the newest messages that are to be kept
//! are there.

use super::{Operations, Read};

pub(super) fn check(operations: &Operations<'_>) -> Vec<String> {
    let Some(keep) = operations.keep_messages else { return Vec::new() };
    let mut found = Vec::new();
    for read in operations.reads.iter().filter(|read| read.is_complete()) {
        let mut partitions: Vec<u32> = read.seen.iter().map(|seen| seen.partition).collect();
        partitions.sort_unstable();
        partitions.dedup();
        for partition in partitions {
            let start = read.log_start(partition, Some(keep));
            let left = end(operations, read, partition).saturating_sub(start);
            if start > 0 && left < keep {
                found.push(format!(
                    "{} found partition {partition} from offset {start} on, at most {left} messages, where {keep} are kept",
                    read.process
                ));
            }
        }
    }
    found
}

/// Where the log ended at most when the read did. A read ends where the log did when it began, and may by then be
/// overtaken by retention: what was published after it tells where the log ended at last.
fn end(operations: &Operations<'_>, read: &Read<'_>, partition: u32) -> u64 {
    let later = operations.acknowledged().filter(|(_, publish, _)| publish.began > read.end.at);
    let later = later.filter(|(_, publish, _)| publish.partition == partition).map(|(_, _, offset)| offset).min();
    let seen = read.seen.iter().filter(|seen| seen.partition == partition).map(|seen| seen.offset + 1).max();
    later.max(seen).unwrap_or(0)
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

    #[test]
    fn a_read_that_retention_overtook_is_judged_by_where_the_log_ended_then() {
        let read = |next: u64| Script::new().keeping(2).snapshot(&[(8, "m1")]).published("m2", next).complaints(check);
        assert_eq!(read(10), 0, "a message came in between, and one before offset 8 went");
        assert_eq!(read(9), 1);
    }
}

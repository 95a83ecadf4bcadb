//! A read to the end sees everything that was acknowledged before it began, and was not trimmed.

use std::collections::BTreeSet;

use super::{Operations, Read};

pub(super) fn check(operations: &Operations<'_>) -> Vec<String> {
    let mut stale = Vec::new();
    for read in operations.reads.iter().filter(|read| read.is_complete()) {
        let seen: BTreeSet<(u32, u64)> = read.seen.iter().map(|seen| (seen.partition, seen.offset)).collect();
        for (message, publish, offset) in operations.acknowledged() {
            let before = publish.end.is_some_and(|end| end.at < read.began);
            let trimmed = offset < log_start(operations, read, publish.partition);
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

/// Where the log of a partition began for a read. One that retention overtook, from the beginning to the end that it had
/// read to, saw nothing: then at the latest where it could begin when the read ended.
fn log_start(operations: &Operations<'_>, read: &Read<'_>, partition: u32) -> u64 {
    let seen = read.seen.iter().any(|seen| seen.partition == partition);
    let Some(keep) = operations.keep_messages.filter(|_| !seen) else {
        return read.log_start(partition, operations.keep_messages);
    };
    let by_then = operations.acknowledged().filter(|(_, publish, _)| {
        publish.partition == partition && publish.end.is_some_and(|end| end.at <= read.end.at)
    });
    by_then.map(|(_, _, offset)| (offset + 1).saturating_sub(keep)).max().unwrap_or(0)
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
        let later = |next| Script::new().keeping(2).published("m1", 0).overtaken(&[], "m2", next).complaints(check);
        assert_eq!(later(2), 0, "by the end of the read retention could have removed it");
        assert_eq!(later(1), 1, "it couldn't");
        let cut_short = Script::new().published("m1", 0).read(Purpose::Snapshot, Phase::Unknown, &[]);
        assert_eq!(cut_short.complaints(check), 0, "it didn't come to the end");
    }
}

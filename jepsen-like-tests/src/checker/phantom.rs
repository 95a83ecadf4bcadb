//! What is read was sent, before it was read, to that partition.

use super::Operations;

pub(super) fn check(operations: &Operations<'_>) -> Vec<String> {
    let phantom = |(read, seen): (&super::Read<'_>, &crate::history::Seen)| {
        let place =
            format!("{} read {:?} at partition {} offset {}", read.process, seen.message, seen.partition, seen.offset);
        match operations.publishes.get(seen.message.as_str()) {
            None => Some(format!("{place}, which nobody sent")),
            Some(publish) if publish.began > read.end.at => Some(format!("{place}, which was sent later")),
            Some(publish) if publish.partition != seen.partition => {
                Some(format!("{place}, which was sent to partition {}", publish.partition))
            }
            Some(_) => None,
        }
    };
    operations.seen().filter_map(phantom).collect()
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::checker::script::Script;

    #[test]
    fn only_what_was_sent_may_be_read() {
        assert_eq!(Script::new().published("m1", 0).snapshot(&[(0, "m1")]).complaints(check), 0);
        assert_eq!(Script::new().pending("m1").snapshot(&[(0, "m1")]).complaints(check), 0);
        assert_eq!(Script::new().snapshot(&[(0, "m1")]).complaints(check), 1);
        assert_eq!(Script::new().snapshot(&[(0, "m1")]).published("m1", 0).complaints(check), 1, "before it was sent");
    }
}

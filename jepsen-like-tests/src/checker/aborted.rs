//! A message that failed, rather than ended as unknown, is never read.

use super::Operations;
use crate::history::Phase;

pub(super) fn check(operations: &Operations<'_>) -> Vec<String> {
    let failed = |message: &str| {
        let publish = operations.publishes.get(message)?;
        publish.end.filter(|end| end.phase == Phase::Fail).map(|_| publish.process)
    };
    let aborted = operations.seen().filter_map(|(read, seen)| Some((read, seen, failed(&seen.message)?)));
    aborted
        .map(|(read, seen, process)| {
            format!(
                "{} read {} at partition {} offset {}, but {process} was told that it had failed",
                read.process, seen.message, seen.partition, seen.offset
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::checker::script::Script;
    use crate::history::Phase;

    #[test]
    fn what_failed_may_not_be_read_and_what_is_unknown_may() {
        let script = |phase| Script::new().publish("a", "m1", phase, None);
        assert_eq!(script(Phase::Fail).snapshot(&[(0, "m1")]).complaints(check), 1);
        assert_eq!(script(Phase::Fail).snapshot(&[]).complaints(check), 0);
        assert_eq!(script(Phase::Unknown).snapshot(&[(0, "m1")]).complaints(check), 0);
    }
}

//! Every request ends as ok, failed or unknown, within its deadline.

use super::Operations;
use crate::workload::PUBLISH_DEADLINE;

/// An outcome that is due at the deadline may be heard of this much later.
const GRACE_MS: u64 = 1_000;

pub(super) fn check(operations: &Operations<'_>) -> Vec<String> {
    let limit_ms = u64::try_from(PUBLISH_DEADLINE.as_millis()).unwrap_or(u64::MAX).saturating_add(GRACE_MS);
    let late = operations.publishes.iter().filter_map(|(message, publish)| {
        let took_ms = publish.end?.at_ms.saturating_sub(publish.began_ms);
        (took_ms > limit_ms).then(|| format!("{message} of {} took {took_ms} ms", publish.process))
    });
    operations.unfinished.iter().map(|what| format!("never ended: {what}")).chain(late).collect()
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::checker::script::Script;
    use crate::history::{Action, Phase, Recorder, Terms};
    use crate::trace::Trace;

    #[test]
    fn what_never_ends_is_noticed() {
        assert_eq!(Script::new().published("m1", 0).complaints(check), 0);
        assert_eq!(Script::new().pending("m1").complaints(check), 1);
    }

    #[test]
    fn what_ends_late_is_noticed() {
        let trace = Trace::new();
        let recorder = Recorder::new(trace.clone());
        let action = || Action::Publish {
            message: "m1".to_owned(),
            partition: 0,
            terms: Terms::default(),
            offset: None,
            why: String::new(),
        };
        let op = recorder.invoke("a", action());
        trace.advance_to(60_000);
        recorder.end(&op, Phase::Unknown, action());
        let history = recorder.history();
        assert_eq!(check(&crate::checker::Operations::of(&history)).len(), 1);
    }
}

//! What is delivered was sent, before, and is where its acknowledgement says; one that failed is never delivered.

use super::Operations;
use super::deliveries::Delivery;
use crate::history::Phase;

pub(super) fn check(operations: &Operations<'_>) -> Vec<String> {
    operations.deliveries.taken.iter().filter_map(|delivery| complaint(operations, delivery)).collect()
}

fn complaint(operations: &Operations<'_>, delivery: &Delivery<'_>) -> Option<String> {
    let Some(publish) = operations.publishes.get(delivery.message) else {
        return Some(format!("{delivery}, which nobody sent"));
    };
    if publish.began > delivery.at {
        return Some(format!("{delivery}, which was sent later"));
    }
    if publish.partition != delivery.place.partition {
        return Some(format!("{delivery}, which was sent to partition {}", publish.partition));
    }
    if publish.end.is_some_and(|end| end.phase == Phase::Fail) {
        return Some(format!("{delivery}, but {} was told that it had failed", publish.process));
    }
    let elsewhere = publish.offset.filter(|offset| *offset != delivery.place.offset)?;
    Some(format!("{delivery}, which was acknowledged at offset {elsewhere}"))
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::checker::script::Script;
    use crate::history::Phase;

    #[test]
    fn only_what_was_sent_is_delivered_and_as_it_was_acknowledged() {
        let delivered = |script: Script| script.subscription("s", false).deliver("c", "s", (0, "m1", ""), 1).0;
        assert_eq!(delivered(Script::new().published("m1", 0)).complaints(check), 0);
        assert_eq!(delivered(Script::new().pending("m1")).complaints(check), 0);
        assert_eq!(delivered(Script::new().publish("a", "m1", Phase::Unknown, None)).complaints(check), 0);
        assert_eq!(delivered(Script::new()).complaints(check), 1, "nobody sent it");
        assert_eq!(delivered(Script::new()).published("m1", 0).complaints(check), 1, "before it was sent");
        assert_eq!(delivered(Script::new().publish("a", "m1", Phase::Fail, None)).complaints(check), 1, "it failed");
        assert_eq!(delivered(Script::new().published("m1", 7)).complaints(check), 1, "it is elsewhere");
    }
}

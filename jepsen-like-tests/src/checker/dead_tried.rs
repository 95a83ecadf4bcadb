//! A dead letter is a message that was sent and is where the letter says, of a subscription that wants it and gives
//! messages up, and it was tried as often as that subscription asks for.

use super::Operations;
use super::deliveries::Letter;
use crate::history::Phase;

pub(super) fn check(operations: &Operations<'_>) -> Vec<String> {
    operations.deliveries.letters.iter().filter_map(|letter| complaint(operations, letter)).collect()
}

fn complaint(operations: &Operations<'_>, letter: &Letter<'_>) -> Option<String> {
    let Some(publish) = operations.publishes.get(letter.message) else {
        return Some(format!("{letter}, which nobody sent"));
    };
    let is_elsewhere = publish.offset.is_some_and(|offset| offset != letter.place.offset);
    if publish.partition != letter.place.partition || is_elsewhere {
        return Some(format!("{letter}, which isn't there"));
    }
    if publish.began > letter.at || publish.end.is_some_and(|end| end.phase == Phase::Fail) {
        return Some(format!("{letter}, which was not sent by then"));
    }
    let subscription = operations.deliveries.subscriptions.get(letter.place.subscription).copied().unwrap_or_default();
    let Some(most) = subscription.max_attempts else {
        return Some(format!("{letter}, of a subscription that gives nothing up"));
    };
    if !subscription.wants(publish.terms.region.as_deref()) {
        return Some(format!("{letter}, which the subscription doesn't want"));
    }
    (letter.attempts < most).then(|| format!("{letter}, although {most} are asked for"))
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::checker::script::Script;
    use crate::history::{Phase, Terms};

    fn from(region: &str) -> Script {
        let terms = Terms { region: Some(region.to_owned()), ..Terms::default() };
        Script::new().choosy("s", false, "eu").subscription("t", false).published_on("m1", 0, terms)
    }

    #[test]
    fn a_dead_letter_was_tried_often_enough() {
        assert_eq!(from("eu").dead(0, "s", (0, "m1"), 3).complaints(check), 0);
        assert_eq!(from("eu").dead(0, "s", (0, "m1"), 4).complaints(check), 0, "its outbox may have been full");
        assert_eq!(from("eu").dead(0, "s", (0, "m1"), 2).complaints(check), 1);
    }

    #[test]
    fn it_was_sent_and_is_where_it_says() {
        assert_eq!(from("eu").dead(0, "s", (1, "m2"), 3).complaints(check), 1, "nobody sent it");
        assert_eq!(from("eu").dead(0, "s", (1, "m1"), 3).complaints(check), 1, "it is elsewhere");
        let failed = from("eu").publish("a", "m2", Phase::Fail, None).dead(0, "s", (1, "m2"), 3);
        assert_eq!(failed.complaints(check), 1);
    }

    #[test]
    fn its_subscription_wants_it_and_gives_up() {
        assert_eq!(from("us").dead(0, "s", (0, "m1"), 3).complaints(check), 1);
        assert_eq!(from("eu").dead(0, "t", (0, "m1"), 3).complaints(check), 1);
    }
}

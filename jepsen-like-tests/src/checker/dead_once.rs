//! A dead letter is published once, however often its leader died while it did: at most one record of the dead-letter topic
//! comes from one place of one subscription. That there is one where there must be is for [`super::settled`] to say.

use std::collections::BTreeMap;

use super::Operations;
use super::deliveries::Letter;

pub(super) fn check(operations: &Operations<'_>) -> Vec<String> {
    let by_place = operations.deliveries.letters_by_place();
    let twice = by_place.values().filter_map(|letters| {
        let (first, again) = letters.split_first().filter(|(_, again)| !again.is_empty())?;
        let numbers: Vec<String> = again.iter().map(|letter| letter.number.to_string()).collect();
        Some(format!("{first}, is also dead letter {}", numbers.join(", ")))
    });
    let mut numbers: BTreeMap<u64, &Letter<'_>> = BTreeMap::new();
    let changed = operations.deliveries.letters.iter().filter_map(|letter| {
        let first = numbers.entry(letter.number).or_insert(letter);
        let is_same = (first.place, first.message, first.attempts) == (letter.place, letter.message, letter.attempts);
        (!is_same).then(|| format!("{letter}, was before: {first}"))
    });
    twice.chain(changed).collect()
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::checker::script::Script;

    const M1: (u64, &str) = (0, "m1");

    #[test]
    fn a_message_is_there_once() {
        assert_eq!(Script::new().dead(0, "s", M1, 3).complaints(check), 0);
        assert_eq!(Script::new().dead(0, "s", M1, 3).dead(1, "s", (1, "m2"), 3).complaints(check), 0);
        assert_eq!(Script::new().dead(0, "s", M1, 3).dead(4, "s", M1, 3).complaints(check), 1);
        assert_eq!(
            Script::new().dead(0, "s", M1, 3).dead(4, "s", M1, 4).complaints(check),
            1,
            "under whatever attempt"
        );
    }

    #[test]
    fn it_may_be_read_often_and_given_up_by_several() {
        assert_eq!(Script::new().dead(0, "s", M1, 3).dead(0, "s", M1, 3).complaints(check), 0);
        assert_eq!(Script::new().dead(0, "s", M1, 3).dead(1, "t", M1, 3).complaints(check), 0);
    }

    #[test]
    fn a_letter_stays_what_it_is() {
        assert_eq!(Script::new().dead(0, "s", M1, 3).dead(0, "s", (1, "m2"), 3).complaints(check), 1);
    }
}

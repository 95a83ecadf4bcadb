//! What is published after an acknowledgement goes behind it in the partition, whoever publishes. Offsets reveal the order,
//! so one sweep through time finds every contradiction, in O(n log n).

use std::collections::BTreeMap;

use super::Operations;

pub(super) fn check(operations: &Operations<'_>) -> Vec<String> {
    // Beginnings and ends by their place in the history.
    let mut moments: BTreeMap<usize, (&str, u32, u64, bool)> = BTreeMap::new();
    for (message, publish, offset) in operations.acknowledged() {
        moments.insert(publish.began, (message, publish.partition, offset, false));
        if let Some(end) = publish.end {
            moments.insert(end.at, (message, publish.partition, offset, true));
        }
    }
    // The highest place that was acknowledged so far, by partition, and whose it is.
    let mut highest: BTreeMap<u32, (u64, &str)> = BTreeMap::new();
    // The same at the moment at which a message was sent.
    let mut before: BTreeMap<&str, (u64, &str)> = BTreeMap::new();
    let mut inverted = Vec::new();
    for (message, partition, offset, ends) in moments.into_values() {
        if !ends {
            before.extend(highest.get(&partition).map(|behind| (message, *behind)));
            continue;
        }
        if let Some((earlier_offset, earlier)) = before.remove(message)
            && offset <= earlier_offset
        {
            inverted.push(format!(
                "{message} was sent after {earlier} was acknowledged at partition {partition} offset {earlier_offset}, and is at {offset}"
            ));
        }
        let reached = highest.entry(partition).or_insert((offset, message));
        *reached = (*reached).max((offset, message));
    }
    inverted
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::checker::script::Script;
    use crate::history::Phase;

    #[test]
    fn what_comes_later_goes_behind_whoever_sends_it() {
        let script = |second| Script::new().published("m1", 3).publish("b", "m2", Phase::Ok, Some(second));
        assert_eq!(script(4).complaints(check), 0);
        assert_eq!(script(2).complaints(check), 1);
    }
}

//! Which messages are delivered in an order of their own: those with a priority, and those with a time of delivery.
//!
//! A message of a [`Lane`] has a row of storage at its [`Place`]. The rows are an index of the log: whoever applies it again
//! makes them again. What the machine keeps is where each lane ends, and up to when delayed messages have been released.
//!
//! ```text
//!   place (due, offset)   10@7   12@5 │ 15@6   20@8
//!                          released 12 ┘   a message that comes in now is due at 13 at the earliest
//! ```
//!
//! Nothing ever comes before a place that was released, whatever clocks say: so subscriptions can settle intervals of a lane.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::subscription::{Lane, Place, Position};
use crate::ids::Offset;
use crate::record::Record;
use crate::sabotage::{Bug, is_planted};

/// The lanes of a partition that ever had a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lanes {
    /// Delayed messages that are due at this time or before may be delivered.
    released_ms: u64,
    /// Behind the last message of each lane, by offset.
    ends: BTreeMap<Lane, Offset>,
}

impl Lanes {
    /// Up to when delayed messages have been released, by the leaders' clocks.
    pub fn released_ms(&self) -> u64 {
        self.released_ms
    }

    /// How far each lane can be read, the log itself left out: to the places before this one.
    pub fn ends(&self) -> impl Iterator<Item = (Lane, Place)> {
        let early_ms = if is_planted(Bug::EarlyDelivery) { 1_000 } else { 0 };
        let released = Place { due_ms: self.released_ms.saturating_add(1 + early_ms), offset: Offset::ZERO };
        self.ends.iter().map(move |(lane, end)| (*lane, if lane.delayed { released } else { Place::at(*end) }))
    }

    /// Lanes whose messages have to be released.
    pub fn delayed(&self) -> impl Iterator<Item = Lane> {
        self.ends.keys().copied().filter(|lane| lane.delayed)
    }

    /// The places of a batch's messages, those that only stand in the log left out.
    pub(super) fn append(&mut self, base: Offset, records: &[Record]) -> Vec<Position> {
        let mut rows = Vec::new();
        for (offset, record) in (base.get()..).map(Offset::new).zip(records) {
            let Some(lane) = Lane::of(record) else { continue };
            let due_ms =
                if lane.delayed { record.options.deliver_at_ms.max(self.released_ms.saturating_add(1)) } else { 0 };
            self.ends.insert(lane, offset.next());
            rows.push(Position { lane, place: Place { due_ms, offset } });
        }
        rows
    }

    /// Lets go what is due at `time_ms`.
    pub(super) fn release(&mut self, time_ms: u64) {
        self.released_ms = self.released_ms.max(time_ms);
    }

    /// Up to where each lane holds only messages that stood in the log before `log_start`; `released_ms` is what had been
    /// released when the message before `log_start` was the newest. What was due by then had been published by then.
    pub(super) fn trimmed(&self, log_start: Offset, released_ms: u64) -> Vec<(Lane, Place)> {
        let due = Place { due_ms: released_ms.saturating_add(1), offset: Offset::ZERO };
        self.ends.keys().map(|lane| (*lane, if lane.delayed { due } else { Place::at(log_start) })).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::record::DeliveryOptions;

    fn record(priority: u8, deliver_at_ms: u64) -> Record {
        let options = DeliveryOptions { priority, deliver_at_ms, expire_at_ms: 0 };
        Record { options, ..Record::default() }
    }

    fn places(rows: &[Position]) -> Vec<String> {
        rows.iter()
            .map(|row| format!("{}{} {}", row.lane.priority, if row.lane.delayed { "d" } else { "" }, row.place))
            .collect()
    }

    #[test]
    fn nothing_comes_before_what_was_released() {
        let mut lanes = Lanes::default();
        let rows = lanes.append(Offset::new(5), &[record(0, 0), record(9, 0), record(0, 10), record(3, 7)]);
        assert_eq!(places(&rows), ["9 6", "0d 7@10", "3d 8@7"]);
        lanes.release(10);
        lanes.release(4);
        assert_eq!(lanes.released_ms(), 10);
        let rows = lanes.append(Offset::new(9), &[record(0, 3), record(0, 11), record(0, 12)]);
        assert_eq!(places(&rows), ["0d 9@11", "0d 10@11", "0d 11@12"]);
        let ends: Vec<_> = lanes.ends().map(|(lane, end)| (lane.priority, lane.delayed, end.to_string())).collect();
        assert_eq!(ends, [(0, true, "0@11".into()), (3, true, "0@11".into()), (9, false, "7".into())]);
    }
}

//! Where the head of the log may be cut off.
//!
//! A [`PartitionCommand::Mark`] ends a stretch: every replica keeps a checkpoint of its state there, so that
//! the log can later be cut exactly there. Retention removes whole stretches, oldest first; what is left to
//! decide is when to mark and how far to trim, and the leader decides that from [`Retained`] alone, without
//! reading anything.
//!
//! ```text
//! log index     0        40         80       120       last
//!               ├─────────┼──────────┼─────────┼──── open ──▶
//!                  gone   │ stretch  │ stretch │
//!                      log start     └─ marks ─┘
//! ```

use serde::{Deserialize, Serialize};

use crate::command::PartitionCommand;
use crate::ids::Offset;
use crate::limits::{STRETCHES_MAX, STRETCHES_PER_BOUND};
use crate::meta::Retention;
use crate::sabotage::{Bug, is_planted};

/// A part of the log between two marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// Log index of the mark that ends it.
    pub last_index: u64,
    /// The offset after its last record.
    pub end: Offset,
    /// Bytes of all batches that the partition ever accepted, up to this end.
    pub end_bytes: u64,
    /// The latest time at which one of its batches was proposed, by the clock of the leader of that time.
    pub newest_ms: u64,
    /// Up to when delayed messages had been released at its end.
    pub released_ms: u64,
}

/// The stretches of a partition, the open one at the end aside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretches {
    /// The last one that was removed: the log begins at its end.
    removed: Option<Stretch>,
    /// Those that are kept, oldest first.
    kept: Vec<Stretch>,
}

/// When the batches behind the last mark were proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Times {
    pub(super) oldest_ms: u64,
    pub(super) newest_ms: u64,
}

impl Times {
    pub(super) fn with(times: Option<Times>, time_ms: u64) -> Times {
        let Times { oldest_ms, newest_ms } = times.unwrap_or(Times { oldest_ms: time_ms, newest_ms: time_ms });
        Times { oldest_ms: oldest_ms.min(time_ms), newest_ms: newest_ms.max(time_ms) }
    }
}

impl Stretches {
    /// The oldest offset that is kept.
    pub fn log_start(&self) -> Offset {
        self.removed.map_or(Offset::ZERO, |stretch| stretch.end)
    }

    /// Up to when delayed messages had been released where the log begins.
    pub(super) fn released_ms(&self) -> u64 {
        self.removed.map_or(0, |stretch| stretch.released_ms)
    }

    /// Log index of the mark behind which the log begins; `None` while nothing was trimmed.
    pub fn trimmed_index(&self) -> Option<u64> {
        self.removed.map(|stretch| stretch.last_index)
    }

    /// Whether a checkpoint at this log index is needed to cut the log there.
    pub fn is_mark(&self, index: u64) -> bool {
        self.removed.iter().chain(&self.kept).any(|stretch| stretch.last_index == index)
    }

    /// Bytes of all batches that were trimmed.
    pub(super) fn removed_bytes(&self) -> u64 {
        self.removed.map_or(0, |stretch| stretch.end_bytes)
    }

    /// Ends a stretch, unless there are as many as there may be: then the open one goes on.
    pub(super) fn mark(&mut self, stretch: Stretch) -> bool {
        let room = self.kept.len() < STRETCHES_MAX;
        if room {
            self.kept.push(stretch);
        }
        room
    }

    /// Removes every stretch that ends at or before `offset`; whether there was one.
    pub(super) fn trim_to(&mut self, offset: Offset) -> bool {
        let count = self.kept.iter().take_while(|stretch| stretch.end <= offset).count();
        self.removed = self.kept.drain(..count).next_back().or(self.removed);
        count > 0
    }

    /// End of the last stretch, in records and bytes: where the open one begins.
    fn open_begin(&self) -> (Offset, u64) {
        let last = self.kept.last().or(self.removed.as_ref());
        last.map_or((Offset::ZERO, 0), |stretch| (stretch.end, stretch.end_bytes))
    }
}

/// All that retention looks at.
#[derive(Clone, Copy, Debug)]
pub struct Retained<'a> {
    /// The marked part of the log. May be older or newer than the other fields by some commands.
    pub stretches: &'a Stretches,
    /// The offset that the next record will get.
    pub end: Offset,
    /// Bytes of all batches that the partition ever accepted.
    pub appended_bytes: u64,
    /// When the first batch behind the last mark was proposed; `None` if there is no record behind it.
    pub open_since_ms: Option<u64>,
}

impl Retained<'_> {
    /// What a leader whose clock says `now_ms` should propose, if anything. At least what `retention` says is
    /// kept; what is kept beyond it is about one part in [`STRETCHES_PER_BOUND`], and what came in since the
    /// last call.
    pub fn due(&self, retention: &Retention, now_ms: u64) -> Option<PartitionCommand> {
        if let Some(offset) = self.removable(retention, now_ms) {
            return Some(PartitionCommand::TrimTo { offset });
        }
        self.mark_is_due(retention, now_ms).then_some(PartitionCommand::Mark)
    }

    /// The end of the last stretch that any of the bounds lets go.
    fn removable(&self, retention: &Retention, now_ms: u64) -> Option<Offset> {
        let kept = &self.stretches.kept;
        let beyond = |bound: Option<u64>, behind: &dyn Fn(&Stretch) -> u64| {
            bound.map_or(0, |bound| kept.iter().take_while(|stretch| behind(stretch) >= bound).count())
        };
        let by_bytes = beyond(retention.bytes, &|stretch| self.appended_bytes.saturating_sub(stretch.end_bytes));
        let by_messages = beyond(retention.messages, &|stretch| self.end.get().saturating_sub(stretch.end.get()));
        let by_age = retention.age_ms.map_or(0, |age_ms| self.expired(age_ms, now_ms));
        let mut count = by_bytes.max(by_messages).max(by_age);
        if is_planted(Bug::RetentionTrimsTooMuch) && count > 0 {
            count = kept.len().min(count + 1);
        }
        count.checked_sub(1).map(|last| kept[last].end)
    }

    /// How many stretches are older than `age_ms`, and none before them is younger. A time that lies in the
    /// future was stamped by a clock that went wrong and says nothing: the stretch goes with the next one.
    fn expired(&self, age_ms: u64, now_ms: u64) -> usize {
        let mut expired = 0;
        for (count, stretch) in (1..).zip(&self.stretches.kept) {
            match now_ms.checked_sub(stretch.newest_ms) {
                None => {}
                Some(age) if age >= age_ms => expired = count,
                Some(_) => break,
            }
        }
        expired
    }

    /// Whether the open stretch has become a fair part of any bound.
    fn mark_is_due(&self, retention: &Retention, now_ms: u64) -> bool {
        let Some(since_ms) = self.open_since_ms else { return false };
        let (begin, begin_bytes) = self.stretches.open_begin();
        let reached = |bound: Option<u64>, now: u64| bound.is_some_and(|bound| now >= bound / STRETCHES_PER_BOUND);
        reached(retention.bytes, self.appended_bytes.saturating_sub(begin_bytes))
            || reached(retention.messages, self.end.get().saturating_sub(begin.get()))
            // A first batch from the future says nothing of its age; the stretch ends, to be rid of it.
            || reached(retention.age_ms, now_ms.checked_sub(since_ms).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Retention = Retention { age_ms: None, bytes: None, messages: None };

    /// Three stretches of 10 records and 100 bytes each, proposed up to 1, 2 and 3 seconds; behind them an open one.
    fn stretches(newest_ms: [u64; 3]) -> Stretches {
        let kept = (1..).zip(newest_ms).map(|(n, newest_ms)| Stretch {
            last_index: n * 50,
            end: Offset::new(n * 10),
            end_bytes: n * 100,
            newest_ms,
            released_ms: 0,
        });
        Stretches { removed: None, kept: kept.collect() }
    }

    fn due(stretches: &Stretches, end: u64, retention: Retention, now_ms: u64) -> Option<PartitionCommand> {
        let open_since_ms = (end > 30).then_some(3_500);
        Retained { stretches, end: Offset::new(end), appended_bytes: end * 10, open_since_ms }.due(&retention, now_ms)
    }

    fn trim_to(offset: u64) -> Option<PartitionCommand> {
        Some(PartitionCommand::TrimTo { offset: Offset::new(offset) })
    }

    #[test]
    fn without_a_bound_nothing_is_due() {
        assert_eq!(due(&stretches([1_000, 2_000, 3_000]), 1_000_000, NONE, u64::MAX), None);
    }

    #[test]
    fn each_bound_keeps_at_least_what_it_says() {
        let three = stretches([1_000, 2_000, 3_000]);
        let bytes = |bytes| Retention { bytes: Some(bytes), ..NONE };
        assert_eq!(due(&three, 30, bytes(201), 4_000), None);
        assert_eq!(due(&three, 30, bytes(200), 4_000), trim_to(10));
        assert_eq!(due(&three, 30, bytes(0), 4_000), trim_to(30));
        let messages = |messages| Retention { messages: Some(messages), ..NONE };
        assert_eq!(due(&three, 30, messages(11), 4_000), trim_to(10));
        assert_eq!(due(&three, 30, messages(10), 4_000), trim_to(20));
        let age = |age_ms| Retention { age_ms: Some(age_ms), ..NONE };
        assert_eq!(due(&three, 30, age(3_001), 4_000), None);
        assert_eq!(due(&three, 30, age(2_000), 4_000), trim_to(20));
        assert_eq!(due(&three, 30, age(1_000), 4_000), trim_to(30));
    }

    #[test]
    fn the_bound_that_removes_most_wins() {
        let retention = Retention { age_ms: Some(2_000), bytes: Some(200), messages: Some(1_000) };
        assert_eq!(due(&stretches([1_000, 2_000, 3_000]), 30, retention, 4_000), trim_to(20));
    }

    #[test]
    fn a_clock_that_went_wrong_removes_nothing_young() {
        let age = Retention { age_ms: Some(1_000), ..NONE };
        // It was far behind while it stamped the last stretch: the one before it is young all the same.
        assert_eq!(due(&stretches([3_000, 3_500, 7]), 30, age, 4_000), trim_to(10));
        // It was far ahead: the stretch goes when the one after it does.
        assert_eq!(due(&stretches([1_000, u64::MAX, 3_500]), 30, age, 4_000), trim_to(10));
        assert_eq!(due(&stretches([1_000, u64::MAX, 3_500]), 30, age, 4_500), trim_to(30));
    }

    #[test]
    fn a_stretch_ends_when_it_is_a_fair_part_of_a_bound_and_never_without_records() {
        let three = stretches([1_000, 2_000, 3_000]);
        let bytes = Retention { bytes: Some(3_200), ..NONE };
        assert_eq!(due(&three, 39, bytes, 4_000), None);
        assert_eq!(due(&three, 40, bytes, 4_000), Some(PartitionCommand::Mark));
        let messages = Retention { messages: Some(320), ..NONE };
        assert_eq!(due(&three, 39, messages, 4_000), None);
        assert_eq!(due(&three, 40, messages, 4_000), Some(PartitionCommand::Mark));
        let age = Retention { age_ms: Some(32_000), ..NONE };
        assert_eq!(due(&three, 31, age, 4_499), None);
        assert_eq!(due(&three, 31, age, 4_500), Some(PartitionCommand::Mark));
        assert_eq!(due(&three, 30, age, 30_000), None);
    }
}

//! What happened so far, in counts and histograms. Shared by all publishers or all readers of a run.

use hdrhistogram::Histogram;
use quorate_client::{PublishError, Published};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The longest latency told apart, in µs; a longer one counts as this. An hour.
const LATENCY_MAX_US: u64 = 3_600_000_000;

/// Latencies are kept to three digits.
const DIGITS: u8 = 3;

/// A handle on the tally. Locked for a few lines at a time, never across a wait.
#[derive(Clone)]
pub(super) struct SharedTally(Arc<Mutex<Tally>>);

/// Counts of what was measured. Messages of the warm-up are only counted, in `warm_up`.
pub(super) struct Tally {
    pub(super) latency: Histogram<u64>,
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) warm_up: u64,
    pub(super) duplicates: u64,
    pub(super) failed: BTreeMap<String, u64>,
    pub(super) unknown: BTreeMap<String, u64>,
    /// When the last message was counted.
    pub(super) last: Option<Instant>,
    second: Second,
}

/// What happened since [`SharedTally::end_second`] was called last.
pub(super) struct Second {
    pub(super) latency: Histogram<u64>,
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) failed: u64,
    pub(super) unknown: u64,
}

/// A message that was sent: what its outcome is measured by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    /// When it was due; without a rate, when it was sent.
    pub(super) since: Instant,
    pub(super) bytes: u64,
    /// Not of the warm-up.
    pub(super) measured: bool,
}

impl SharedTally {
    pub(super) fn new() -> SharedTally {
        SharedTally(Arc::new(Mutex::new(Tally::new())))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Tally> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counts since the last call.
    pub(super) fn end_second(&self) -> Second {
        let fresh = Second::new();
        std::mem::replace(&mut self.lock().second, fresh)
    }
}

impl Tally {
    fn new() -> Tally {
        Tally {
            latency: histogram(),
            messages: 0,
            bytes: 0,
            warm_up: 0,
            duplicates: 0,
            failed: BTreeMap::new(),
            unknown: BTreeMap::new(),
            last: None,
            second: Second::new(),
        }
    }

    /// A published message, or one that was not. Errors of the warm-up are errors all the same.
    pub(super) fn outcome(&mut self, sent: Sent, now: Instant, outcome: &Result<Published, PublishError>) {
        match outcome {
            Ok(published) => {
                self.duplicates += u64::from(published.duplicate);
                self.arrived(sent, now);
            }
            Err(error) => self.problem(error),
        }
    }

    /// A message that arrived, at its broker or at its reader. Its time counts from when it was due.
    pub(super) fn arrived(&mut self, sent: Sent, now: Instant) {
        if !sent.measured {
            self.warm_up += 1;
            return;
        }
        let micros = micros(now.saturating_duration_since(sent.since));
        self.latency.saturating_record(micros);
        self.second.latency.saturating_record(micros);
        self.counted(1, sent.bytes, now);
    }

    /// Messages whose time says nothing.
    pub(super) fn counted(&mut self, messages: u64, bytes: u64, now: Instant) {
        self.messages += messages;
        self.bytes += bytes;
        self.second.messages += messages;
        self.second.bytes += bytes;
        self.last = Some(now);
    }

    pub(super) fn problems(&self) -> u64 {
        self.failed.values().chain(self.unknown.values()).sum()
    }

    fn problem(&mut self, error: &PublishError) {
        let (reasons, second) = if error.is_unknown() {
            (&mut self.unknown, &mut self.second.unknown)
        } else {
            (&mut self.failed, &mut self.second.failed)
        };
        *reasons.entry(error.reason().to_owned()).or_default() += 1;
        *second += 1;
    }
}

impl Second {
    fn new() -> Second {
        Second { latency: histogram(), messages: 0, bytes: 0, failed: 0, unknown: 0 }
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX_US, DIGITS).expect("the bounds are constants that fit")
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bench::options::Load;
    use crate::commands::bench::schedule::Schedule;
    use crate::commands::publish::Codec;

    const MS: Duration = Duration::from_millis(1);

    /// One publisher with one message in flight at 100/s, against a cluster that answers in 1 ms but
    /// stands still for the whole of the third second.
    fn with_a_stall(since: impl Fn(Duration, Duration) -> Duration) -> Tally {
        let load = Load { rate: Some(100), ..Load::filling(1000, 100, Codec::None) };
        let schedule = Schedule::of(&load).expect("there is a rate");
        let begin = Instant::now();
        let mut tally = Tally::new();
        let mut free_at = Duration::ZERO;
        for number in 0..1000 {
            let due = schedule.due_at(0, number);
            let sent = due.max(free_at);
            let stalled = (2000 * MS..3000 * MS).contains(&sent);
            free_at = if stalled { 3001 * MS } else { sent + MS };
            let sent = Sent { since: begin + since(due, sent), bytes: 100, measured: true };
            tally.arrived(sent, begin + free_at);
        }
        tally
    }

    #[test]
    fn a_stall_counts_for_every_message_that_was_due_during_it() {
        let honest = with_a_stall(|due, _| due);
        let over_100_ms = |tally: &Tally| tally.messages - tally.latency.count_between(0, 100_000);
        // 100 messages were due during the stall; but for those of its last 100 ms each waited longer
        // than that, and the backlog of 100 took its own 100 ms to go.
        let late = over_100_ms(&honest);
        assert!((90..=110).contains(&late), "{late}");
        assert!(honest.latency.value_at_quantile(0.95) > 400_000, "{}", honest.latency.value_at_quantile(0.95));
        assert!(honest.latency.max() >= 1_000_000);
        assert!(honest.latency.value_at_quantile(0.5) < 2_000);

        // Measured from the moment of sending, one message of a thousand would have seen it.
        let flattering = with_a_stall(|_, sent| sent);
        assert_eq!(over_100_ms(&flattering), 1);
        assert!(flattering.latency.value_at_quantile(0.99) < 2_000);
    }

    #[test]
    fn the_warm_up_is_counted_but_not_measured() {
        let mut tally = Tally::new();
        let now = Instant::now();
        tally.arrived(Sent { since: now, bytes: 10, measured: false }, now + MS);
        tally.arrived(Sent { since: now, bytes: 10, measured: true }, now + MS);
        assert_eq!((tally.warm_up, tally.messages, tally.bytes, tally.latency.len()), (1, 1, 10, 1));
    }

    #[test]
    fn a_second_holds_what_came_since_the_last_one() {
        let tally = SharedTally::new();
        let now = Instant::now();
        tally.lock().arrived(Sent { since: now, bytes: 7, measured: true }, now + 5 * MS);
        let first = tally.end_second();
        assert_eq!((first.messages, first.bytes, first.latency.len()), (1, 7, 1));
        assert_eq!(tally.end_second().messages, 0);
        assert_eq!(tally.lock().messages, 1);
    }
}

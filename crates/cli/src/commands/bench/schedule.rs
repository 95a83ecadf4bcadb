//! When each message is due.
//!
//! With a rate, message *n* is due at *n* / rate after the start, whatever became of those before it, and
//! its latency counts from then. Measured from the moment of sending, a stalled cluster would look fast:
//! the messages that could not even be sent during the stall would not count ("coordinated omission").

use super::options::Load;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The clock wakes no more often than this; at high rates several messages become due at once.
const TICK_MIN: Duration = Duration::from_micros(200);

/// How soon a clock with nothing due notices that it should stop.
const TICK_MAX: Duration = Duration::from_millis(100);

/// Message number → time since the start, for all publishers by turns. Pure arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    rate: u64,
    publishers: u64,
    /// Messages of all publishers, the warm-up's included.
    total: u64,
}

/// How many messages of a publisher are due by now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) messages: u64,
    /// There will be no more.
    pub(super) last: bool,
}

/// A thread that tells publishers what is due. A runtime's own timers would add a millisecond to everything.
pub(super) struct Clock {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Schedule {
    /// `None` without a rate: then a message is due when there is room for it.
    pub(super) fn of(load: &Load) -> Option<Schedule> {
        let rate = load.rate?;
        let within = |time: Duration| {
            let turns = (time.as_nanos() * u128::from(rate)).div_ceil(1_000_000_000);
            u64::try_from(turns).unwrap_or(u64::MAX)
        };
        let counted = load.messages.unwrap_or(u64::MAX);
        let timed = load.measured_for().map_or(u64::MAX, |time| within(load.warm_up + time) - within(load.warm_up));
        let total = within(load.warm_up).saturating_add(counted.min(timed));
        Some(Schedule { rate, publishers: u64::from(load.publishers), total })
    }

    /// When message `number` of a publisher is due, after the start.
    pub(super) fn due_at(&self, publisher: u64, number: u64) -> Duration {
        let turn = u128::from(number) * u128::from(self.publishers) + u128::from(publisher);
        let nanos = turn * 1_000_000_000 / u128::from(self.rate);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// What is due of a publisher's messages when so much time has passed.
    pub(super) fn due(&self, publisher: u64, elapsed: Duration) -> Due {
        let turns = elapsed.as_nanos() * u128::from(self.rate) / 1_000_000_000 + 1;
        let turns = u64::try_from(turns).unwrap_or(u64::MAX).min(self.total);
        let messages = turns.saturating_sub(publisher).div_ceil(self.publishers);
        Due { messages, last: turns == self.total }
    }

    /// The first moment after `elapsed` at which another message becomes due.
    fn next_change(&self, elapsed: Duration) -> Duration {
        let turns = elapsed.as_nanos() * u128::from(self.rate) / 1_000_000_000 + 1;
        let nanos = (turns * 1_000_000_000).div_ceil(u128::from(self.rate));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl Clock {
    /// Starts the thread. One receiver per publisher; `stop` ends the schedule early.
    pub(super) fn start(
        schedule: Schedule,
        start: Instant,
        stop: &Arc<AtomicBool>,
    ) -> (Clock, Vec<watch::Receiver<Due>>) {
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..schedule.publishers).map(|_| watch::channel(Due::default())).unzip();
        let stopped = Arc::clone(stop);
        let thread = thread::spawn(move || tick(schedule, start, &stopped, &senders));
        (Clock { stop: Arc::clone(stop), thread: Some(thread) }, receivers)
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It notices within a tick, and can't panic.
            _ = thread.join();
        }
    }
}

fn tick(schedule: Schedule, start: Instant, stop: &AtomicBool, publishers: &[watch::Sender<Due>]) {
    loop {
        let elapsed = start.elapsed();
        let stopped = stop.load(Ordering::Relaxed);
        let mut last = stopped;
        for (publisher, sender) in (0..).zip(publishers) {
            let mut due = schedule.due(publisher, elapsed);
            last |= due.last;
            if stopped {
                due = Due { last: true, ..*sender.borrow() };
            }
            sender.send_if_modified(|known| {
                let news = *known != due;
                *known = due;
                news
            });
        }
        if last {
            return;
        }
        let pause = schedule.next_change(elapsed).saturating_sub(start.elapsed());
        thread::sleep(pause.clamp(TICK_MIN, TICK_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn schedule(rate: u64, publishers: u64, total: u64) -> Schedule {
        Schedule { rate, publishers, total }
    }

    #[test]
    fn publishers_take_turns_and_the_last_message_is_known() {
        // 10 per second, 3 publishers: turns at 0, 100, 200, … ms.
        let schedule = schedule(10, 3, 7);
        assert_eq!(schedule.due_at(0, 0), Duration::ZERO);
        assert_eq!(schedule.due_at(2, 0), 200 * MS);
        assert_eq!(schedule.due_at(1, 1), 400 * MS);
        let due = |elapsed: Duration| [0, 1, 2].map(|publisher| schedule.due(publisher, elapsed).messages);
        assert_eq!(due(Duration::ZERO), [1, 0, 0]);
        assert_eq!(due(199 * MS), [1, 1, 0]);
        assert_eq!(due(200 * MS), [1, 1, 1]);
        assert_eq!(due(599 * MS), [2, 2, 2]);
        assert!(!schedule.due(0, 599 * MS).last);
        assert_eq!(due(600 * MS), [3, 2, 2]);
        assert_eq!(due(60_000 * MS), [3, 2, 2], "nothing after the last one");
        assert!(schedule.due(1, 600 * MS).last);
    }

    #[test]
    fn a_message_is_due_exactly_from_its_own_time_on() {
        let schedule = schedule(7, 2, 1000);
        for (publisher, number) in [(0, 0), (1, 0), (0, 1), (1, 20), (0, 333)] {
            let at = schedule.due_at(publisher, number);
            // A nanosecond is lost to rounding where the rate doesn't divide a second.
            let after = at + Duration::from_nanos(1);
            assert!(schedule.due(publisher, after).messages > number, "{publisher} {number}");
            if let Some(before) = at.checked_sub(Duration::from_nanos(1)) {
                assert!(schedule.due(publisher, before).messages <= number, "{publisher} {number}");
                assert!(schedule.next_change(before) <= after, "{publisher} {number}");
            }
        }
    }

    #[test]
    fn the_clock_hands_out_every_message_and_ends() {
        let stop = Arc::new(AtomicBool::new(false));
        let (clock, receivers) = Clock::start(schedule(1_000_000, 2, 999), Instant::now(), &stop);
        for (receiver, messages) in receivers.into_iter().zip([500, 499]) {
            while !receiver.borrow().last {
                thread::yield_now();
            }
            assert_eq!(*receiver.borrow(), Due { messages, last: true });
        }
        drop(clock);
    }
}

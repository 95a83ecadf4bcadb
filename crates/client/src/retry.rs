//! How long to wait before trying again, and when to stop: one place for all requests.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use quorate_model::RetryAdvice;
use tokio::time::Instant;

use crate::error::ClientError;

/// Re-routing is free once or twice: a leader may have moved. More often than that in a row, two
/// nodes are pointing at each other, and the client must slow down.
const FREE_REROUTES: u32 = 2;

/// The shape of the waits between attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetrySettings {
    /// First wait. Default 20 ms.
    pub delay_min: Duration,
    /// Waits double up to this. Jitter adds up to as much again. Default 500 ms.
    pub delay_max: Duration,
    /// Total time for one administrative request or lookup, all attempts together. Default 30 s.
    pub total: Duration,
    /// Longest single attempt before another node is asked. Default 5 s.
    pub attempt: Duration,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            delay_min: Duration::from_millis(20),
            delay_max: Duration::from_millis(500),
            total: Duration::from_secs(30),
            attempt: Duration::from_secs(5),
        }
    }
}

/// The waits of one request, or of one partition: grows with every failure, starts afresh on success.
#[derive(Debug)]
pub(crate) struct Backoff {
    settings: RetrySettings,
    delays: ExponentialBackoff,
    reroutes: u32,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(settings: RetrySettings) -> Self {
        Self { settings, delays: delays(settings), reroutes: 0, failures: 0 }
    }

    /// How long to wait after this error. Zero: try at once, elsewhere.
    pub(crate) fn after(&mut self, error: &ClientError) -> Duration {
        self.failures += 1;
        if matches!(error.advice(), RetryAdvice::Reroute | RetryAdvice::Move) && self.reroutes < FREE_REROUTES {
            self.reroutes += 1;
            return Duration::ZERO;
        }
        let own = self.delays.next().unwrap_or(self.settings.delay_max);
        // The broker's own estimate wins where it is longer; the jitter keeps clients from returning together.
        match error.retry_after() {
            Some(asked) if asked > own => asked + own.mul_f64(fastrand::f64()),
            _ => own,
        }
    }

    /// Failures since the last success.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    pub(crate) fn reset(&mut self) {
        if self.failures > 0 {
            *self = Self::new(self.settings);
        }
    }
}

fn delays(settings: RetrySettings) -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(settings.delay_min)
        .with_max_delay(settings.delay_max)
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
        .build()
}

/// The moment after which a request has failed, however its attempts went.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    pub(crate) fn after(total: Duration) -> Self {
        Self(Instant::now() + total)
    }

    pub(crate) fn instant(self) -> Instant {
        self.0
    }

    pub(crate) fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::{Backoff, RetrySettings};
    use crate::error::{Cause, ClientError};
    use quorate_model::Reason;
    use std::time::Duration;

    #[test]
    fn another_node_is_tried_at_once_but_not_for_ever() {
        let mut backoff = Backoff::new(RetrySettings::default());
        let lost = ClientError::new(Cause::ConnectionLost, "");
        assert_eq!(backoff.after(&lost), Duration::ZERO);
        assert_eq!(backoff.after(&lost), Duration::ZERO);
        assert!(backoff.after(&lost) >= Duration::from_millis(20));
        backoff.reset();
        assert_eq!(backoff.after(&lost), Duration::ZERO);
    }

    #[test]
    fn waits_double_with_jitter_up_to_their_bound() {
        let settings = RetrySettings::default();
        let mut backoff = Backoff::new(settings);
        let error = ClientError::known(Reason::NoLeader, "");
        let waits: Vec<Duration> = (0..10).map(|_| backoff.after(&error)).collect();
        assert!((settings.delay_min..=settings.delay_min * 2).contains(&waits[0]));
        assert!((settings.delay_min * 4..=settings.delay_min * 8).contains(&waits[2]));
        assert!(waits.iter().all(|wait| *wait <= settings.delay_max * 2));
    }
}

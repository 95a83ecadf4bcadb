//! The time that a request has. Work whose caller has stopped waiting is dropped, not executed.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tonic::metadata::MetadataMap;

use crate::limits::{DEADLINE_MARGIN_MAX, REQUEST_TIME_MAX};

/// When the answer must be ready.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Instant);

/// The deadline came first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expired;

impl Deadline {
    /// From the caller's `grpc-timeout`, less a margin for the answer's way back.
    pub(crate) fn of(metadata: &MetadataMap) -> Self {
        let asked = metadata.get("grpc-timeout").and_then(|value| value.to_str().ok()).and_then(parse_timeout);
        let granted = asked.unwrap_or(REQUEST_TIME_MAX).min(REQUEST_TIME_MAX);
        Self::after(granted - (granted / 10).min(DEADLINE_MARGIN_MAX))
    }

    pub(crate) fn after(time: Duration) -> Self {
        Self(Instant::now() + time)
    }

    /// The nearer of this and `time` from now.
    pub(crate) fn within(self, time: Duration) -> Self {
        Self(self.0.min(Instant::now() + time))
    }

    pub(crate) fn expired(self) -> bool {
        Instant::now() >= self.0
    }

    pub(crate) fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Drives `work` until it or the deadline is reached; drops it in the latter case.
    pub(crate) async fn limit<F: Future>(self, work: F) -> Result<F::Output, Expired> {
        timeout_at(self.0, work).await.map_err(|_| Expired)
    }
}

/// At most eight digits and a unit, as gRPC over HTTP/2 defines the header.
fn parse_timeout(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let digits = &text[..text.len() - unit.len_utf8()];
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        'H' => Duration::from_secs(amount * 3_600),
        'M' => Duration::from_secs(amount * 60),
        'S' => Duration::from_secs(amount),
        'm' => Duration::from_millis(amount),
        'u' => Duration::from_micros(amount),
        'n' => Duration::from_nanos(amount),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_read_as_grpc_defines_it() {
        assert_eq!(parse_timeout("2S"), Some(Duration::from_secs(2)));
        assert_eq!(parse_timeout("99999999m"), Some(Duration::from_millis(99_999_999)));
        for malformed in ["", "S", "100000000m", "-1S", "1.5S", "1s", "1é"] {
            assert_eq!(parse_timeout(malformed), None, "{malformed}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_answer_is_ready_before_the_caller_stops_waiting() {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", "1S".parse().expect("a valid header value"));
        let deadline = Deadline::of(&metadata);
        assert_eq!(deadline.remaining(), Duration::from_millis(980));
        assert_eq!(deadline.limit(std::future::pending::<()>()).await, Err(Expired));
        assert!(deadline.expired());
    }
}

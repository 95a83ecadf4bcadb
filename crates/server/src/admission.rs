//! How much may wait for a quorum at the same time. What is beyond it is refused at the door, before it costs
//! anything, instead of being queued until its sender has given up.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::LimitsConfig;

/// Budgets of bytes and batches, shared by all publishers of the node.
#[derive(Clone)]
pub(crate) struct Admission {
    bytes: Arc<Semaphore>,
    requests: Arc<Semaphore>,
    limits: LimitsConfig,
}

/// Room for one batch, given back on drop.
pub(crate) struct Permit {
    _bytes: OwnedSemaphorePermit,
    _request: OwnedSemaphorePermit,
}

/// A budget is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overload {
    /// The setting that bounds it.
    pub(crate) setting: &'static str,
    pub(crate) limit: usize,
}

impl Admission {
    pub(crate) fn new(limits: LimitsConfig) -> Self {
        Self {
            bytes: Arc::new(Semaphore::new(limits.in_flight_bytes)),
            requests: Arc::new(Semaphore::new(limits.in_flight_requests)),
            limits,
        }
    }

    /// Room for a batch of `bytes`, or the budget that has none.
    pub(crate) fn admit(&self, bytes: usize) -> Result<Permit, Overload> {
        let count = u32::try_from(bytes).unwrap_or(u32::MAX);
        let bytes = Arc::clone(&self.bytes)
            .try_acquire_many_owned(count)
            .map_err(|_| Overload { setting: "limits.in_flight_bytes", limit: self.limits.in_flight_bytes })?;
        let request = Arc::clone(&self.requests)
            .try_acquire_owned()
            .map_err(|_| Overload { setting: "limits.in_flight_requests", limit: self.limits.in_flight_requests })?;
        Ok(Permit { _bytes: bytes, _request: request })
    }

    /// Bytes and batches under way, for the metrics.
    pub(crate) fn in_flight(&self) -> (usize, usize) {
        (
            self.limits.in_flight_bytes - self.bytes.available_permits(),
            self.limits.in_flight_requests - self.requests.available_permits(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_budget_is_full_at_its_bound_and_not_before() {
        let limits = LimitsConfig {
            in_flight_bytes: 100,
            in_flight_requests: 2,
            connections: 1,
            streams_per_connection: 1,
            drain_ms: 0,
        };
        let admission = Admission::new(limits);
        let first = admission.admit(60).ok();
        let second = admission.admit(40).ok();
        assert!(first.is_some() && second.is_some());
        assert_eq!(admission.in_flight(), (100, 2));
        assert_eq!(admission.admit(1).err().map(|overload| overload.setting), Some("limits.in_flight_bytes"));
        assert_eq!(admission.admit(0).err().map(|overload| overload.setting), Some("limits.in_flight_requests"));
        drop(first);
        assert_eq!(admission.in_flight(), (40, 1));
        assert!(admission.admit(60).is_ok());
    }
}

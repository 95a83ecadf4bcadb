//! How much may wait for a quorum, and for the disk, at the same time. What is beyond it is refused at the door,
//! before it costs anything, instead of being queued until its sender has given up.
//!
//! One budget serves both doors: commands of this node's clients, and commands that other nodes forward to a replica
//! that leads here. A leader that only its own clients had to be polite to would be overrun by everyone else's.

use std::borrow::Cow;
use std::sync::Arc;

use quorate_model::sabotage::{Bug, is_planted};
use quorate_storage::Storage;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bounds of a node's admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmissionLimits {
    /// Bytes of commands that may wait for a quorum.
    pub in_flight_bytes: usize,
    /// Commands that may wait for a quorum.
    pub in_flight_requests: usize,
    /// Bytes that may wait for this node's disk. A quorum doesn't need a leader's own disk: where that is the
    /// slowest, what is committed already still waits for it.
    pub queued_bytes: u64,
}

/// The node's budgets. Clones share them.
#[derive(Clone)]
pub struct Admission {
    bytes: Arc<Semaphore>,
    requests: Arc<Semaphore>,
    storage: Storage,
    limits: AdmissionLimits,
}

/// Room for one command, given back on drop.
pub struct Permit {
    _bytes: OwnedSemaphorePermit,
    _request: OwnedSemaphorePermit,
}

/// A budget is used up; nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{setting} is {limit}")]
pub struct Overload {
    /// The setting that bounds it.
    pub setting: Cow<'static, str>,
    /// Its value on the node that refused.
    pub limit: u64,
}

impl Overload {
    /// The setting, and its value.
    #[must_use]
    pub fn new(setting: &'static str, limit: usize) -> Self {
        Self { setting: Cow::Borrowed(setting), limit: u64::try_from(limit).unwrap_or(u64::MAX) }
    }
}

impl Admission {
    /// `storage` is the disk whose queue counts.
    #[must_use]
    pub fn new(limits: AdmissionLimits, storage: Storage) -> Self {
        Self {
            bytes: Arc::new(Semaphore::new(limits.in_flight_bytes)),
            requests: Arc::new(Semaphore::new(limits.in_flight_requests)),
            storage,
            limits,
        }
    }

    /// Room for a command of `bytes` until its reply.
    ///
    /// # Errors
    /// The budget that has none.
    pub fn admit(&self, bytes: usize) -> Result<Permit, Overload> {
        let AdmissionLimits { in_flight_bytes, in_flight_requests, .. } = self.limits;
        let count = u32::try_from(bytes).unwrap_or(u32::MAX);
        let bytes = Arc::clone(&self.bytes)
            .try_acquire_many_owned(count)
            .map_err(|_| Overload::new("limits.in_flight_bytes", in_flight_bytes))?;
        let request = Arc::clone(&self.requests)
            .try_acquire_owned()
            .map_err(|_| Overload::new("limits.in_flight_requests", in_flight_requests))?;
        Ok(Permit { _bytes: bytes, _request: request })
    }

    /// Whether this node's disk keeps up: to be asked before anything is appended to a log that is led here.
    ///
    /// # Errors
    /// The bound that is reached. What was admitted and isn't appended yet comes on top, at most the budget of what
    /// is in flight.
    pub fn disk_keeps_up(&self) -> Result<(), Overload> {
        let limit = self.limits.queued_bytes;
        if self.storage.queued_bytes() < limit || is_planted(Bug::UnboundedDiskQueue) {
            return Ok(());
        }
        Err(Overload { setting: Cow::Borrowed("limits.queued_bytes"), limit })
    }

    /// Bytes and commands under way, for the metrics.
    #[must_use]
    pub fn in_flight(&self) -> (usize, usize) {
        (
            self.limits.in_flight_bytes - self.bytes.available_permits(),
            self.limits.in_flight_requests - self.requests.available_permits(),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use quorate_model::ReplicaId;
    use quorate_storage::{Completion, EntryId, EntryKind, LogEntry, RaftLog, SimDisk, TailCacheLimits};

    use super::*;

    fn admission(storage: Storage) -> Admission {
        let limits = AdmissionLimits { in_flight_bytes: 100, in_flight_requests: 2, queued_bytes: 1_000 };
        Admission::new(limits, storage)
    }

    fn setting(refused: Option<Overload>) -> Option<String> {
        refused.map(|overload| overload.setting.into_owned())
    }

    #[tokio::test]
    async fn each_budget_is_full_at_its_bound_and_not_before() {
        let storage = SimDisk::new(|| Duration::ZERO).open(Path::new("simulated")).expect("a disk");
        let admission = admission(storage);
        let first = admission.admit(60).ok();
        let second = admission.admit(40).ok();
        assert!(first.is_some() && second.is_some());
        assert_eq!(admission.in_flight(), (100, 2));
        assert_eq!(setting(admission.admit(1).err()).as_deref(), Some("limits.in_flight_bytes"));
        assert_eq!(setting(admission.admit(0).err()).as_deref(), Some("limits.in_flight_requests"));
        drop(first);
        assert_eq!(admission.in_flight(), (40, 1));
        assert!(admission.admit(60).is_ok());
    }

    #[tokio::test]
    async fn a_disk_that_falls_behind_refuses_until_it_has_caught_up() {
        let storage = SimDisk::new(|| Duration::from_millis(20)).open(Path::new("simulated")).expect("a disk");
        let log = RaftLog::open(&storage, ReplicaId::new(1), TailCacheLimits::default()).await.expect("a log");
        let admission = admission(storage);
        assert_eq!(admission.disk_keeps_up(), Ok(()));
        let id = EntryId { term: 1, index: 0 };
        let entry = LogEntry { id, kind: EntryKind::Command, body: vec![0; 1_000].into() };
        let (done, durable) = tokio::sync::oneshot::channel();
        log.append(vec![entry], Completion::call(move |result| drop(done.send(result))));
        assert_eq!(setting(admission.disk_keeps_up().err()).as_deref(), Some("limits.queued_bytes"));
        durable.await.expect("an answer").expect("written");
        assert_eq!(admission.disk_keeps_up(), Ok(()));
    }
}

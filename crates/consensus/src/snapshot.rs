//! Where a group's log is cut, and by whom: the state machine says how far the log may go, openraft decides when,
//! and the log store refuses anything else.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use openraft::{Config, SnapshotPolicy};
use quorate_model::limits::CHECKPOINT_BYTES_MAX;
use quorate_model::{Offset, PartitionCommand, Retained, Retention};
use tokio::sync::watch;

use crate::group::RaftGroup;
use crate::network::FRAME_BYTES_MAX;
use crate::types::Raft;

/// Longest wait for a cut that was asked for. One that is late is asked for again with the next, or after a restart.
const CUT_TIMEOUT: Duration = Duration::from_secs(10);

/// The metadata group takes a snapshot after so many entries …
const META_SNAPSHOT_ENTRIES: u64 = 4096;
/// … and keeps so many behind it, so that a voter that was away for a moment needs no snapshot.
const META_ENTRIES_KEPT: u64 = 1024;

/// The configuration of the metadata group: its log holds nothing that its state doesn't, so it is purged because it grew.
pub(crate) fn by_entries(partitions: &Config) -> Config {
    Config {
        snapshot_policy: SnapshotPolicy::LogsSinceLast(META_SNAPSHOT_ENTRIES),
        max_in_snapshot_log_to_keep: META_ENTRIES_KEPT,
        ..partitions.clone()
    }
}

// A snapshot is one message.
const _: () = assert!(CHECKPOINT_BYTES_MAX + (1 << 20) <= FRAME_BYTES_MAX);

/// How far the log may be purged (rule R2 of ADR 0002): whatever asks for more has lost its way, and obeying it would
/// delete records that nobody has trimmed.
#[derive(Default)]
pub(crate) struct Cut {
    point: Mutex<Option<CutPoint>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CutPoint {
    /// The last entry that may go.
    pub(crate) index: u64,
    /// Of a partition: where its records begin once that entry is gone.
    pub(crate) log_start: Option<Offset>,
}

impl Cut {
    pub(crate) fn set(&self, point: Option<CutPoint>) {
        *self.point.lock().unwrap_or_else(PoisonError::into_inner) = point;
    }

    pub(crate) fn get(&self) -> Option<CutPoint> {
        *self.point.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks openraft to take a snapshot, and with it to purge the log, whenever retention has moved the log start; also
/// if it had moved it before this replica stopped. Ends with the state machine.
pub(crate) async fn cut_when_trimmed(raft: Raft, mut trimmed: watch::Receiver<Option<u64>>) {
    loop {
        let target = *trimmed.borrow_and_update();
        if target.is_some() {
            if raft.trigger().snapshot().await.is_err() {
                return;
            }
            let reached = move |metrics: &openraft::RaftMetrics<crate::types::Types>| {
                metrics.snapshot.as_ref().map(|id| id.index) >= target
            };
            if let Err(error) = raft.wait(Some(CUT_TIMEOUT)).metrics(reached, "snapshot at the log start").await {
                tracing::debug!(%error, target, "the log was not cut in time");
            }
        }
        if trimmed.changed().await.is_err() {
            return;
        }
    }
}

impl RaftGroup {
    /// What retention wants of this partition now: the leader proposes it. Reads nothing but a few numbers in memory.
    #[must_use]
    pub fn retention_due(&self, retention: &Retention, now_ms: u64) -> Option<PartitionCommand> {
        // In this order: stretches that are older than the progress only make retention keep more.
        let stretches = self.published().stretches.borrow().clone();
        let progress = *self.published().progress.borrow();
        let retained = Retained {
            stretches: &stretches,
            end: progress.end,
            appended_bytes: progress.appended_bytes,
            open_since_ms: progress.open_since_ms,
        };
        retained.due(retention, now_ms)
    }
}

//! What ends a node that doesn't want to end.

use std::future::Future;

use quorate_model::Reason;
use quorate_storage::StorageError;
use tokio::sync::watch;
use tracing::error;

/// Why a node can't go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct NodeFailure {
    /// The entry of the error table; `quorate explain` says more.
    pub reason: Reason,
    /// What happened.
    pub detail: String,
}

impl NodeFailure {
    pub(crate) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }

    /// The disk failed.
    pub(crate) fn of_storage(error: &StorageError) -> Self {
        let reason = match error {
            StorageError::DiskFull { .. } => Reason::DiskFull,
            StorageError::Io { .. } | StorageError::Closed => Reason::Internal,
            _ => Reason::CorruptLog,
        };
        Self::new(reason, format!("the disk failed: {error}"))
    }

    /// A group can't go on. What the disk said is part of the text: on its way through Raft it lost its type.
    pub(crate) fn of_groups(report: String) -> Self {
        let says = |words: &[&str]| words.iter().any(|words| report.contains(words));
        let reason = if says(&[DISK_FULL]) {
            Reason::DiskFull
        } else if says(&CORRUPTION) {
            Reason::CorruptLog
        } else {
            Reason::Internal
        };
        Self::new(reason, report)
    }
}

/// How storage says that there is no room left.
const DISK_FULL: &str = "no space left on the disk";

/// How storage says that what it holds isn't what was written.
const CORRUPTION: [&str; 5] =
    ["the database is corrupt", "is malformed", "has a hole", "durable entries were lost", "has no segment"];

/// Where parts of the node report that it can't go on. The first report counts.
#[derive(Clone)]
pub(crate) struct Alarm {
    raised: std::sync::Arc<watch::Sender<Option<NodeFailure>>>,
}

impl Alarm {
    pub(crate) fn new() -> Self {
        Self { raised: std::sync::Arc::new(watch::Sender::new(None)) }
    }

    pub(crate) fn raise(&self, failure: NodeFailure) {
        error!(reason = %failure.reason, detail = failure.detail, "the node can't go on");
        self.raised.send_if_modified(|raised| {
            let first = raised.is_none();
            if first {
                *raised = Some(failure);
            }
            first
        });
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Option<NodeFailure>> {
        self.raised.subscribe()
    }

    /// Raises what `trouble` resolves to.
    pub(crate) async fn raise_on(self, trouble: impl Future<Output = NodeFailure>) {
        let failure = trouble.await;
        self.raise(failure);
    }
}

#[cfg(test)]
mod tests {
    use quorate_model::ReplicaId;
    use quorate_storage::{EntryId, Table};

    use super::*;

    #[test]
    fn a_report_of_a_group_has_the_reason_of_the_storage_error_in_it() {
        let detail = || "as the engine says".to_owned();
        let (replica, applied) = (ReplicaId::new(1), EntryId { term: 1, index: 7 });
        let errors = [
            StorageError::Corruption { detail: detail() },
            StorageError::DiskFull { detail: detail() },
            StorageError::Io { detail: detail() },
            StorageError::MalformedRow { table: Table::Log, why: detail() },
            StorageError::Hole { replica, expected: 7 },
            StorageError::AppliedBeyondLog { replica, applied, last: None },
            StorageError::MissingSegment { replica, offset: 7 },
            StorageError::Closed,
        ];
        for error in errors {
            let reported = NodeFailure::of_groups(format!("group 3: when Write Logs: {error}"));
            assert_eq!(reported.reason, NodeFailure::of_storage(&error).reason, "{error}");
        }
        assert_eq!(NodeFailure::of_groups("the state machine does not stop".to_owned()).reason, Reason::Internal);
    }
}

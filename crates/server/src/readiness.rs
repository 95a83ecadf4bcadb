//! Whether the node should get requests: it is registered, has a cluster map, and has opened the groups that the
//! map gives it, and it isn't on its way down.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// The name under which gRPC health checks ask for readiness. The empty name asks whether the process lives.
pub(crate) const READY_SERVICE: &str = "quorate.ready";

/// What readiness depends on. Whoever brings something about notes it here.
#[derive(Clone)]
pub(crate) struct Readiness {
    progress: Arc<watch::Sender<Progress>>,
    draining: CancellationToken,
}

#[derive(Clone, Copy, Default)]
struct Progress {
    /// Version of the map that first showed this node as it is now.
    registered: Option<u64>,
    /// Version of the map that the groups are in line with.
    reconciled: u64,
}

impl Readiness {
    pub(crate) fn new(draining: CancellationToken) -> Self {
        Self { progress: Arc::new(watch::Sender::new(Progress::default())), draining }
    }

    /// The cluster knows the node, from this version of its map on.
    pub(crate) fn registered(&self, version: u64) {
        self.progress.send_modify(|progress| progress.registered = Some(version));
    }

    /// The groups are in line with this version of the map.
    pub(crate) fn reconciled(&self, version: u64) {
        self.progress.send_modify(|progress| progress.reconciled = version);
    }

    /// Why the node isn't ready; `None` if it is.
    pub(crate) fn missing(&self) -> Option<&'static str> {
        let Progress { registered, reconciled } = *self.progress.borrow();
        match registered {
            _ if self.draining.is_cancelled() => Some("draining"),
            None => Some("not registered in the cluster yet"),
            // A node that comes back reads an old map first; what it says of groups may be long out of date.
            Some(version) if reconciled < version => Some("groups not opened yet"),
            Some(_) => None,
        }
    }

    /// Tells gRPC health checks, at every change, until the node drains.
    pub(crate) async fn report(self, reporter: HealthReporter) {
        let mut progress = self.progress.subscribe();
        loop {
            let status = match self.missing() {
                None => ServingStatus::Serving,
                Some(_) => ServingStatus::NotServing,
            };
            reporter.set_service_status(READY_SERVICE, status).await;
            if self.draining.run_until_cancelled(progress.changed()).await.is_none_or(|changed| changed.is_err()) {
                break;
            }
        }
        reporter.set_service_status(READY_SERVICE, ServingStatus::NotServing).await;
    }
}

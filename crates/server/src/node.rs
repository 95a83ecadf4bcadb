//! One node: everything it consists of, set up in order and taken down in the reverse order.

mod failure;
mod setup;

use std::sync::Arc;
use std::time::Duration;

use quorate_consensus::{Env, OpenGroupError, RaftGroups};
use quorate_storage::{OpenError, Storage};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

pub use failure::NodeFailure;

use crate::config::Config;
use crate::front::Front;
use crate::identity::IdentityError;
use crate::metrics::{Metrics, subscriptions};
use crate::readiness::Readiness;

/// Where a node's work runs. Clients and consensus are kept apart, so that a burst of requests can't delay a
/// heartbeat; in simulation both are the same.
#[derive(Clone, Debug)]
pub struct Runtimes {
    /// For consensus and other nodes.
    pub consensus: Handle,
    /// For clients.
    pub front: Handle,
}

/// Where a node listens, ports resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// gRPC for clients.
    pub client: String,
    /// gRPC for other nodes.
    pub peer: String,
    /// HTTP for metrics and probes, if served.
    pub metrics: Option<String>,
}

/// Why a node didn't start. Nothing is left running.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder can't be opened: another process has it, or it is damaged.
    #[error(transparent)]
    Storage(#[from] OpenError),
    /// The data folder belongs to someone else.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// An address can't be bound.
    #[error("{setting}: cannot listen on {address}: {source}")]
    Listen {
        /// The setting that names the address.
        setting: &'static str,
        /// The address.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// A Raft group can't be opened.
    #[error(transparent)]
    Group(#[from] OpenGroupError),
    /// Two metrics have the same name.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// A running node.
pub struct Node {
    addresses: Addresses,
    groups: RaftGroups,
    storage: Storage,
    readiness: Readiness,
    /// First step of a shutdown: no new requests.
    draining: CancellationToken,
    /// Last step: other nodes aren't served any more, background work ends.
    stopping: CancellationToken,
    /// Client requests.
    front_tasks: TaskTracker,
    /// Everything else.
    tasks: TaskTracker,
    failure: watch::Receiver<Option<NodeFailure>>,
    drain_time: Duration,
}

/// Time for what should end at once when it is told to.
const STOP_TIME: Duration = Duration::from_secs(2);

impl Node {
    /// Starts a node. It serves when this returns, but is ready only once it has found its cluster: a node that
    /// waits for a quorum must be up for the others to find it.
    ///
    /// # Errors
    /// [`StartError`]; what had been set up is taken down again.
    pub async fn start(env: Arc<dyn Env>, config: Config, runtimes: Runtimes) -> Result<Self, StartError> {
        setup::start(env, config, runtimes).await
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Its replicas, for whoever watches over them from within the process.
    #[must_use]
    pub fn groups(&self) -> &RaftGroups {
        &self.groups
    }

    /// Resolves when the node can't go on, with the reason. The process should end: what a failed disk holds is
    /// unknown to it. Never resolves otherwise.
    pub async fn failed(&self) -> NodeFailure {
        let mut failure = self.failure.clone();
        let seen = failure.wait_for(Option::is_some).await.ok().and_then(|seen| seen.clone());
        match seen {
            Some(failure) => failure,
            None => std::future::pending().await,
        }
    }

    /// Why the node isn't ready for requests; `None` if it is.
    #[must_use]
    pub fn not_ready(&self) -> Option<&'static str> {
        self.readiness.missing()
    }

    /// Shuts down without losing or delaying anything: refuses new requests, finishes those under way, hands its
    /// leaderships to other nodes, stops its groups, and closes its disk.
    pub async fn shutdown(self) {
        info!("draining");
        self.draining.cancel();
        self.front_tasks.close();
        if tokio::time::timeout(self.drain_time, self.front_tasks.wait()).await.is_err() {
            warn!("requests still under way after limits.drain_ms are abandoned");
        }
        // Other nodes are still served: they take over the leaderships.
        self.groups.shutdown().await;
        self.stopping.cancel();
        self.tasks.close();
        if tokio::time::timeout(STOP_TIME, self.tasks.wait()).await.is_err() {
            warn!("background work did not end in time");
        }
        self.storage.close().await;
        info!("stopped");
    }
}

/// What the metrics listener shows.
pub(crate) struct Probe {
    front: Arc<Front>,
    storage: Storage,
    readiness: Readiness,
}

impl Probe {
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.front.metrics
    }

    pub(crate) async fn render(&self) -> String {
        let front = &self.front;
        let node = front.metrics.render(front.router.groups(), &self.storage, &front.admission);
        node + &subscriptions::render(front).await
    }

    pub(crate) fn not_ready(&self) -> Option<&'static str> {
        self.readiness.missing()
    }
}

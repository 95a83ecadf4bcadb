//! Where a run takes place. Workloads and checkers know only what is said here, so they work in both worlds.

pub(crate) mod logs;
pub mod real;
pub mod sim;

use std::sync::Arc;

use futures::future::BoxFuture;
use quorate_client::{Client, ClientError};

/// Nodes, and processes that are their clients.
pub trait World {
    /// Time since the world began.
    fn now_ms(&self) -> u64;

    /// Whether no node is away for good.
    fn is_complete(&self) -> bool {
        true
    }

    /// How its processes reach the cluster.
    fn access(&self) -> Access;

    /// Adds a process that is no node. The run ends when all of them have.
    fn client(&mut self, process: &str, work: BoxFuture<'static, ()>);

    /// Lets a little time pass. True once all clients have ended.
    ///
    /// # Errors
    /// The failure of a node that gave up.
    fn step(&mut self) -> Result<bool, String>;
}

/// The way to the cluster. Cheap to clone.
#[derive(Clone)]
pub struct Access {
    nodes: Arc<[u64]>,
    connect: Arc<dyn Fn() -> Result<Client, ClientError> + Send + Sync>,
}

impl Access {
    /// To a cluster of these nodes; `connect` makes a new client of all of them.
    pub fn new(
        nodes: impl IntoIterator<Item = u64>,
        connect: impl Fn() -> Result<Client, ClientError> + Send + Sync + 'static,
    ) -> Self {
        Self { nodes: nodes.into_iter().collect(), connect: Arc::new(connect) }
    }

    /// The nodes' numbers.
    #[must_use]
    pub fn nodes(&self) -> &[u64] {
        &self.nodes
    }

    /// A new client, with connections of its own.
    ///
    /// # Errors
    /// If the addresses are malformed.
    pub fn client(&self) -> Result<Client, ClientError> {
        (self.connect)()
    }
}

//! A node as a process of its own: runtimes, logs, signals.

use std::io;
use std::sync::Arc;

use quorate_storage::RocksOptions;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::config::Config;
use crate::env::SystemEnv;
use crate::node::{Node, NodeFailure, Runtimes, StartError};
use crate::telemetry::{self, TelemetryError};

/// Why a server process ended other than by being told to. The caller prints it and exits with code 1.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The operating system gave no threads or signals.
    #[error("cannot set up the process: {0}")]
    Process(#[from] io::Error),
    /// Logging can't be set up.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The node didn't start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The node could not go on.
    #[error(transparent)]
    Failed(#[from] NodeFailure),
}

/// Runs a node until SIGTERM or SIGINT, then drains it; a second signal ends it at once. Blocks; must not be called
/// from within a runtime.
///
/// # Errors
/// [`RunError`]: the node didn't start, or its disk failed.
pub fn run(config: Config) -> Result<(), RunError> {
    telemetry::install(&config.log)?;
    for warning in quorate_model::sabotage::warning().into_iter().chain(config.warnings()) {
        warn!("{warning}");
    }
    let consensus = runtime("quorate-consensus")?;
    let front = runtime("quorate-front")?;
    let runtimes = Runtimes { consensus: consensus.handle().clone(), front: front.handle().clone() };
    let ended = front.block_on(run_until_told(config, runtimes));
    // Connections of clients that never end must not keep the process.
    front.shutdown_background();
    consensus.shutdown_background();
    ended
}

/// Loads nothing, starts nothing: checks what only a running process would find, and returns the report that
/// `quorate server check` prints.
///
/// # Errors
/// [`TelemetryError`] if `log.level` can't be used.
pub fn check(config: &Config) -> Result<String, TelemetryError> {
    telemetry::filter(&config.log)?;
    Ok(config.report())
}

async fn run_until_told(config: Config, runtimes: Runtimes) -> Result<(), RunError> {
    let mut signals = Signals::new()?;
    // The tail caches of the replicas and the queues of the dispatchers have budgets of their own, next to this one.
    let storage = RocksOptions { memory_bytes: config.storage.memory_bytes, ..RocksOptions::default() };
    let node = Node::start(Arc::new(SystemEnv { storage }), config, runtimes).await?;
    tokio::select! {
        name = signals.next() => info!(signal = name, "told to stop"),
        // Nothing is flushed on the way: what a failed disk would make of it is unknown.
        failure = node.failed() => return Err(failure.into()),
    }
    tokio::select! {
        () = node.shutdown() => {}
        name = signals.next() => warn!(signal = name, "told to stop again: stopping at once"),
    }
    Ok(())
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

fn runtime(name: &str) -> io::Result<Runtime> {
    Builder::new_multi_thread().thread_name(name).enable_all().build()
}

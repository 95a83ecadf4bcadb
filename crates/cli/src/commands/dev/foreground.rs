//! `quorate dev` in the foreground: up, a tour, and then it watches until Ctrl-C.

use super::{Start, end, end_keeping_folder, node_table, serve, tour};
use crate::dev::cluster::{DevCluster, DevLock};
use crate::dev::process::ProcessState;
use crate::failure::Failure;
use crate::output::{Output, print_line};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::interval;

/// How often the processes are looked at, to tell the person in front of the screen who died.
const LOOK_EVERY: Duration = Duration::from_millis(500);

pub(super) async fn run(start: &Start, output: Output) -> Result<(), Failure> {
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let stopped = async {
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
    };
    let mut cluster = {
        let _lock = DevLock::take()?;
        start.begin()?
    };
    let outcome = tokio::select! {
        outcome = stay(&mut cluster, output) => outcome,
        () = stopped => Ok(()),
    };
    let _lock = DevLock::take()?;
    // Another terminal may have restarted nodes: what the file says counts. Or it has stopped all.
    let Some(cluster) = DevCluster::load()? else { return outcome };
    eprintln!("stopping");
    match outcome {
        Ok(()) => end(&cluster).await,
        failed => end_keeping_folder(&cluster).await.and(failed),
    }
}

/// Brings the cluster up and watches it; returns when another command stopped it, or something is wrong.
async fn stay(cluster: &mut DevCluster, output: Output) -> Result<(), Failure> {
    let count = cluster.nodes.len();
    eprintln!("starting {count} node{} in {}", if count == 1 { "" } else { "s" }, cluster.folder.display());
    serve(cluster).await?;
    if !output.is_json() {
        print_line(&format!("\n{}\n", node_table(cluster)))?;
    }
    tour::take(cluster, output).await?;
    watch().await
}

/// Says when a node's process ends, pauses or comes back.
async fn watch() -> Result<(), Failure> {
    let mut known: BTreeMap<u64, ProcessState> = BTreeMap::new();
    let mut ticks = interval(LOOK_EVERY);
    loop {
        ticks.tick().await;
        let Some(cluster) = DevCluster::load()? else {
            eprintln!("the cluster was stopped by another command");
            return Ok(());
        };
        for node in &cluster.nodes {
            let state = node.state();
            let before = known.insert(node.id, state).unwrap_or(ProcessState::Running);
            match state {
                _ if before == state => {}
                ProcessState::Gone => eprintln!("node {0} ended; `quorate dev restart {0}` starts it again", node.id),
                ProcessState::Paused => {
                    eprintln!("node {0} is paused; `quorate dev resume {0}` lets it go on", node.id)
                }
                ProcessState::Running => eprintln!("node {} runs again", node.id),
            }
        }
    }
}

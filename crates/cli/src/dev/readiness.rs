//! Waiting until the nodes of a development cluster serve: each is asked itself, over its own address.

use super::cluster::{DevCluster, DevNode};
use super::process::ProcessState;
use crate::failure::Failure;
use quorate_client::{Client, ClusterView, HealthStatus, RetrySettings};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// On a slow machine three nodes that open their databases for the first time need a while.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node that is starting answers nothing for a moment; then it is asked again.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// A single answer takes milliseconds, or it isn't coming.
const ANSWER_PATIENCE: Duration = Duration::from_secs(1);

/// What must be true of a node before it counts as ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ready {
    /// It answers. All that can be had without a majority of nodes.
    Answers,
    /// Its health service calls it ready.
    Serves,
    /// That, and it sees every node of the cluster, each within reach.
    SeesAll,
}

/// Waits until each of `nodes` is ready, or until one of their processes ends.
pub(crate) async fn wait(cluster: &DevCluster, nodes: &[u64], ready: Ready) -> Result<(), Failure> {
    let deadline = Instant::now() + PATIENCE;
    for id in nodes {
        let node = cluster.node(*id)?;
        while !is_ready(cluster, node, ready).await {
            if node.state() == ProcessState::Gone {
                return Err(explained(node, "ended instead of starting to serve"));
            }
            if Instant::now() >= deadline {
                return Err(explained(node, &format!("is not ready after {} s", PATIENCE.as_secs())));
            }
            sleep(ASK_EVERY).await;
        }
    }
    Ok(())
}

/// Whether the node, asked itself, says so.
async fn is_ready(cluster: &DevCluster, node: &DevNode, ready: Ready) -> bool {
    let once = RetrySettings { total: ANSWER_PATIENCE, attempt: ANSWER_PATIENCE, ..RetrySettings::default() };
    let Ok(client) = Client::builder().servers([&node.client]).retry(once).build() else { return false };
    let Ok(Ok(view)) = timeout(ANSWER_PATIENCE, client.cluster().get()).await else { return false };
    // The map may also have come from the node that had this port before.
    let itself = view.answered_by.is_some_and(|answering| answering.get() == node.id);
    itself
        && match ready {
            Ready::Answers => true,
            Ready::Serves => serves(&client, node).await,
            Ready::SeesAll => cluster.nodes.iter().all(|other| sees(&view, other)) && serves(&client, node).await,
        }
}

async fn serves(client: &Client, node: &DevNode) -> bool {
    let nodes = client.cluster().health(ANSWER_PATIENCE).await.unwrap_or_default();
    nodes.iter().any(|health| health.node_id == node.id && matches!(health.status, HealthStatus::Ready))
}

fn sees(view: &ClusterView, node: &DevNode) -> bool {
    view.nodes.iter().any(|(id, seen)| id.get() == node.id && seen.reachable && seen.address == node.client)
}

fn explained(node: &DevNode, what: &str) -> Failure {
    Failure::new(format!("node {} {what}; its last words:\n{}", node.id, node.last_words()))
        .advise(format!("read {}", node.log().display()))
}

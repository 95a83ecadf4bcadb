//! `quorate cluster`: nodes, partitions, health.

use crate::connect::Connect;
use crate::failure::Failure;
use crate::output::{Output, table};
use clap::{Args, Subcommand};
use quorate_client::{Client, ClusterView, HealthStatus, NodeHealth};
use serde::Serialize;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long one node may take to say how it is.
const NODE_PATIENCE: Duration = Duration::from_secs(3);

/// How often `--watch` and `--wait` ask again.
const ASK_EVERY: Duration = Duration::from_millis(250);

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Nodes, topics, and who leads what
    Status,
    /// Whether every node serves and every partition has a leader; exit code 10 if not
    Health(Health),
}

#[derive(Debug, Args)]
pub(crate) struct Health {
    /// Wait until the cluster is healthy, 60 s unless said otherwise
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "60s", value_parser = humantime::parse_duration)]
    wait: Option<Duration>,
    /// Print every change until stopped
    #[arg(long, conflicts_with = "wait")]
    watch: bool,
}

#[derive(Serialize)]
struct StatusRow {
    cluster: String,
    version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata_leader_node_id: Option<u64>,
    nodes: Vec<NodeRow>,
    topics: Vec<TopicRow>,
}

#[derive(Serialize)]
struct NodeRow {
    node_id: u64,
    address: String,
    state: &'static str,
    metadata_voter: bool,
    /// Partitions that it leads.
    leads: usize,
}

#[derive(Serialize)]
struct TopicRow {
    name: String,
    topic_id: u64,
    partitions: Vec<PartitionRow>,
}

#[derive(Serialize)]
struct PartitionRow {
    partition: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    leader_node_id: Option<u64>,
    replica_node_ids: Vec<u64>,
}

#[derive(PartialEq, Eq, Serialize)]
struct HealthRow {
    healthy: bool,
    nodes: usize,
    nodes_ready: usize,
    problems: Vec<String>,
}

impl ClusterCommand {
    pub(crate) async fn run(&self, connect: &Connect, output: Output) -> Result<(), Failure> {
        let client = connect.client()?;
        match self {
            ClusterCommand::Status => {
                let view = client.cluster().get().await?;
                let row = StatusRow::of(&view, &client.cluster().health(NODE_PATIENCE).await?);
                output.result(&row, || row.text())
            }
            ClusterCommand::Health(health) if health.watch => watch(&client, output).await,
            ClusterCommand::Health(health) => health.ask(&client, output).await,
        }
    }
}

impl Health {
    async fn ask(&self, client: &Client, output: Output) -> Result<(), Failure> {
        let deadline = Instant::now() + self.wait.unwrap_or_default();
        loop {
            let answer = HealthRow::ask(client).await;
            let healthy = answer.as_ref().is_ok_and(|row| row.healthy);
            if healthy || Instant::now() >= deadline {
                let row = answer?;
                output.result(&row, || row.text())?;
                return if row.healthy { Ok(()) } else { Err(row.into_failure()) };
            }
            sleep(ASK_EVERY).await;
        }
    }
}

async fn watch(client: &Client, output: Output) -> Result<(), Failure> {
    let mut shown = None;
    loop {
        let row = HealthRow::ask(client).await?;
        if shown.as_ref() != Some(&row) {
            output.result(&row, || row.text())?;
        }
        shown = Some(row);
        sleep(ASK_EVERY).await;
    }
}

impl HealthRow {
    async fn ask(client: &Client) -> Result<HealthRow, Failure> {
        let view = client.cluster().get().await?;
        let nodes = client.cluster().health(NODE_PATIENCE).await?;
        Ok(HealthRow::of(&view, &nodes))
    }

    fn of(view: &ClusterView, nodes: &[NodeHealth]) -> HealthRow {
        let ready = |id: u64| nodes.iter().any(|node| node.node_id == id && matches!(node.status, HealthStatus::Ready));
        let mut problems: Vec<String> = nodes.iter().filter_map(node_problem).collect();
        if !view.metadata_leader.is_some_and(|leader| ready(leader.get())) {
            problems
                .push("the metadata group has no leader that serves: topics can't be created or changed".to_owned());
        }
        for (name, topic) in &view.topics {
            // What a map says about the leader may be older than the leader's death.
            let led = |node: Option<u64>| node.is_some_and(ready);
            let leaders = topic.partitions.iter().map(|partition| partition.leadership.node.map(|node| node.get()));
            let leaderless: Vec<String> =
                leaders.enumerate().filter(|(_, leader)| !led(*leader)).map(|(index, _)| index.to_string()).collect();
            if !leaderless.is_empty() {
                problems.push(format!("topic {name}: no leader of partition {}", leaderless.join(", ")));
            }
        }
        let nodes_ready = nodes.iter().filter(|node| matches!(node.status, HealthStatus::Ready)).count();
        HealthRow { healthy: problems.is_empty(), nodes: nodes.len(), nodes_ready, problems }
    }

    fn text(&self) -> String {
        let word = if self.healthy { "healthy" } else { "unhealthy" };
        let head = format!("{word}: {} of {} nodes ready", self.nodes_ready, self.nodes);
        std::iter::once(head)
            .chain(self.problems.iter().map(|problem| format!("  {problem}")))
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn into_failure(self) -> Failure {
        let more = self.problems.len().saturating_sub(1);
        let first = self.problems.into_iter().next().unwrap_or_default();
        let what = if more == 0 { first } else { format!("{first}, and {more} more") };
        Failure::unhealthy(what)
            .advise("read the log of the node in question; `quorate cluster health --wait` waits for better times")
    }
}

fn node_problem(node: &NodeHealth) -> Option<String> {
    let (id, address) = (node.node_id, &node.address);
    match &node.status {
        HealthStatus::Ready => None,
        HealthStatus::NotReady => Some(format!("node {id} at {address} runs, but doesn't serve")),
        HealthStatus::Unreachable(error) => {
            Some(format!("node {id} at {address} can't be reached: {}", error.message()))
        }
    }
}

impl StatusRow {
    fn of(view: &ClusterView, health: &[NodeHealth]) -> StatusRow {
        let partitions = || view.topics.values().flat_map(|topic| &topic.partitions);
        let led_by = |id: u64| {
            partitions().filter(|partition| partition.leadership.node.is_some_and(|node| node.get() == id)).count()
        };
        let state = |id: u64| match health.iter().find(|node| node.node_id == id).map(|node| &node.status) {
            Some(HealthStatus::Ready) => "ready",
            Some(HealthStatus::NotReady) => "not ready",
            Some(HealthStatus::Unreachable(_)) | None => "unreachable",
        };
        let node = |(id, node): (&_, &quorate_client::NodeView)| {
            let id: u64 = quorate_client::NodeId::get(*id);
            NodeRow {
                node_id: id,
                address: node.address.clone(),
                state: state(id),
                metadata_voter: node.metadata_voter,
                leads: led_by(id),
            }
        };
        let topic = |(name, topic): (&String, &quorate_client::TopicView)| TopicRow {
            name: name.clone(),
            topic_id: topic.id.get(),
            partitions: topic.partitions.iter().enumerate().map(PartitionRow::of).collect(),
        };
        StatusRow {
            cluster: view.cluster.clone(),
            version: view.version,
            metadata_leader_node_id: view.metadata_leader.map(|node| node.get()),
            nodes: view.nodes.iter().map(node).collect(),
            topics: view.topics.iter().map(topic).collect(),
        }
    }

    fn text(&self) -> String {
        let leader = self.metadata_leader_node_id;
        let role = |node: &NodeRow| match (node.metadata_voter, leader == Some(node.node_id)) {
            (_, true) => "leader",
            (true, false) => "voter",
            (false, false) => "–",
        };
        let nodes = self.nodes.iter().map(|node| {
            vec![
                node.node_id.to_string(),
                node.address.clone(),
                node.state.to_owned(),
                role(node).to_owned(),
                node.leads.to_string(),
            ]
        });
        let mut text = format!("cluster {}, map version {}\n\n", self.cluster, self.version);
        text.push_str(&table(&["node", "address", "state", "metadata", "leads"], nodes));
        if self.topics.is_empty() {
            return text;
        }
        let rows =
            self.topics.iter().flat_map(|topic| topic.partitions.iter().map(|partition| partition.cells(&topic.name)));
        text.push_str("\n\n");
        text.push_str(&table(&["topic", "partition", "leader", "replicas"], rows));
        text
    }
}

impl PartitionRow {
    fn of((partition, view): (usize, &quorate_client::PartitionView)) -> PartitionRow {
        PartitionRow {
            partition,
            leader_node_id: view.leadership.node.map(|node| node.get()),
            replica_node_ids: view.replicas.iter().map(|node| node.get()).collect(),
        }
    }

    fn cells(&self, topic: &str) -> Vec<String> {
        let leader = self.leader_node_id.map_or_else(|| "–".to_owned(), |leader| leader.to_string());
        let replicas: Vec<String> = self.replica_node_ids.iter().map(u64::to_string).collect();
        vec![topic.to_owned(), self.partition.to_string(), leader, replicas.join(",")]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_client::{Leadership, NodeId, NodeView, PartitionView, TopicId, TopicView};
    use std::collections::BTreeMap;

    /// Two nodes; node 1 leads the metadata group, `leader` the only partition.
    fn view(leader: Option<u64>) -> ClusterView {
        let node =
            |id| (NodeId::new(id), NodeView { address: format!("n{id}:1"), reachable: true, metadata_voter: true });
        let leadership = Leadership { term: 1, node: leader.map(NodeId::new) };
        let partitions = vec![PartitionView { replicas: vec![NodeId::new(1), NodeId::new(2)], leadership }];
        let topic = TopicView { id: TopicId::new(1), partitions, max_message_bytes: 1 };
        ClusterView {
            nodes: BTreeMap::from([node(1), node(2)]),
            topics: BTreeMap::from([("tea".to_owned(), topic)]),
            metadata_leader: Some(NodeId::new(1)),
            ..ClusterView::default()
        }
    }

    fn health(second: HealthStatus) -> [NodeHealth; 2] {
        let node = |node_id, status| NodeHealth { node_id, address: format!("n{node_id}:1"), status };
        [node(1, HealthStatus::Ready), node(2, second)]
    }

    #[test]
    fn a_cluster_is_healthy_when_every_node_serves_and_every_partition_is_led() {
        let row = HealthRow::of(&view(Some(2)), &health(HealthStatus::Ready));
        assert!(row.healthy, "{:?}", row.problems);
        assert_eq!(row.text(), "healthy: 2 of 2 nodes ready");
    }

    #[test]
    fn a_partition_without_a_leader_is_named() {
        let row = HealthRow::of(&view(None), &health(HealthStatus::Ready));
        assert_eq!(row.problems, ["topic tea: no leader of partition 0"]);
    }

    #[test]
    fn a_leader_that_does_not_serve_leads_nothing_whatever_the_map_says() {
        let row = HealthRow::of(&view(Some(2)), &health(HealthStatus::NotReady));
        assert_eq!(row.problems, ["node 2 at n2:1 runs, but doesn't serve", "topic tea: no leader of partition 0"]);
        assert!(row.into_failure().to_string().starts_with("unhealthy: node 2"));
    }
}

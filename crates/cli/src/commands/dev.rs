//! `quorate dev`: a cluster of real processes on this machine, and ways to hurt it.

use crate::context::{Context, Contexts};
use crate::dev::cluster::{DevCluster, DevLock, DevNode};
use crate::dev::layout::{self, NODES_MAX};
use crate::dev::process::ProcessState;
use crate::dev::readiness::{self, Ready};
use crate::failure::Failure;
use crate::folders;
use crate::output::{Output, print_line};
use clap::{Args, Subcommand};
use nix::sys::signal::Signal;
use quorate_client::{Client, ClusterView};
use serde::Serialize;
use std::path::PathBuf;

mod foreground;
mod tour;

/// The context that the development cluster makes and selects.
const CONTEXT: &str = "dev";

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Dev {
    #[command(flatten)]
    start: Start,
    #[command(subcommand)]
    command: Option<DevCommand>,
}

/// Options of starting a cluster.
#[derive(Debug, Args)]
struct Start {
    /// Number of nodes [default: 3, or as many as the folder holds]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=NODES_MAX))]
    nodes: Option<u64>,
    /// Where the data lives [default: a folder of this user's, kept from one start to the next]
    #[arg(long, value_name = "DIR", conflicts_with = "ephemeral")]
    data: Option<PathBuf>,
    /// Throw the data away when the cluster stops
    #[arg(long)]
    ephemeral: bool,
    /// Return when the cluster is ready and leave it running
    #[arg(long)]
    detach: bool,
}

#[derive(Debug, Subcommand)]
enum DevCommand {
    /// The processes: which run, where they listen, where they log
    Status,
    /// Stop every process, in order
    Stop,
    /// End nodes at once, with SIGKILL: nothing is handed over, nothing flushed
    Kill(Choice),
    /// Freeze nodes, with SIGSTOP: their connections stay open and silent
    Pause(Choice),
    /// Let frozen nodes go on
    Resume(Choice),
    /// Stop nodes in order, if they run, and start them again on the same data
    Restart(Choice),
}

/// Which nodes a command is about.
#[derive(Debug, Args)]
struct Choice {
    /// A node's number, `leader`, or `all`
    #[arg(value_name = "leader|N|all")]
    target: Target,
    /// With `leader`: of this topic's partition [default: the node that leads most]
    #[arg(long)]
    topic: Option<String>,
    #[arg(long, requires = "topic", default_value_t = 0)]
    partition: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Leader,
    All,
    Node(u64),
}

impl std::str::FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Target, String> {
        match text {
            "leader" => Ok(Target::Leader),
            "all" => Ok(Target::All),
            number => number.parse().map(Target::Node).map_err(|_| "not `leader`, `all` or a node's number".to_owned()),
        }
    }
}

/// A node as `status`, and the start of a detached cluster, print it.
#[derive(Debug, Serialize)]
struct NodeRow {
    node_id: u64,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    client: String,
    peer: String,
    metrics: String,
    config: PathBuf,
    log: PathBuf,
}

#[derive(Serialize)]
struct ClusterRow {
    folder: PathBuf,
    servers: Vec<String>,
    nodes: Vec<NodeRow>,
}

/// What was done to a node.
#[derive(Serialize)]
struct DeedRow {
    node_id: u64,
    done: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
}

impl Dev {
    pub(crate) async fn run(&self, output: Output) -> Result<(), Failure> {
        match &self.command {
            None if self.start.detach => self.start.detached(output).await,
            None => foreground::run(&self.start, output).await,
            Some(DevCommand::Status) => status(output),
            Some(DevCommand::Stop) => stop(output).await,
            Some(DevCommand::Kill(choice)) => choice.signal(Signal::SIGKILL, "killed", output).await,
            Some(DevCommand::Pause(choice)) => choice.signal(Signal::SIGSTOP, "paused", output).await,
            Some(DevCommand::Resume(choice)) => choice.signal(Signal::SIGCONT, "resumed", output).await,
            Some(DevCommand::Restart(choice)) => choice.restart(output).await,
        }
    }
}

impl Start {
    async fn detached(&self, output: Output) -> Result<(), Failure> {
        let _lock = DevLock::take()?;
        let mut cluster = self.begin()?;
        if let Err(failure) = serve(&mut cluster).await {
            end_keeping_folder(&cluster).await?;
            return Err(failure);
        }
        let row = ClusterRow {
            folder: cluster.folder.clone(),
            servers: cluster.client_addresses(),
            nodes: cluster.nodes.iter().map(NodeRow::of).collect(),
        };
        output.result(&row, || format!("{}\n\n{}", node_table(&cluster), "`quorate dev stop` ends it"))
    }

    /// Everything before the first process: no other cluster, a folder, configurations.
    fn begin(&self) -> Result<DevCluster, Failure> {
        let previous_context = Contexts::load()?.current.filter(|name| name != CONTEXT);
        if let Some(cluster) = DevCluster::load()? {
            if cluster.any_process() {
                return Err(Failure::new("a development cluster is running already")
                    .advise("use it (`quorate dev status`), or end it with `quorate dev stop`"));
            }
            // Left behind by a cluster whose processes all ended without `stop`.
            cluster.remove_ephemeral_folder()?;
            cluster.forget()?;
        }
        let folder = self.folder()?;
        let nodes = layout::lay_out(&folder, self.nodes)?.into_iter().map(DevNode::new).collect();
        let cluster = DevCluster { folder, ephemeral: self.ephemeral, previous_context, nodes };
        cluster.save()?;
        Ok(cluster)
    }

    fn folder(&self) -> Result<PathBuf, Failure> {
        if self.ephemeral {
            return Ok(tempfile::Builder::new().prefix("quorate-dev-").tempdir()?.keep());
        }
        let folder = self.data.clone().map_or_else(folders::dev_data, Ok)?;
        // The processes must find it wherever later commands are called from.
        Ok(std::path::absolute(folder)?)
    }
}

/// Starts every process, waits until all serve, and selects the context.
async fn serve(cluster: &mut DevCluster) -> Result<(), Failure> {
    let ids: Vec<u64> = cluster.nodes.iter().map(|node| node.id).collect();
    for id in &ids {
        cluster.start(*id)?;
    }
    readiness::wait(cluster, &ids, Ready::SeesAll).await?;
    let mut contexts = Contexts::load()?;
    contexts.contexts.insert(CONTEXT.to_owned(), Context { servers: cluster.client_addresses() });
    contexts.select(CONTEXT)?;
    contexts.save()
}

/// Stops every process and removes what must not outlive the cluster.
async fn end(cluster: &DevCluster) -> Result<(), Failure> {
    end_keeping_folder(cluster).await?;
    cluster.remove_ephemeral_folder()
}

/// After a failure: the logs in the folder say why.
async fn end_keeping_folder(cluster: &DevCluster) -> Result<(), Failure> {
    cluster.stop().await?;
    let mut contexts = Contexts::load()?;
    contexts.remove(CONTEXT, cluster.previous_context.as_deref());
    contexts.save()?;
    cluster.forget()
}

fn status(output: Output) -> Result<(), Failure> {
    let cluster = DevCluster::running()?;
    let rows: Vec<NodeRow> = cluster.nodes.iter().map(NodeRow::of).collect();
    output.list(&NodeRow::HEADER, &rows, NodeRow::cells)
}

async fn stop(output: Output) -> Result<(), Failure> {
    let _lock = DevLock::take()?;
    let cluster = DevCluster::running()?;
    end(&cluster).await?;
    let kept = if cluster.ephemeral {
        "data removed".to_owned()
    } else {
        format!("data kept in {}", cluster.folder.display())
    };
    for node in &cluster.nodes {
        let row = DeedRow { node_id: node.id, done: "stopped", pid: None };
        output.result(&row, || format!("node {} stopped", node.id))?;
    }
    if output.is_json() { Ok(()) } else { print_line(&kept) }
}

impl Choice {
    async fn signal(&self, signal: Signal, done: &'static str, output: Output) -> Result<(), Failure> {
        let cluster = DevCluster::running()?;
        let chosen = self.nodes(&cluster).await?;
        let mut rows = Vec::new();
        // All at once, before anything is waited for: that is what `all` is for.
        for id in &chosen {
            let node = cluster.node(*id)?;
            rows.push(DeedRow { node_id: *id, done, pid: node.pid() });
            node.signal(signal)?;
        }
        for (id, row) in chosen.iter().zip(rows) {
            if signal == Signal::SIGKILL {
                cluster.node(*id)?.see_killed().await?;
            }
            output.result(&row, || {
                format!("node {id} {done}{}", row.pid.map_or_else(String::new, |pid| format!(" (process {pid})")))
            })?;
        }
        Ok(())
    }

    async fn restart(&self, output: Output) -> Result<(), Failure> {
        let _lock = DevLock::take()?;
        let mut cluster = DevCluster::running()?;
        let chosen = self.nodes(&cluster).await?;
        for id in &chosen {
            cluster.node(*id)?.ask_to_stop()?;
        }
        for id in &chosen {
            cluster.node(*id)?.see_stopped().await?;
            cluster.start(*id)?;
        }
        // Without a majority nobody leads, and all a node can do is answer.
        let ready = if cluster.majority_runs() { Ready::Serves } else { Ready::Answers };
        readiness::wait(&cluster, &chosen, ready).await?;
        for id in chosen {
            let pid = cluster.node(id)?.pid();
            output.result(&DeedRow { node_id: id, done: "restarted", pid }, || format!("node {id} restarted"))?;
        }
        Ok(())
    }

    async fn nodes(&self, cluster: &DevCluster) -> Result<Vec<u64>, Failure> {
        if self.topic.is_some() && self.target != Target::Leader {
            return Err(
                Failure::usage("--topic says whose leader is meant").advise("write `leader` in place of the number")
            );
        }
        match self.target {
            Target::Node(id) => Ok(vec![cluster.node(id)?.id]),
            Target::All => Ok(cluster.nodes.iter().map(|node| node.id).collect()),
            Target::Leader => {
                let client = Client::builder().servers(cluster.client_addresses()).build()?;
                let view = client.cluster().get().await?;
                let leader = match &self.topic {
                    Some(topic) => leader_of(&view, topic, self.partition)?,
                    None => busiest_leader(&view),
                };
                leader.map(|id| vec![id]).ok_or_else(|| {
                    Failure::new("there is no leader at this moment")
                        .advise("see `quorate cluster health`, then try again")
                })
            }
        }
    }
}

fn leader_of(view: &ClusterView, topic: &str, partition: u32) -> Result<Option<u64>, Failure> {
    let known = view
        .topic(topic)
        .ok_or_else(|| Failure::new(format!("there is no topic {topic}")).advise("`quorate topic ls` lists them"))?;
    let partition_view = known.partitions.get(partition as usize).ok_or_else(|| {
        Failure::new(format!("{topic} has no partition {partition}"))
            .advise(format!("its partitions are 0 to {}", known.partitions.len().saturating_sub(1)))
    })?;
    Ok(partition_view.leadership.node.map(|node| node.get()))
}

/// The node that leads most partitions; of equals, the one that leads the metadata group, else the lowest.
fn busiest_leader(view: &ClusterView) -> Option<u64> {
    let partitions = view.topics.values().flat_map(|topic| &topic.partitions);
    let led: Vec<_> = partitions.filter_map(|partition| partition.leadership.node).collect();
    let count = |node| led.iter().filter(|leader| **leader == node).count();
    let rank = |node| (count(node), view.metadata_leader == Some(node), std::cmp::Reverse(node));
    let leads_something = |node: &_| count(*node) > 0 || view.metadata_leader == Some(*node);
    view.nodes.keys().copied().filter(leads_something).max_by_key(|node| rank(*node)).map(|node| node.get())
}

impl NodeRow {
    const HEADER: [&'static str; 6] = ["node", "state", "pid", "client", "metrics", "log"];

    fn of(node: &DevNode) -> NodeRow {
        let state = match node.state() {
            ProcessState::Running => "running",
            ProcessState::Paused => "paused",
            ProcessState::Gone => "stopped",
        };
        NodeRow {
            node_id: node.id,
            state,
            pid: node.pid(),
            client: node.client.clone(),
            peer: node.peer.clone(),
            metrics: node.metrics.clone(),
            config: node.config(),
            log: node.log(),
        }
    }

    fn cells(&self) -> Vec<String> {
        let pid = self.pid.map_or_else(|| "–".to_owned(), |pid| pid.to_string());
        let metrics = format!("http://{}/metrics", self.metrics);
        vec![
            self.node_id.to_string(),
            self.state.to_owned(),
            pid,
            self.client.clone(),
            metrics,
            self.log.display().to_string(),
        ]
    }
}

fn node_table(cluster: &DevCluster) -> String {
    crate::output::table(&NodeRow::HEADER, cluster.nodes.iter().map(|node| NodeRow::of(node).cells()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_client::{Leadership, NodeId, NodeView, PartitionView, TopicId, TopicView};
    use std::collections::BTreeMap;

    #[test]
    fn a_target_is_the_leader_all_or_a_number() {
        assert_eq!("leader".parse(), Ok(Target::Leader));
        assert_eq!("all".parse(), Ok(Target::All));
        assert_eq!("3".parse(), Ok(Target::Node(3)));
        assert!("three".parse::<Target>().is_err());
    }

    #[test]
    fn the_leader_is_whoever_leads_most_and_of_equals_the_metadata_leader() {
        let view = |led_by: &[u64], metadata: Option<u64>| {
            let node = NodeView { address: "n:1".to_owned(), reachable: true, metadata_voter: true };
            let leads = |id: &u64| Leadership { term: 1, node: Some(NodeId::new(*id)) };
            let partition = |id: &u64| PartitionView { replicas: Vec::new(), leadership: leads(id) };
            let partitions = led_by.iter().map(partition).collect();
            let topic = TopicView { id: TopicId::new(1), partitions, max_message_bytes: 1 };
            ClusterView {
                nodes: (1..=3).map(|id| (NodeId::new(id), node.clone())).collect(),
                topics: BTreeMap::from([("tea".to_owned(), topic)]),
                metadata_leader: metadata.map(NodeId::new),
                ..ClusterView::default()
            }
        };
        assert_eq!(busiest_leader(&view(&[2, 2, 1], Some(1))), Some(2));
        assert_eq!(busiest_leader(&view(&[1, 2], Some(2))), Some(2));
        assert_eq!(busiest_leader(&view(&[], Some(3))), Some(3));
        assert_eq!(busiest_leader(&view(&[], None)), None);
        assert_eq!(leader_of(&view(&[2], None), "tea", 0).expect("it is there"), Some(2));
        assert!(leader_of(&view(&[2], None), "tea", 1).is_err());
    }
}

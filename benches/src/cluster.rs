//! A Quorate cluster of real processes, started and stopped through `quorate dev` on behalf of a user of
//! its own, whom no other cluster or context on the machine concerns.

use crate::failure::Failure;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use quorate_client::{Client, ClusterView};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// Leaders of a thousand new partitions are elected within this time, or something is wrong.
const LEADERS_PATIENCE: Duration = Duration::from_secs(120);

/// Lives as long as this value: when it is dropped, its processes and its data go.
#[derive(Debug)]
pub struct Cluster {
    quorate: PathBuf,
    home: TempDir,
    nodes: Vec<Node>,
}

/// A node of a [`Cluster`].
#[derive(Clone, Debug)]
pub struct Node {
    /// As in the cluster map.
    pub id: u64,
    /// Where clients reach it, `host:port`.
    pub client: String,
}

impl Cluster {
    /// Starts `nodes` processes of the binary and waits until they serve.
    ///
    /// # Errors
    /// What `quorate dev` said.
    pub fn start(quorate: &Path, nodes: usize) -> Result<Cluster, Failure> {
        let quorate = std::path::absolute(quorate)?;
        let mut cluster = Cluster { quorate, home: tempfile::tempdir()?, nodes: Vec::new() };
        let count = nodes.to_string();
        let started = cluster.quorate(&["dev", "--nodes", &count, "--ephemeral", "--detach", "-o", "json"])?;
        let rows = started.first().and_then(|row| row["nodes"].as_array()).cloned().unwrap_or_default();
        let node =
            |row: &Value| Some(Node { id: row["node_id"].as_u64()?, client: row["client"].as_str()?.to_owned() });
        cluster.nodes = rows.iter().filter_map(node).collect();
        match cluster.nodes.len() == nodes {
            true => Ok(cluster),
            false => Err(Failure::new(format!("`quorate dev` told of {} nodes, not {nodes}", cluster.nodes.len()))),
        }
    }

    /// Runs a client command of the binary; the objects of its JSON output.
    ///
    /// # Errors
    /// What the command said when it failed.
    pub fn quorate(&self, arguments: &[&str]) -> Result<Vec<Value>, Failure> {
        let output = self.command(arguments).output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(Failure::new(format!("`quorate {}`: {}", arguments.join(" "), said.trim())));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// The nodes, by id.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Addresses of all nodes.
    #[must_use]
    pub fn servers(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.client.clone()).collect()
    }

    /// A client that knows every node; within a tokio runtime.
    ///
    /// # Errors
    /// Never for addresses that `quorate dev` told.
    pub fn client(&self) -> Result<Client, Failure> {
        Ok(Client::builder().servers(self.servers()).build()?)
    }

    /// The process of a node; `None` while it has none.
    ///
    /// # Errors
    /// What `quorate dev status` said.
    pub fn pid(&self, id: u64) -> Result<Option<i32>, Failure> {
        let rows = self.quorate(&["dev", "status", "-o", "json"])?;
        let row = rows.iter().find(|row| row["node_id"] == id);
        Ok(row.and_then(|row| row["pid"].as_i64()).and_then(|pid| i32::try_from(pid).ok()))
    }

    /// Sends a signal to the process that [`pid`](Self::pid) told a moment ago. Nothing is started for it, so that
    /// the moment of the signal is the moment of the call.
    ///
    /// # Errors
    /// If there is no such process.
    pub fn signal(&self, pid: i32, signal: Signal) -> Result<(), Failure> {
        kill(Pid::from_raw(pid), signal).map_err(|error| Failure::new(format!("process {pid}: {error}")))
    }

    /// Starts a node's process again, after stopping it in order if it runs. Returns when it serves.
    ///
    /// # Errors
    /// What `quorate dev restart` said.
    pub fn restart(&self, id: u64) -> Result<(), Failure> {
        self.quorate(&["dev", "restart", &id.to_string(), "-o", "json"]).map(|_| ())
    }

    /// Waits until every node serves and every partition is led.
    ///
    /// # Errors
    /// What is still wrong after `quorate cluster health --wait` lost its patience.
    pub fn wait_healthy(&self) -> Result<(), Failure> {
        self.quorate(&["--timeout", "60s", "cluster", "health", "--wait", "-o", "json"]).map(|_| ())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.quorate);
        command.args(arguments).env_remove("QUORATE_SERVER").env("NO_COLOR", "1");
        command.env("HOME", self.home.path()).env("TMPDIR", self.home.path());
        for variable in ["XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME"] {
            command.env(variable, self.home.path().join(variable));
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// No process outlives its cluster.
impl Drop for Cluster {
    fn drop(&mut self) {
        if !self.home.path().join("XDG_STATE_HOME/quorate/dev.json").exists() {
            return;
        }
        let stopped = self.command(&["dev", "stop"]).output();
        if !stopped.is_ok_and(|output| output.status.success()) {
            eprintln!("the cluster could not be stopped");
        }
    }
}

/// Waits until every partition of a topic has a leader; the map that says so.
///
/// # Errors
/// If that takes longer than two minutes.
pub async fn wait_for_leaders(client: &Client, topic: &str) -> Result<Arc<ClusterView>, Failure> {
    let led = |view: &ClusterView| {
        let known = view.topic(topic);
        known.is_some_and(|topic| topic.partitions.iter().all(|partition| partition.leadership.node.is_some()))
    };
    Ok(client.cluster().wait_for(LEADERS_PATIENCE, led).await?)
}

/// A line that says which build is measured, for the head of every report.
///
/// # Errors
/// If the binary can't be run.
pub fn build_of(quorate: &Path) -> Result<String, Failure> {
    let output = Command::new(quorate).arg("--version").stdin(Stdio::null()).output()?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let is_release = quorate.components().any(|part| part.as_os_str() == "release");
    let profile = if is_release { "release build" } else { "development build: only ratios mean anything" };
    Ok(format!("{version}, {profile}"))
}

//! Three or five real nodes: processes of the `quorate` binary, with real disks and a real network, in real time. As root
//! each has a network namespace and a file system of its own, so it can be cut off and lose its power; otherwise all
//! share the machine's, and faults that need more are left out (see [`Host`]).
//!
//! Nothing outlives a run: processes end with the thread that started them, and what else there is goes when the world
//! is dropped, or when the next one is made.

mod clock;
mod disk;
mod host;
mod injection;
mod leaders;
mod leftovers;
mod memory;
mod network;
mod node;
mod outside;
mod switch;
mod tool;

use std::fs;
use std::net::TcpListener;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use nix::sys::signal::Signal;
use quorate_client::Client;
use quorate_storage::{RocksOptions, Storage};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

pub use host::{Host, Need};
pub use leaders::Led;
pub use network::{CLIENTS, Treatment, Way};
pub use switch::Delivery;

use self::clock::Clock;
use self::disk::Disk;
use self::injection::Injection;
use self::memory::MemoryGroup;
use self::network::{Network, enter};
use self::node::Node;
use self::switch::Switch;
use crate::checker::GroupLogs;
use crate::history::Action;
use crate::trace::Trace;
use crate::world::{Access, World, logs};

/// What a world is made of.
#[derive(Clone, Debug)]
pub struct Scale {
    /// Number of nodes: 3 or 5.
    pub nodes: u64,
    /// The program that they run.
    pub quorate: PathBuf,
    /// Clocks that can be set.
    pub fake_clocks: bool,
    /// Memory that can be limited.
    pub memory_groups: bool,
    /// Silence after which a node is suspected.
    pub suspect_after_ms: u64,
}

/// Time that passes in a step.
const STEP: Duration = Duration::from_millis(5);

/// Draining, handing over and ending have their bounds, and this is above their sum.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// Steps between two looks at what processes use.
const STEPS_PER_MEASUREMENT: u64 = 100;

/// Below the range from which Linux takes the ports of outgoing connections: a port that a killed node left can't be
/// taken by somebody's connection before the node comes back.
const PORTS: Range<u16> = 20_000..32_000;

/// The real world.
pub struct RealWorld {
    nodes: Vec<Node>,
    ids: Vec<u64>,
    quorate: PathBuf,
    runtime: Option<Runtime>,
    clients: Vec<JoinHandle<()>>,
    /// Before the network that it is part of.
    switch: Option<Switch>,
    injection: Option<Injection>,
    network: Option<Network>,
    /// Holds everything above, so it goes last.
    _folder: Folder,
    trace: Trace,
    steps: u64,
}

/// Gone when it is dropped.
struct Folder(PathBuf);

impl RealWorld {
    /// A world whose nodes have just been started.
    ///
    /// # Errors
    /// What the operating system refused.
    pub fn new(scale: &Scale, host: &Host, trace: Trace) -> Result<Self, String> {
        leftovers::clear_up();
        let prefix = leftovers::own_prefix();
        let folder = Folder(std::env::temp_dir().join(&prefix));
        let ids: Vec<u64> = (1..=scale.nodes).collect();
        let has_network = host.lacks(Need::Network).is_none();
        let network = if has_network { Some(Network::new(&prefix, &ids)?) } else { None };
        let nodes = make_nodes(scale, host, network.as_ref(), &folder.0)?;
        let runtime = runtime(network.as_ref()).map_err(|error| error.to_string())?;
        let quorate = scale.quorate.clone();
        let mut world = Self {
            nodes,
            ids: ids.clone(),
            quorate,
            runtime: Some(runtime),
            clients: Vec::new(),
            switch: None,
            injection: None,
            network,
            _folder: folder,
            trace,
            steps: 0,
        };
        ids.iter().try_for_each(|node| world.start(*node))?;
        Ok(world)
    }

    /// The nodes' numbers, without those whose disk is lost.
    #[must_use]
    pub fn nodes(&self) -> Vec<u64> {
        self.nodes.iter().filter(|node| !node.is_out).map(|node| node.id).collect()
    }

    /// Number of nodes, with those whose disk is lost.
    #[must_use]
    pub fn size(&self) -> usize {
        self.nodes.len()
    }

    /// Starts a node's process, if it has none and its disk is there.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn start(&mut self, node: u64) -> Result<(), String> {
        let quorate = self.quorate.clone();
        let node = self.node_mut(node);
        if node.process.is_some() || node.is_out {
            return Ok(());
        }
        node.start(&quorate).map_err(|error| format!("node {} can't be started: {error}", node.id))
    }

    /// Kills a node's process and waits for its end. True if there was one, and this is what it died of.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn kill(&mut self, node: u64) -> Result<bool, String> {
        self.node_mut(node).kill()
    }

    /// Tells a node to stop, and waits for its end.
    ///
    /// # Errors
    /// If it doesn't end.
    pub fn stop(&mut self, node: u64) -> Result<(), String> {
        let node = self.node_mut(node);
        node.signal(Signal::SIGTERM)?;
        let deadline = Instant::now() + STOP_PATIENCE;
        while node.process.is_some() {
            if Instant::now() > deadline {
                return Err(format!("node {} doesn't stop within {} s", node.id, STOP_PATIENCE.as_secs()));
            }
            thread::sleep(STEP);
            node.look().map_err(|error| format!("node {}: {error}", node.id))?;
        }
        Ok(())
    }

    /// Sends a signal to a node's process. False: it has none.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn signal(&self, node: u64, signal: Signal) -> Result<bool, String> {
        self.node(node).signal(signal)
    }

    /// Whether a node has a process.
    #[must_use]
    pub fn is_running(&self, node: u64) -> bool {
        self.node(node).process.is_some()
    }

    /// Number of a node's process.
    #[must_use]
    pub fn pid(&self, node: u64) -> Option<u32> {
        self.node(node).pid()
    }

    /// Whether a node's process stands still.
    #[must_use]
    pub fn is_stopped(&self, node: u64) -> bool {
        self.node(node).state() == Some('T')
    }

    /// From now on, or no longer, a node may give up: what is done to it isn't to be survived, but to be named.
    pub fn let_give_up(&mut self, node: u64, may: bool) {
        self.node_mut(node).may_give_up = may;
    }

    /// How a node's process ended that ended by itself; `None`: it didn't.
    #[must_use]
    pub fn ended(&self, node: u64) -> Option<ExitStatus> {
        self.node(node).ended
    }

    /// From now on a node may find damage on its disk at any time: then it must say so by name, and stays away.
    pub fn is_damaged(&mut self, node: u64) {
        self.node_mut(node).is_damaged = true;
    }

    /// The node whose disk is damaged or lost, if there is one.
    #[must_use]
    pub fn damaged_node(&self) -> Option<u64> {
        self.nodes.iter().find(|node| node.is_damaged || node.is_out).map(|node| node.id)
    }

    /// Whether a node's last process came so far as to serve.
    #[must_use]
    pub fn has_served(&self, node: u64) -> bool {
        self.said(node).contains("node started")
    }

    /// A node's disk is lost: it stays away for the rest of the run.
    pub fn give_up_on(&mut self, node: u64) {
        self.node_mut(node).is_out = true;
    }

    /// The line in which a node that gave up named what is wrong with its disk; `None`: there is none.
    #[must_use]
    pub fn refusal(&self, node: u64) -> Option<String> {
        self.node(node).refusal()
    }

    /// What a node has logged since it was started last.
    #[must_use]
    pub fn said(&self, node: u64) -> String {
        self.node(node).said()
    }

    /// What nodes used at most, for the history.
    #[must_use]
    pub fn resources(&self) -> Vec<Action> {
        let of = |node: &Node| Action::Resources {
            node: node.id,
            resident_kib: node.peak.resident_kib,
            open_files: node.peak.open_files,
            panics: node.panics(),
        };
        self.nodes.iter().map(of).collect()
    }

    /// Copies the logs of all nodes to a folder.
    ///
    /// # Errors
    /// If that can't be written to.
    pub fn keep_logs(&self, folder: &Path) -> Result<(), String> {
        let copy = |node: &Node| {
            let kept = folder.join(format!("n{}.log", node.id));
            fs::copy(node.folder.join("server.log"), kept).map(drop)
        };
        let kept = fs::create_dir_all(folder).and_then(|()| self.nodes.iter().try_for_each(copy));
        kept.map_err(|error| format!("{}: {error}", folder.display()))
    }

    /// Ends all nodes and reads the logs of all replicas from their disks.
    ///
    /// # Errors
    /// If a disk can't be read.
    pub fn read_logs(&mut self) -> Result<Vec<GroupLogs>, String> {
        // All at one moment: those who notice that a leader is gone elect another, whose first entry not all would get.
        self.ids.clone().into_iter().try_for_each(|node| self.freeze(node))?;
        for node in self.ids.clone() {
            self.kill(node)?;
        }
        let read = |ids: &[u64]| {
            logs::read(ids, |node| {
                let data = self.node(node).data();
                Storage::open_rocks(&data, &RocksOptions::default()).map_err(|error| format!("node {node}: {error}"))
            })
        };
        let (damaged, sound): (Vec<&Node>, Vec<&Node>) =
            self.nodes.iter().filter(|node| !node.is_out).partition(|node| node.is_damaged);
        let numbers = |nodes: &[&Node]| nodes.iter().map(|node| node.id).collect::<Vec<u64>>();
        let all = numbers(&[sound.clone(), damaged.clone()].concat());
        // Damage that is found only now is found nevertheless.
        match read(&all) {
            Err(_) if !damaged.is_empty() => read(&numbers(&sound)),
            read => read,
        }
    }

    fn node(&self, id: u64) -> &Node {
        let found = self.nodes.iter().find(|node| node.id == id);
        found.unwrap_or_else(|| panic!("there is no node {id}"))
    }

    fn node_mut(&mut self, id: u64) -> &mut Node {
        let found = self.nodes.iter_mut().find(|node| node.id == id);
        found.unwrap_or_else(|| panic!("there is no node {id}"))
    }
}

impl World for RealWorld {
    fn now_ms(&self) -> u64 {
        self.trace.now_ms()
    }

    fn is_complete(&self) -> bool {
        self.nodes.iter().all(|node| !node.is_out)
    }

    fn access(&self) -> Access {
        let servers: Vec<String> = self.nodes.iter().map(|node| node.client.clone()).collect();
        Access::new(self.ids.clone(), move || Client::builder().servers(servers.clone()).build())
    }

    fn client(&mut self, _: &str, work: BoxFuture<'static, ()>) {
        if let Some(runtime) = &self.runtime {
            self.clients.push(runtime.spawn(work));
        }
    }

    fn step(&mut self) -> Result<bool, String> {
        thread::sleep(STEP);
        self.steps += 1;
        for node in &mut self.nodes {
            node.look().map_err(|error| format!("node {}: {error}", node.id))?;
            if self.steps.is_multiple_of(STEPS_PER_MEASUREMENT) {
                node.measure();
            }
            if let Some(ended) = node.ended.filter(|_| !node.may_give_up && !node.is_out) {
                if node.is_damaged && node.refusal().is_some() {
                    node.is_out = true;
                    continue;
                }
                return Err(format!("node {} gave up ({ended}):\n{}", node.id, node.last_words()));
            }
        }
        let Some(runtime) = &self.runtime else { return Ok(true) };
        let (ended, working) = std::mem::take(&mut self.clients).into_iter().partition(JoinHandle::is_finished);
        self.clients = working;
        let mut ended: std::vec::IntoIter<JoinHandle<()>> = Vec::into_iter(ended);
        ended.try_for_each(|client| runtime.block_on(client)).map_err(|error| format!("a client failed: {error}"))?;
        Ok(self.clients.is_empty())
    }
}

impl Drop for RealWorld {
    fn drop(&mut self) {
        // Clients first: what they say of nodes that are gone interests nobody.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
        for node in &mut self.nodes {
            let _ = node.kill();
        }
        self.nodes.clear();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        disk::unmount_all_below(&self.0);
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn make_nodes(scale: &Scale, host: &Host, network: Option<&Network>, folder: &Path) -> Result<Vec<Node>, String> {
    let ids = 1..=scale.nodes;
    let mut ports =
        if network.is_some() { Vec::new() } else { free_ports(usize::try_from(3 * scale.nodes).unwrap_or(0))? };
    let addresses = |id: u64| match network {
        Some(_) => [50051, 50052, 9090].map(|port| format!("{}:{port}", network::address(id))),
        None => [0; 3].map(|_| format!("127.0.0.1:{}", ports.pop().unwrap_or_default())),
    };
    let mut nodes: Vec<Node> = ids
        .clone()
        .zip(ids.map(addresses))
        .map(|(id, addresses)| Node::new(id, folder.join(format!("n{id}")), addresses))
        .collect();
    let voters: Vec<String> = nodes.iter().map(|node| format!("\"{}={}\"", node.id, node.peer)).collect();
    let voters = voters.join(", ");
    for node in &mut nodes {
        let failed = |error: std::io::Error| format!("{}: {error}", node.folder.display());
        fs::create_dir_all(node.disk_folder()).map_err(failed)?;
        if host.lacks(Need::Disk).is_none() {
            node.disk = Some(Disk::new(node.folder.join("image"), node.disk_folder())?);
        }
        if scale.fake_clocks {
            node.clock = Some(Clock::new(&node.folder).map_err(failed)?);
        }
        if scale.memory_groups {
            let name = format!("{}-n{}", leftovers::own_prefix(), node.id);
            node.memory = Some(MemoryGroup::new(&name).map_err(failed)?);
        }
        node.namespace = network.map(|network| network.namespace(node.id));
        node.write_config(&voters, scale.suspect_after_ms).map_err(failed)?;
    }
    Ok(nodes)
}

/// As many different ports, free at this moment. They are held until the last one is found.
fn free_ports(count: usize) -> Result<Vec<u16>, String> {
    let start = fastrand::u16(PORTS);
    let candidates = (start..PORTS.end).chain(PORTS.start..start);
    let listeners: Vec<TcpListener> =
        candidates.filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok()).take(count).collect();
    let ports: Vec<u16> = listeners.iter().filter_map(|listener| Some(listener.local_addr().ok()?.port())).collect();
    if ports.len() == count { Ok(ports) } else { Err("no free ports".to_owned()) }
}

/// Where clients run: in their namespace, with all threads.
fn runtime(network: Option<&Network>) -> std::io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2).thread_name("client").enable_all();
    if let Some(namespace) = network.map(|network| network.namespace(CLIENTS)) {
        builder.on_thread_start(move || {
            // A client outside of its namespace would reach nothing, and every run would say so.
            if let Err(error) = enter(&namespace) {
                eprintln!("{error}");
            }
        });
    }
    builder.build()
}

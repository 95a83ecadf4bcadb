//! Three or five real nodes in a simulated world: turmoil's network and time, disks in memory that can lose power. Everything
//! comes from one seed, so a run can be repeated exactly; one process runs one seed, because tokio's task ids are global
//! to the process and decide the order in which a killed node's tasks are dropped.

mod env;
mod invariants;

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use futures::future::BoxFuture;

use quorate_client::{Client, Connector};
use quorate_server::{Config, Node, Runtimes};
use quorate_storage::SimDisk;
use tokio::runtime::Handle;
use tokio::sync::watch;

use self::env::{SimEnv, connect, wall_clock_ms};
use self::invariants::{Invariants, Running};
use crate::checker::GroupLogs;
use crate::trace::Trace;
use crate::world::{Access, World, logs};

/// Where the simulated calendar begins: some day in 2026.
const EPOCH: Duration = Duration::from_secs(1_790_000_000);

/// What the seed decides about a world, so that no size or speed is the only one that works.
#[derive(Clone, Debug)]
pub struct Scale {
    /// Number of nodes: 3 or 5.
    pub nodes: u64,
    /// Longest time that a packet is under way; the shortest is 1 ms.
    pub packet_ms: u64,
    /// Time that a sync takes.
    pub sync_ms: RangeInclusive<u64>,
    /// Silence after which a node is suspected.
    pub suspect_after_ms: u64,
    /// Time that passes at once; not drawn, because coarse time finds less and costs less.
    pub tick_ms: u64,
}

impl Scale {
    /// Drawn from a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x5ca1_e0f5);
        Self {
            nodes: if rng.u8(..4) == 0 { 5 } else { 3 },
            packet_ms: rng.u64(2..=20),
            sync_ms: 1..=rng.u64(1..=15),
            suspect_after_ms: rng.u64(300..=1_000),
            tick_ms: 1,
        }
    }
}

/// How long a lying disk's syncs follow after their acknowledgement.
const LIE: Duration = Duration::from_millis(300);

/// The simulated world.
pub struct SimWorld {
    sim: turmoil::Sim<'static>,
    nodes: Vec<u64>,
    disks: Vec<Disk>,
    stops: Vec<Stop>,
    /// Nodes whose links are cut because they have no power.
    powerless: BTreeSet<u64>,
    clients: Vec<String>,
    running: Running,
    invariants: Invariants,
    trace: Trace,
}

/// How a node is told to stop, and whether it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Order {
    #[default]
    Run,
    Stop,
    Stopped,
}

type Stop = watch::Sender<Order>;

/// A disk, and what it does about syncs.
#[derive(Clone)]
struct Disk {
    disk: SimDisk,
    /// Time that each sync takes longer than usual.
    slower_ms: Arc<AtomicU64>,
    syncs: Arc<AtomicU64>,
}

impl SimWorld {
    /// A world with its nodes, not a moment old. `lying_disks`: they acknowledge before they sync.
    ///
    /// # Errors
    /// If the nodes' configuration is refused.
    pub fn new(seed: u64, scale: &Scale, lying_disks: bool, trace: Trace) -> Result<Self, String> {
        fastrand::seed(seed);
        let mut sim = turmoil::Builder::new()
            .rng_seed(seed)
            .epoch(UNIX_EPOCH + EPOCH)
            .enable_random_order()
            .tick_duration(Duration::from_millis(scale.tick_ms))
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(Duration::from_millis(scale.packet_ms))
            .simulation_duration(Duration::from_secs(24 * 3600))
            .build();
        let nodes: Vec<u64> = (1..=scale.nodes).collect();
        let (mut disks, mut stops) = (Vec::new(), Vec::new());
        let running = Running::default();
        for node in nodes.iter().copied() {
            let disk = disk(node, scale.sync_ms.clone(), &trace);
            if lying_disks {
                disk.disk.acknowledge_early(LIE);
            }
            let stop = Stop::new(Order::Run);
            disks.push(disk.clone());
            stops.push(stop.clone());
            let config = config(node, &nodes, scale)?;
            let running = running.clone();
            sim.host(name(node), move || {
                let (disk, stop, config) = (disk.disk.clone(), stop.clone(), config.clone());
                let running = running.clone();
                async move { Ok(run_node(disk, stop, config, running).await?) }
            });
        }
        let (powerless, clients, invariants) = (BTreeSet::new(), Vec::new(), Invariants::default());
        Ok(Self { sim, nodes, disks, stops, powerless, clients, running, invariants, trace })
    }

    /// The nodes' numbers.
    #[must_use]
    pub fn nodes(&self) -> &[u64] {
        &self.nodes
    }

    /// Kills a node's process, as `kill -9` does: its connections are closed, what it has written stays.
    pub fn kill(&mut self, node: u64) {
        self.sim.crash(name(node));
        self.disk(node).disk.kill();
    }

    /// Takes a node's power: nobody hears of it, and what was not synced may be gone. Returns how many commits are.
    pub fn take_power(&mut self, node: u64) -> usize {
        for other in self.others(node) {
            self.sim.partition(name(node), other);
        }
        self.powerless.insert(node);
        self.sim.crash(name(node));
        self.disk(node).disk.crash()
    }

    /// Tells a node to stop, as a service manager does.
    pub fn ask_to_stop(&mut self, node: u64) {
        self.stop(node).send_replace(Order::Stop);
    }

    /// Whether a node that was told to stop has done so.
    #[must_use]
    pub fn has_stopped(&self, node: u64) -> bool {
        *self.stop(node).borrow() == Order::Stopped
    }

    /// Starts a node again that was killed or lost its power.
    pub fn start(&mut self, node: u64) {
        self.stop(node).send_replace(Order::Run);
        if self.powerless.remove(&node) {
            self.mend(node);
        }
        self.sim.bounce(name(node));
    }

    /// Whether a node's process is there.
    pub fn is_running(&mut self, node: u64) -> bool {
        self.sim.is_host_running(name(node))
    }

    /// Drops all packets between two nodes.
    pub fn cut(&mut self, a: u64, b: u64) {
        self.sim.partition(name(a), name(b));
    }

    /// Drops all packets from one node to another.
    pub fn cut_one_way(&mut self, from: u64, to: u64) {
        self.sim.partition_oneway(name(from), name(to));
    }

    /// Drops all packets between a node and all clients.
    pub fn cut_from_clients(&mut self, node: u64) {
        for client in &self.clients {
            self.sim.partition(name(node), client.as_str());
        }
    }

    /// Lets a node's packets through again, in both directions, to nodes and clients.
    pub fn mend(&mut self, node: u64) {
        for other in self.others(node) {
            self.sim.repair(name(node), other);
        }
    }

    /// Lets packets between two nodes through again.
    pub fn mend_between(&mut self, a: u64, b: u64) {
        self.sim.repair(name(a), name(b));
    }

    /// Makes each sync of a node take longer than usual; 0: no longer.
    pub fn slow_syncs(&mut self, node: u64, by_ms: u64) {
        self.disk(node).slower_ms.store(by_ms, Ordering::Relaxed);
    }

    /// How many syncs a node's disk has done.
    #[must_use]
    pub fn syncs(&self, node: u64) -> u64 {
        self.disk(node).syncs.load(Ordering::Relaxed)
    }

    /// Keeps all packets between two nodes back.
    pub fn hold(&mut self, a: u64, b: u64) {
        self.sim.hold(name(a), name(b));
    }

    /// Delivers what was kept back.
    pub fn release(&mut self, a: u64, b: u64) {
        self.sim.release(name(a), name(b));
    }

    /// Packets dropped and packets held back so far.
    #[must_use]
    pub fn packets_stopped(&self) -> (u64, u64) {
        self.trace.packets_stopped()
    }

    /// Raft's invariants that didn't hold, each in a sentence.
    #[must_use]
    pub fn broken_invariants(&self) -> Vec<String> {
        self.invariants.broken()
    }

    /// Ends all nodes and reads the logs of all replicas from their disks.
    ///
    /// # Errors
    /// If a disk can't be read.
    pub fn into_logs(mut self) -> Result<Vec<GroupLogs>, String> {
        for node in self.nodes.clone() {
            self.kill(node);
        }
        let Self { sim, nodes, disks, .. } = self;
        drop(sim);
        logs::read(&nodes, |node| {
            let of_node = nodes.iter().position(|known| *known == node).and_then(|position| disks.get(position));
            let disk = of_node.ok_or_else(|| format!("node {node} has no disk"))?;
            disk.disk.open(Path::new("simulated")).map_err(|error| error.to_string())
        })
    }

    fn others(&self, node: u64) -> Vec<String> {
        let nodes = self.nodes.iter().copied().filter(|other| *other != node).map(name);
        nodes.chain(self.clients.iter().cloned()).collect()
    }

    fn disk(&self, node: u64) -> &Disk {
        &self.disks[self.position(node)]
    }

    fn stop(&self, node: u64) -> &Stop {
        &self.stops[self.position(node)]
    }

    fn position(&self, node: u64) -> usize {
        self.nodes.iter().position(|known| *known == node).unwrap_or_else(|| panic!("there is no node {node}"))
    }
}

impl World for SimWorld {
    fn now_ms(&self) -> u64 {
        self.trace.now_ms()
    }

    fn access(&self) -> Access {
        let servers: Vec<String> = self.nodes.iter().copied().map(client_address).collect();
        Access::new(self.nodes.clone(), move || {
            let connector: Connector = Arc::new(|address| {
                Box::pin(async move { Ok(Box::new(connect(address).await?) as quorate_client::BoxIo) })
            });
            Client::builder().servers(servers.clone()).connector(connector).wall_clock(wall_clock_ms).build()
        })
    }

    fn client(&mut self, process: &str, work: BoxFuture<'static, ()>) {
        self.clients.push(process.to_owned());
        self.sim.client(process, async move {
            work.await;
            Ok(())
        });
    }

    fn step(&mut self) -> Result<bool, String> {
        let ended = self.sim.step().map_err(|error| error.to_string());
        self.trace.advance_to(u64::try_from(self.sim.elapsed().as_millis()).unwrap_or(u64::MAX));
        let Self { running, invariants, trace, nodes, disks, .. } = self;
        invariants.look(trace.now_ms(), running, |voter, entry| {
            let disk = nodes.iter().position(|node| *node == voter.node.get()).and_then(|at| disks.get(at));
            disk.and_then(|disk| disk.disk.would_keep(voter.id, entry))
        });
        ended
    }
}

/// One life of a node's process.
async fn run_node(disk: SimDisk, stop: Stop, config: Config, running: Running) -> Result<(), String> {
    let id = config.node.id;
    let runtimes = Runtimes { consensus: Handle::current(), front: Handle::current() };
    let started = Node::start(Arc::new(SimEnv::new(disk)), config, runtimes).await;
    let node = started.map_err(|error| format!("node {id} did not start: {error}"))?;
    let in_sight = running.show(id.get(), node.groups());
    let mut told = stop.subscribe();
    tokio::select! {
        failure = node.failed() => return Err(format!("node {id} gave up: {failure}")),
        _ = told.wait_for(|order| *order == Order::Stop) => {}
    }
    drop(in_sight);
    node.shutdown().await;
    stop.send_replace(Order::Stopped);
    // A host whose software has ended stands still with its connections open; a process that has ended is killed instead.
    std::future::pending().await
}

fn disk(node: u64, sync_ms: RangeInclusive<u64>, trace: &Trace) -> Disk {
    let trace = trace.clone();
    let (slower_ms, syncs) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (slower, done) = (Arc::clone(&slower_ms), Arc::clone(&syncs));
    let disk = SimDisk::new(move || {
        let took_ms = fastrand::u64(sync_ms.clone()) + slower.load(Ordering::Relaxed);
        done.fetch_add(1, Ordering::Relaxed);
        trace.note(&name(node), "sync", &took_ms.to_string());
        Duration::from_millis(took_ms)
    });
    Disk { disk, slower_ms, syncs }
}

fn config(node: u64, nodes: &[u64], scale: &Scale) -> Result<Config, String> {
    let voters: Vec<String> = nodes.iter().map(|voter| format!("{voter}={}", peer_address(*voter))).collect();
    let flags = [
        format!("node.id={node}"),
        format!("node.data_dir=/simulated/{}", name(node)),
        "cluster.name=simulated".to_owned(),
        format!("cluster.voters={}", voters.join(",")),
        format!("listen.client={}", client_address(node)),
        format!("listen.peer={}", peer_address(node)),
        format!("detection.suspect_after_ms={}", scale.suspect_after_ms),
        // Metrics are served over the system's network, which isn't there.
        "listen.metrics=".to_owned(),
    ];
    Config::load(None, [], &flags).map_err(|error| error.to_string())
}

fn name(node: u64) -> String {
    format!("n{node}")
}

fn client_address(node: u64) -> String {
    format!("{}:50051", name(node))
}

fn peer_address(node: u64) -> String {
    format!("{}:50052", name(node))
}

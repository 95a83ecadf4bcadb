//! Three nodes in one process, over in-memory connections and simulated disks.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use quorate_model::{
    Codec, Command, GroupId, MachineKind, NodeId, Offset, PartitionCommand, PartitionId, Record, RecordBatch,
    RecordBatchBuilder, Replica, ReplicaId, Reply, TopicId,
};
use quorate_storage::{OpenError, SimDisk, Storage, TailCacheLimits};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::env::serve_incoming;
use crate::network::Class;
use crate::{
    Accepted, AdmissionLimits, BoxIo, DetectionSettings, Env, GroupSpec, GroupsConfig, Listener, Peer, ProposeError,
    RaftGroup, RaftGroups,
};

pub(crate) const GROUP: GroupId = GroupId::new(1);
pub(crate) const PARTITION: PartitionId = PartitionId { topic: TopicId::new(1), index: 0 };
pub(crate) const NODES: [u64; 3] = [1, 2, 3];
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const ADMISSION: AdmissionLimits =
    AdmissionLimits { in_flight_bytes: 1 << 20, in_flight_requests: 10_000, queued_bytes: 300 << 10 };

/// Addresses are names; a connection is a pair of in-memory pipes with a valve in each direction.
#[derive(Clone, Default)]
pub(crate) struct Wires {
    listeners: Arc<Mutex<BTreeMap<String, mpsc::UnboundedSender<io::Result<Accepted>>>>>,
    /// Directions, as (from, to), in which nothing passes.
    cut: Arc<watch::Sender<BTreeSet<(u64, u64)>>>,
    /// Whoever dials waits.
    dials_held: Arc<watch::Sender<bool>>,
}

impl Wires {
    pub(crate) fn cut(&self, from: u64, to: u64) {
        self.cut.send_if_modified(|cut| cut.insert((from, to)));
    }

    pub(crate) fn hold_dials(&self, held: bool) {
        self.dials_held.send_replace(held);
    }

    pub(crate) fn mend(&self) {
        self.cut.send_modify(BTreeSet::clear);
    }

    /// Carries bytes from one end to the other for as long as both are there and nothing is cut.
    async fn carry(self, direction: (u64, u64), mut from: ReadHalf<DuplexStream>, mut to: WriteHalf<DuplexStream>) {
        let mut cut = self.cut.subscribe();
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            if cut.wait_for(|cut| !cut.contains(&direction)).await.is_err()
                || to.write_all(&buffer[..count]).await.is_err()
            {
                break;
            }
        }
        let _ = to.shutdown().await;
    }
}

/// The wires as one node sees them.
struct Plug {
    node: u64,
    wires: Wires,
}

impl Env for Plug {
    fn listen(&self, address: &str) -> BoxFuture<'static, io::Result<Listener>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.wires.listeners.lock().unwrap().insert(address.to_owned(), sender);
        let local_address = address.to_owned();
        Box::pin(
            async move { Ok(Listener { local_address, incoming: UnboundedReceiverStream::new(receiver).boxed() }) },
        )
    }

    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<BoxIo>> {
        let (wires, here, address) = (self.wires.clone(), self.node, address.to_owned());
        let there = NODES.into_iter().find(|node| self::address(*node) == address).unwrap();
        Box::pin(async move {
            wires.dials_held.subscribe().wait_for(|held| !held).await.map_err(io::Error::other)?;
            let (ours, near) = tokio::io::duplex(1 << 20);
            let (far, theirs) = tokio::io::duplex(1 << 20);
            let listener = wires.listeners.lock().unwrap().get(&address).cloned();
            let accepted = Accepted { io: Box::new(theirs), from: None };
            if listener.is_none_or(|listener| listener.send(Ok(accepted)).is_err()) {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let ((from_here, to_here), (from_there, to_there)) = (tokio::io::split(near), tokio::io::split(far));
            tokio::spawn(wires.clone().carry((here, there), from_here, to_there));
            tokio::spawn(wires.carry((there, here), from_there, to_here));
            Ok(Box::new(ours) as BoxIo)
        })
    }

    fn wall_clock_ms(&self) -> u64 {
        WALL_CLOCK_MS
    }

    fn open_storage(&self, _: &Path) -> BoxFuture<'static, Result<Storage, OpenError>> {
        unreachable!("tests open their disks themselves")
    }
}

/// What every node's clock says.
const WALL_CLOCK_MS: u64 = 1_000;

/// A node lives in a runtime of its own, so that killing it ends all its tasks and connections at once.
pub(crate) struct Node {
    pub(crate) groups: RaftGroups,
    runtime: Option<Runtime>,
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub(crate) struct Cluster {
    pub(crate) wires: Wires,
    detection: DetectionSettings,
    kind: MachineKind,
    pub(crate) disks: BTreeMap<u64, SimDisk>,
    pub(crate) nodes: BTreeMap<u64, Node>,
}

pub(crate) fn address(node: u64) -> String {
    format!("node-{node}:50052")
}

pub(crate) fn replica_of(node: u64) -> Replica {
    Replica { id: ReplicaId::new(70_000 + node), node: NodeId::new(node) }
}

fn peers(store_id: impl Fn(u64) -> Option<u64>) -> BTreeMap<NodeId, Peer> {
    NODES.map(|node| (NodeId::new(node), Peer { address: address(node), store_id: store_id(node) })).into()
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self::start_with(DetectionSettings::default(), |_| Duration::ZERO).await
    }

    /// With the metadata machine.
    pub(crate) async fn start_metadata() -> Self {
        Self::start_as(MachineKind::Meta, DetectionSettings::default(), |_| Duration::ZERO).await
    }

    /// With a time that each node's fsync takes.
    pub(crate) async fn start_with(
        detection: DetectionSettings,
        fsync: impl Fn(u64) -> Duration + Clone + Send + Sync + 'static,
    ) -> Self {
        Self::start_as(MachineKind::Partition(PARTITION), detection, fsync).await
    }

    async fn start_as(
        kind: MachineKind,
        detection: DetectionSettings,
        fsync: impl Fn(u64) -> Duration + Clone + Send + Sync + 'static,
    ) -> Self {
        let disk = |node| {
            let fsync = fsync.clone();
            (node, SimDisk::new(move || fsync(node)))
        };
        let disks = NODES.map(disk).into();
        let mut cluster = Self { wires: Wires::default(), detection, kind, disks, nodes: BTreeMap::new() };
        for node in NODES {
            cluster.start_node(node, 100 + node).await;
        }
        cluster
    }

    pub(crate) async fn start_node(&mut self, node: u64, store_id: u64) {
        let config = GroupsConfig {
            cluster: "test".to_owned(),
            node: NodeId::new(node),
            store_id,
            detection: self.detection,
            tail_cache: TailCacheLimits::default(),
            admission: ADMISSION,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        let env: Arc<dyn Env> = Arc::new(Plug { node, wires: self.wires.clone() });
        let storage = {
            let _on = runtime.enter();
            self.disks[&node].open(Path::new("simulated")).unwrap()
        };
        let groups = RaftGroups::new(config, Arc::clone(&env), storage, runtime.handle().clone()).unwrap();
        let listener = env.listen(&address(node)).await.unwrap();
        let service = groups.raft_service();
        runtime.spawn(async move {
            let serving =
                tonic::transport::Server::builder().add_service(service).serve_with_incoming(serve_incoming(listener));
            serving.await.unwrap();
        });
        groups.set_peers(peers(|peer| Some(100 + peer)));
        let spec = GroupSpec {
            group: GROUP,
            replica: replica_of(node).id,
            kind: self.kind,
            members: NODES.map(replica_of).to_vec(),
        };
        groups.open(spec).await.unwrap();
        self.nodes.insert(node, Node { groups, runtime: Some(runtime) });
    }

    /// Nothing is said goodbye to: connections drop, and the disk loses what wasn't synced.
    pub(crate) fn kill(&mut self, node: u64) {
        drop(self.nodes.remove(&node).unwrap());
        self.wires.listeners.lock().unwrap().remove(&address(node));
        self.disks[&node].crash();
    }

    pub(crate) fn storage_of(&self, node: u64) -> &Storage {
        self.nodes[&node].groups.storage()
    }

    pub(crate) fn group(&self, node: u64) -> RaftGroup {
        self.nodes[&node].groups.get(GROUP).unwrap()
    }

    pub(crate) async fn leader(&self) -> u64 {
        let search = async {
            loop {
                for (node, running) in &self.nodes {
                    let group = running.groups.get(GROUP).unwrap();
                    if group.leadership().is_self && group.read_barrier().await.is_ok() {
                        return *node;
                    }
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, search).await.expect("no leader in time")
    }

    /// The groups of a node that can forward to `leader`.
    pub(crate) async fn forwarding(&self, node: u64, leader: u64) -> &RaftGroups {
        let groups = &self.nodes[&node].groups;
        let link = groups.peers().link(leader, Class::Forward);
        tokio::time::timeout(PATIENCE, link.wait_until_up()).await.expect("no link in time");
        groups
    }

    pub(crate) async fn publish(&self, node: u64, text: &str) -> Result<Offset, ProposeError> {
        match self.group(node).propose(append(text)).await? {
            Reply::Partition(Ok(appended)) => Ok(appended.base_offset),
            other => panic!("unexpected reply {other:?}"),
        }
    }
}

pub(crate) fn append(text: &str) -> Bytes {
    let mut builder = RecordBatchBuilder::new(PARTITION, Codec::None, None);
    let data = Bytes::copy_from_slice(text.as_bytes());
    builder.push(Record { timestamp_ms: 1, data, ..Record::default() }).unwrap();
    let batch = builder.build().unwrap().bytes().clone();
    Command::Partition(PartitionCommand::Append { time_ms: 1, batch }).encode()
}

pub(crate) async fn contents(group: &RaftGroup) -> Vec<String> {
    let mut out = Vec::new();
    let mut from = group.progress().borrow().log_start;
    loop {
        let batches = group.read(from, 1 << 20).await.unwrap();
        let Some(last) = batches.last() else { return out };
        let count = RecordBatch::trusted(last.batch.clone()).unwrap().header().count;
        from = Offset::new(last.base_offset.get() + u64::from(count));
        for stored in batches {
            let records = RecordBatch::decode(stored.batch, PARTITION).unwrap().records().unwrap();
            out.extend(records.into_iter().map(|record| String::from_utf8(record.data.to_vec()).unwrap()));
        }
    }
}

pub(crate) async fn wait_until_end(group: &RaftGroup, end: u64) {
    let mut progress = group.progress();
    let reached = progress.wait_for(|now| now.end.get() >= end);
    tokio::time::timeout(PATIENCE, reached).await.expect("replica did not catch up").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_records_are_on_every_replica_and_survive_the_leader() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    for i in 0..200 {
        assert_eq!(cluster.publish(leader, &format!("a{i}")).await.unwrap(), Offset::new(i));
    }
    cluster.kill(leader);
    let next = cluster.leader().await;
    for i in 200..300 {
        assert_eq!(cluster.publish(next, &format!("a{i}")).await.unwrap(), Offset::new(i));
    }
    cluster.start_node(leader, 100 + leader).await;
    let expected: Vec<String> = (0..300).map(|i| format!("a{i}")).collect();
    for node in NODES {
        wait_until_end(&cluster.group(node), 300).await;
        assert_eq!(contents(&cluster.group(node)).await, expected, "node {node}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_crashing_at_once_loses_nothing_acknowledged() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    for i in 0..50 {
        cluster.publish(leader, &format!("b{i}")).await.unwrap();
    }
    for node in NODES {
        cluster.kill(node);
    }
    for node in NODES {
        cluster.start_node(node, 100 + node).await;
    }
    let leader = cluster.leader().await;
    let expected: Vec<String> = (0..50).map(|i| format!("b{i}")).collect();
    assert_eq!(contents(&cluster.group(leader)).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_forwards_by_one_hop_and_names_the_leader_otherwise() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let follower = NODES.into_iter().find(|node| *node != leader).unwrap();
    let mut heard = cluster.group(follower).watch_leadership();
    tokio::time::timeout(PATIENCE, heard.wait_for(|now| now.leader.is_some())).await.unwrap().unwrap();

    let refused = cluster.publish(follower, "direct").await.unwrap_err();
    let ProposeError::NotLeader { leader: Some(hint), .. } = refused else { panic!("{refused:?}") };
    assert_eq!(hint, replica_of(leader));

    let groups = cluster.forwarding(follower, leader).await;
    let reply = groups.propose_at(hint, GROUP, append("forwarded"), PATIENCE).await.unwrap().await.unwrap();
    assert!(matches!(reply, Reply::Partition(Ok(_))), "{reply:?}");

    let third = NODES.into_iter().find(|node| *node != leader && *node != follower).unwrap();
    let groups = cluster.forwarding(follower, third).await;
    let stray =
        groups.propose_at(replica_of(third), GROUP, append("stray"), PATIENCE).await.unwrap().await.unwrap_err();
    assert!(matches!(stray, ProposeError::NotLeader { .. }), "a forwarded command is never forwarded again: {stray:?}");
    assert_eq!(contents(&cluster.group(leader)).await, ["forwarded"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn forwarded_commands_keep_their_order_and_bear_the_leaders_time() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let follower = NODES.into_iter().find(|node| *node != leader).unwrap();
    let groups = cluster.forwarding(follower, leader).await;
    // Far more at once than a task does before tokio makes it yield.
    let texts: Vec<String> = (0..1_000).map(|i| i.to_string()).collect();
    let mut replies = Vec::new();
    for text in &texts {
        replies.push(groups.propose_at(replica_of(leader), GROUP, append(text), PATIENCE).await.unwrap());
    }
    for reply in replies {
        assert!(matches!(reply.await.unwrap(), Reply::Partition(Ok(_))));
    }
    let group = cluster.group(leader);
    assert_eq!(contents(&group).await, texts);
    let since = group.progress().borrow().open_since_ms;
    assert_eq!(since, Some(WALL_CLOCK_MS), "not the time of the node that encoded it");
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_moves_on_request() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    cluster.publish(leader, "before").await.unwrap();
    let to = cluster.group(leader).transfer_leader(None).await.unwrap();
    assert_ne!(to, replica_of(leader).id);
    let next = cluster.leader().await;
    assert_eq!(replica_of(next).id, to);
    cluster.publish(next, "after").await.unwrap();
    assert_eq!(contents(&cluster.group(next)).await, ["before", "after"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_is_not_handed_to_a_node_that_is_down() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let down = NODES.into_iter().find(|node| *node != leader).unwrap();
    cluster.kill(down);
    let groups = &cluster.nodes[&leader].groups;
    let deadline = std::time::Instant::now() + PATIENCE;
    while groups.reachable(NodeId::new(down)) {
        assert!(std::time::Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    let group = cluster.group(leader);
    assert_eq!(group.transfer_leader(Some(replica_of(down).id)).await, Err(crate::TransferError::Unreachable));
    assert!(group.leadership().is_self);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_whose_core_panics_is_rebuilt_from_disk() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    cluster.publish(leader, "before").await.unwrap();
    let group = cluster.group(leader);
    group.raft().external_request(|_| panic!("planted")).await.unwrap();
    let mut leadership = group.watch_leadership();
    tokio::time::timeout(PATIENCE, leadership.wait_for(|now| !now.is_self)).await.unwrap().unwrap();

    let next = cluster.leader().await;
    cluster.publish(next, "after").await.unwrap();
    wait_until_end(&group, 2).await;
    assert_eq!(contents(&group).await, ["before", "after"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_disk_was_replaced_is_not_heard() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let follower = NODES.into_iter().find(|node| *node != leader).unwrap();
    cluster.kill(follower);
    cluster.disks.insert(follower, SimDisk::new(|| Duration::ZERO));
    cluster.start_node(follower, 999).await;
    for i in 0..20 {
        cluster.publish(leader, &format!("c{i}")).await.unwrap();
    }
    assert!(!cluster.nodes[&leader].groups.reachable(NodeId::new(follower)));
    assert!(!cluster.nodes[&follower].groups.reachable(NodeId::new(leader)));
    assert_eq!(cluster.group(follower).progress().borrow().end, Offset::new(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_disk_is_turned_away_when_its_registration_becomes_known() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let follower = NODES.into_iter().find(|node| *node != leader).unwrap();
    // Until its registration is known, any disk will do: so it is after a restart, before the map is read.
    let groups = &cluster.nodes[&leader].groups;
    groups.set_peers(peers(|_| None));
    let arrived = async {
        while !groups.reachable(NodeId::new(follower)) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, arrived).await.expect("the link doesn't open");
    groups.set_peers(peers(|node| (node == follower).then_some(999)));
    let turned_away = async {
        while groups.reachable(NodeId::new(follower)) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, turned_away).await.expect("the link stays up");
    let from_there = &cluster.nodes[&follower].groups;
    let cut_off = async {
        while from_there.reachable(NodeId::new(leader)) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, cut_off).await.expect("the impostor is still heard");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_closed_while_it_dies_stays_closed() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let group = cluster.group(leader);
    group.raft().external_request(|_| panic!("planted")).await.unwrap();
    let groups = &cluster.nodes[&leader].groups;
    tokio::time::timeout(PATIENCE, groups.destroy(GROUP, group.replica())).await.expect("close hangs").unwrap();
    assert!(groups.get(GROUP).is_none());
    assert_eq!(group.propose(append("late")).await, Err(ProposeError::Stopped));
    assert!(cluster.storage_of(leader).list_replicas().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_failure_is_reported() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let mut failure = cluster.nodes[&leader].groups.failure();
    cluster.disks[&leader].fail_after(0);
    // Whether the record was acknowledged doesn't matter: the followers alone are a quorum.
    let _ = cluster.publish(leader, "lost disk").await;
    let reported = tokio::time::timeout(PATIENCE, failure.wait_for(Option::is_some)).await.unwrap();
    assert!(reported.unwrap().is_some());
}

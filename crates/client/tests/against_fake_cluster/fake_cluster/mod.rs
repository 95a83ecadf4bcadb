//! A cluster in memory for tests of the client: nodes that speak the public API over in-memory byte
//! streams, one shared log per partition, and faults on demand. The partitions are the broker's own
//! state machines, so that producers and sequences are judged as in production.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod nodes;
mod subscriptions;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use quorate_client::{BoxIo, Client, Connector, Reason, RetrySettings};
use quorate_model::{Applied, Machine, MachineKind, PartitionCommand, PartitionId, Reply, TopicId};
use quorate_proto::v1 as pb;
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub(crate) const TOPIC: &str = "orders";
pub(crate) const TOPIC_ID: u64 = 7;

/// What happens to the next batch that reaches a leader.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// Not appended, and refused for this reason.
    Refuse(Reason),
    /// Appended, and then the connection breaks before the answer.
    LoseAnswer,
    /// Appended, and never answered.
    Silence,
}

/// Cheap to clone; the clones are the same cluster.
#[derive(Clone)]
pub(crate) struct FakeCluster(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    changes: watch::Sender<u64>,
    doors: BTreeMap<u64, mpsc::UnboundedSender<DuplexStream>>,
}

struct State {
    partitions: Vec<Partition>,
    version: u64,
    /// Nodes that run.
    up: BTreeSet<u64>,
    /// Nodes that the client under test can connect to.
    reachable: BTreeSet<u64>,
    /// While set, the maps that nodes hand out keep saying this about leaders.
    stale_leaders: Option<Vec<(u64, u64)>>,
    connections: BTreeMap<u64, CancellationToken>,
    /// Cancelled for nodes whose connections stand, but carry nothing.
    frozen: BTreeMap<u64, CancellationToken>,
    faults: VecDeque<Fault>,
    served: Served,
    /// Nodes that answered reads by themselves, in turn.
    local_reads: Vec<u64>,
    /// Requests to create a subscription, in turn, answered or not.
    subscribed: Vec<pb::CreateSubscriptionRequest>,
    seeks: Vec<pb::SeekSubscriptionRequest>,
}

/// How many batches came in by which way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Served {
    pub direct: u64,
    pub forwarded: u64,
    /// Streams of reads, of either kind.
    pub reads: u64,
}

struct Partition {
    machine: Machine,
    next_index: u64,
    log: Vec<(u64, Bytes)>,
    end: u64,
    leader: u64,
    term: u64,
}

impl FakeCluster {
    /// `nodes` nodes, numbered from 1; partition `p` is led by node `p % nodes + 1`.
    pub(crate) fn start(nodes: u64, partitions: u32) -> Self {
        let partition = |index: u32| Partition {
            machine: Machine::new(MachineKind::Partition(PartitionId::new(TopicId::new(TOPIC_ID), index))),
            next_index: 1,
            log: Vec::new(),
            end: 0,
            leader: u64::from(index) % nodes + 1,
            term: 1,
        };
        let state = State {
            partitions: (0..partitions).map(partition).collect(),
            version: 1,
            up: (1..=nodes).collect(),
            reachable: (1..=nodes).collect(),
            stale_leaders: None,
            connections: (1..=nodes).map(|node| (node, CancellationToken::new())).collect(),
            frozen: (1..=nodes).map(|node| (node, CancellationToken::new())).collect(),
            faults: VecDeque::new(),
            served: Served::default(),
            local_reads: Vec::new(),
            subscribed: Vec::new(),
            seeks: Vec::new(),
        };
        let (doors, visitors): (BTreeMap<_, _>, Vec<_>) = (1..=nodes)
            .map(|node| {
                let (door, visitors) = mpsc::unbounded_channel();
                ((node, door), (node, visitors))
            })
            .unzip();
        let cluster = Self(Arc::new(Inner { state: Mutex::new(state), changes: watch::Sender::new(0), doors }));
        for (node, visitors) in visitors {
            nodes::serve(node, cluster.clone(), visitors);
        }
        cluster
    }

    /// A client that was given these nodes' addresses.
    pub(crate) fn client(&self, nodes: &[u64]) -> Client {
        let retry = RetrySettings { total: std::time::Duration::from_secs(10), ..RetrySettings::default() };
        let servers = nodes.iter().map(|node| address(*node));
        Client::builder().servers(servers).connector(self.connector()).retry(retry).build().unwrap()
    }

    pub(crate) fn fail_next(&self, faults: &[Fault]) {
        self.state().faults.extend(faults);
    }

    /// The node stops, and its connections break. Partitions that it led get the next running node as leader.
    pub(crate) fn kill(&self, node: u64) {
        let broken = self.state().connections.remove(&node).unwrap();
        broken.cancel();
        self.lose(node);
    }

    /// The node stands still: its connections stand, and carry nothing any more. What it led moves as in `kill`.
    pub(crate) fn freeze(&self, node: u64) {
        self.state().frozen[&node].cancel();
        self.lose(node);
    }

    fn lose(&self, node: u64) {
        let mut state = self.state();
        state.up.remove(&node);
        let heir = *state.up.first().unwrap();
        for partition in state.partitions.iter_mut().filter(|partition| partition.leader == node) {
            partition.leader = heir;
            partition.term += 1;
        }
        drop(state);
        self.announce();
    }

    /// Another node leads this partition from now on; 0: nobody.
    pub(crate) fn elect(&self, partition: usize, node: u64) {
        let mut state = self.state();
        state.partitions[partition].leader = node;
        state.partitions[partition].term += 1;
        drop(state);
        self.announce();
    }

    /// Maps keep naming the leaders of this moment.
    pub(crate) fn freeze_maps(&self) {
        let mut state = self.state();
        state.stale_leaders =
            Some(state.partitions.iter().map(|partition| (partition.leader, partition.term)).collect());
    }

    /// Connections to this node's advertised address fail, though the node runs.
    pub(crate) fn hide(&self, node: u64) {
        self.state().reachable.remove(&node);
    }

    pub(crate) fn served(&self) -> Served {
        self.state().served
    }

    /// Faults that no batch has met yet.
    pub(crate) fn pending_faults(&self) -> usize {
        self.state().faults.len()
    }

    pub(crate) fn leader(&self, partition: usize) -> u64 {
        self.state().partitions[partition].leader
    }

    /// The payloads in a partition's log, in order.
    pub(crate) fn contents(&self, partition: usize) -> Vec<String> {
        let batches: Vec<Bytes> =
            self.state().partitions[partition].log.iter().map(|(_, batch)| batch.clone()).collect();
        let records = batches
            .into_iter()
            .flat_map(|batch| quorate_model::RecordBatch::trusted(batch).unwrap().records().unwrap());
        records.map(|record| String::from_utf8(record.data.to_vec()).unwrap()).collect()
    }

    fn connector(&self) -> Connector {
        let cluster = self.clone();
        Arc::new(move |address| {
            let connected = cluster.connect(&address);
            Box::pin(async move { connected })
        })
    }

    /// The bytes go through a pipe that breaks when the node is killed.
    fn connect(&self, address: &str) -> io::Result<BoxIo> {
        let node: u64 = address.trim_start_matches("node-").trim_end_matches(":1").parse().map_err(io::Error::other)?;
        let state = self.state();
        if !state.up.contains(&node) || !state.reachable.contains(&node) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (client, mut near) = tokio::io::duplex(1 << 16);
        let (mut far, server) = tokio::io::duplex(1 << 16);
        let (broken, frozen) = (state.connections[&node].clone(), state.frozen[&node].clone());
        tokio::spawn(async move {
            tokio::select! {
                () = broken.cancelled() => {}
                () = frozen.cancelled() => broken.cancelled().await,
                _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
            }
        });
        self.0.doors[&node].send(server).map_err(io::Error::other)?;
        Ok(Box::new(client))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    /// The nodes that answered reads by themselves, in turn.
    pub(crate) fn local_reads(&self) -> Vec<u64> {
        self.state().local_reads.clone()
    }

    /// Requests to move a subscription, in turn, answered or not.
    pub(crate) fn seeks(&self) -> Vec<pb::SeekSubscriptionRequest> {
        self.state().seeks.clone()
    }

    /// Requests to create a subscription, in turn, answered or not.
    pub(crate) fn subscribed(&self) -> Vec<pb::CreateSubscriptionRequest> {
        self.state().subscribed.clone()
    }

    fn announce(&self) {
        self.state().version += 1;
        self.0.changes.send_modify(|changes| *changes += 1);
    }

    fn map(&self, node: u64) -> pb::ClusterMap {
        let state = self.state();
        let nodes = self.0.doors.keys().map(|id| pb::Node {
            node_id: *id,
            address: address(*id),
            reachable: state.up.contains(id),
            metadata_voter: true,
        });
        let placement = |(index, partition): (u32, &Partition)| {
            let stale = state.stale_leaders.as_ref().map(|leaders| leaders[index as usize]);
            let (leader_node_id, leader_term) = stale.unwrap_or((partition.leader, partition.term));
            pb::PartitionPlacement {
                partition: index,
                replica_node_ids: self.0.doors.keys().copied().collect(),
                leader_node_id,
                leader_term,
            }
        };
        let topic = pb::TopicPlacement {
            name: TOPIC.to_owned(),
            topic_id: TOPIC_ID,
            partitions: (0u32..).zip(&state.partitions).map(placement).collect(),
            max_message_bytes: 1 << 20,
        };
        pb::ClusterMap {
            cluster: "fake".to_owned(),
            version: state.version,
            nodes: nodes.collect(),
            topics: vec![topic],
            node_id: node,
            metadata_leader_node_id: 1,
        }
    }
}

impl Partition {
    fn append(&mut self, batch: &Bytes) -> pb::publish_stream_response::Outcome {
        use pb::publish_stream_response::Outcome;
        let command = PartitionCommand::Append { time_ms: 0, batch: batch.clone() }.encode();
        let Applied { reply, .. } = self.machine.apply(self.next_index, &command);
        self.next_index += 1;
        match reply {
            Reply::Partition(Ok(appended)) => {
                let base_offset = appended.base_offset.get();
                if !appended.duplicate {
                    self.log.push((base_offset, batch.clone()));
                    self.end = base_offset + u64::from(appended.count);
                }
                Outcome::Appended(pb::Appended { base_offset, duplicate: appended.duplicate })
            }
            Reply::Partition(Err(rejected)) => Outcome::Error(publish_error(rejected.reason(), BTreeMap::new())),
            other => panic!("a partition answers {other:?}"),
        }
    }
}

fn publish_error(reason: Reason, metadata: BTreeMap<String, String>) -> pb::PublishError {
    let message = reason.summary().to_owned();
    pb::PublishError {
        code: reason.code(),
        reason: reason.as_str().to_owned(),
        message,
        metadata,
        retry_after_ms: None,
    }
}

fn address(node: u64) -> String {
    format!("node-{node}:1")
}

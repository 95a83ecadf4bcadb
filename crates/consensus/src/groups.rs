//! All replicas that live on this node.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream};
use openraft::{Config, SnapshotPolicy, StepDownPolicy};
use quorate_model::{GroupId, MachineKind, NodeId, Replica, ReplicaId, Reply};
use quorate_proto::internal::raft_service_server::{RaftService, RaftServiceServer};
use quorate_proto::internal::{self as wire, NotLeader, Propose, envelope::Body, propose_reply::Outcome};
use quorate_storage::{RaftLog, RecordReader, StateStore, Storage, StorageError, TailCacheLimits};
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::admission::{Admission, AdmissionLimits, Overload};
use crate::apply::{Published, StateMachine};
use crate::detection::DetectionSettings;
use crate::detection::sentinel::Sentinel;
use crate::env::Env;
use crate::group::{PendingReply, ProposeError, RaftGroup, Running};
use crate::log_store::LogStore;
use crate::network::client::NetworkFactory;
use crate::network::link::LinkError;
use crate::network::peers::Peers;
use crate::network::service::Service;
use crate::network::{Class, Identity};
use crate::snapshot::{self, Cut};
use crate::supervisor;
use crate::types::Raft;

/// A leader whose last answer from a majority is older than this accepts no write, in milliseconds; a follower that
/// heard from its leader within it votes for nobody else, unless that leader's node is down. Longer than a disk stalls.
pub(crate) const LEASE_MS: u64 = 2_000;

/// Leaderships handed over at the same time when a node shuts down.
const TRANSFERS_AT_ONCE: usize = 16;

/// Who this node is, and how its groups behave.
#[derive(Clone, Debug)]
pub struct GroupsConfig {
    /// Name of the cluster; peers of another one are refused.
    pub cluster: String,
    /// This node.
    pub node: NodeId,
    /// Identity of this node's disk; a peer whose disk was replaced is refused.
    pub store_id: u64,
    /// Timing of failure detection.
    pub detection: DetectionSettings,
    /// Memory for the newest entries of each group.
    pub tail_cache: TailCacheLimits,
    /// What may wait on this node.
    pub admission: AdmissionLimits,
}

/// Another node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where its peer listener is reached: `host:port`.
    pub address: String,
    /// Identity of its disk; None while it hasn't registered.
    pub store_id: Option<u64>,
}

/// A replica to open.
#[derive(Clone, Debug)]
pub struct GroupSpec {
    /// The group.
    pub group: GroupId,
    /// This node's replica of it.
    pub replica: ReplicaId,
    /// What it replicates.
    pub kind: MachineKind,
    /// The group's first voters, the preferred leader first; the same on every node.
    pub members: Vec<Replica>,
}

/// Why a replica could not be opened.
#[derive(Debug, Error)]
pub enum OpenGroupError {
    /// The disk could not be read.
    #[error("group {group}: {source}")]
    Storage {
        /// The group.
        group: GroupId,
        /// What the disk said.
        source: StorageError,
    },
    /// The state on disk makes no sense to Raft.
    #[error("group {group}: {reason}")]
    State {
        /// The group.
        group: GroupId,
        /// What is wrong.
        reason: String,
    },
    /// The node is stopping.
    #[error("the node is shutting down and opens no groups")]
    ShutDown,
    /// The timing settings contradict each other.
    #[error("raft settings: {0}")]
    Settings(String),
}

/// All replicas of this node. Cheap to clone.
#[derive(Clone)]
pub struct RaftGroups {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    config: GroupsConfig,
    openraft: Arc<Config>,
    openraft_meta: Arc<Config>,
    storage: Storage,
    admission: Admission,
    peers: Peers,
    runtime: Handle,
    open: RwLock<BTreeMap<GroupId, Open>>,
    /// Opening and closing take turns, so that a group is never opened twice.
    turn: tokio::sync::Mutex<()>,
    shut_down: AtomicBool,
    failure: watch::Sender<Option<String>>,
}

struct Open {
    group: RaftGroup,
    supervisor: tokio::task::JoinHandle<()>,
    closing: watch::Sender<bool>,
}

impl RaftGroups {
    /// `runtime` runs consensus and its connections; keep client requests on another one, so that a burst
    /// of them can't delay heartbeats.
    ///
    /// # Errors
    /// If the settings contradict each other.
    pub fn new(
        config: GroupsConfig,
        env: Arc<dyn Env>,
        storage: Storage,
        runtime: Handle,
    ) -> Result<Self, OpenGroupError> {
        let openraft = Arc::new(openraft_config(&config)?);
        let openraft_meta = Arc::new(snapshot::by_entries(&openraft));
        let me = Identity { cluster: config.cluster.clone(), node: config.node.get(), store_id: config.store_id };
        let sentinel = Sentinel::new(me.node, config.detection);
        let peers = Peers::new(me, env, runtime.clone(), sentinel.clone());
        let inner = Arc::new(Inner {
            admission: Admission::new(config.admission, storage.clone()),
            config,
            openraft,
            openraft_meta,
            storage,
            peers,
            runtime,
            open: RwLock::default(),
            turn: tokio::sync::Mutex::default(),
            shut_down: AtomicBool::new(false),
            failure: watch::Sender::new(None),
        });
        let (node, detection) = (inner.config.node.get(), inner.config.detection);
        inner.runtime.spawn(sentinel.run(node, detection, Arc::downgrade(&inner)));
        Ok(Self { inner })
    }

    pub(crate) fn from_inner(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    /// Opens a replica from disk, or creates it. Opening an open group returns it.
    ///
    /// # Errors
    /// See [`OpenGroupError`].
    pub async fn open(&self, spec: GroupSpec) -> Result<RaftGroup, OpenGroupError> {
        let this = self.clone();
        let opening = self.inner.runtime.spawn(async move { this.open_here(spec).await });
        match opening.await {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    async fn open_here(&self, spec: GroupSpec) -> Result<RaftGroup, OpenGroupError> {
        let _turn = self.inner.turn.lock().await;
        if self.inner.shut_down.load(Ordering::Acquire) {
            return Err(OpenGroupError::ShutDown);
        }
        if let Some(group) = self.get(spec.group) {
            return Ok(group);
        }
        let published = Arc::new(Published::new(spec.kind));
        let running = self.start(&spec, &published).await?;
        let group = RaftGroup::new(&spec, running, published, self.inner.peers.clone());
        group.refresh_leadership();
        let closing = watch::Sender::new(false);
        let supervisor = tokio::spawn(supervisor::run(self.clone(), group.clone(), spec.clone(), closing.subscribe()));
        // Registered before anyone votes, so that no peer is refused on the way.
        self.write_open().insert(spec.group, Open { group: group.clone(), supervisor, closing });
        self.inner.peers.sentinel().group_changed(spec.group);
        tokio::spawn(supervisor::initialize(group.clone(), spec, self.inner.config.detection));
        Ok(group)
    }

    /// Builds the Raft of a replica from what is on disk.
    pub(crate) async fn start(&self, spec: &GroupSpec, published: &Arc<Published>) -> Result<Running, OpenGroupError> {
        let storage = &self.inner.storage;
        let failed = |source| OpenGroupError::Storage { group: spec.group, source };
        let invalid = |reason: String| OpenGroupError::State { group: spec.group, reason };
        let log = RaftLog::open(storage, spec.replica, self.inner.config.tail_cache).await.map_err(failed)?;
        let store = StateStore::new(storage, spec.replica);
        let records = RecordReader::new(log.clone(), store.clone());
        let cut = Arc::new(Cut::default());
        let opening =
            StateMachine::open(spec.kind, log.clone(), store.clone(), Arc::clone(&cut), Arc::clone(published));
        let machine = opening.await.map_err(|error| invalid(error.to_string()))?;
        let trimmed = machine.watch_trims();
        let network = NetworkFactory::new(spec.group.get(), self.inner.peers.clone());
        let config = match spec.kind {
            MachineKind::Partition(_) => Arc::clone(&self.inner.openraft),
            MachineKind::Meta => Arc::clone(&self.inner.openraft_meta),
        };
        let raft = Raft::new(spec.replica.get(), config, network, LogStore::new(log, store.clone(), cut), machine)
            .await
            .map_err(|fatal| invalid(fatal.to_string()))?;
        tokio::spawn(snapshot::cut_when_trimmed(raft.clone(), trimmed));
        Ok(Running { raft, records, store })
    }

    /// The open replica of a group.
    #[must_use]
    pub fn get(&self, group: GroupId) -> Option<RaftGroup> {
        self.inner.open.read().unwrap_or_else(PoisonError::into_inner).get(&group).map(|open| open.group.clone())
    }

    /// All open replicas, by group.
    #[must_use]
    pub fn list(&self) -> Vec<RaftGroup> {
        let open = self.inner.open.read().unwrap_or_else(PoisonError::into_inner);
        open.values().map(|open| open.group.clone()).collect()
    }

    /// Stops a replica after a last checkpoint; its data stays.
    pub async fn close(&self, group: GroupId) {
        let _turn = self.inner.turn.lock().await;
        self.close_now(group).await;
    }

    async fn close_now(&self, group: GroupId) {
        let Some(open) = self.write_open().remove(&group) else { return };
        self.inner.peers.sentinel().group_changed(group);
        open.closing.send_replace(true);
        let raft = open.group.raft();
        // A group that is already stopped has nothing to checkpoint.
        let checkpoint = raft.with_state_machine(|machine| {
            machine.save_checkpoint();
            Box::pin(std::future::ready(()))
        });
        let _ = checkpoint.await;
        if let Err(error) = raft.shutdown().await {
            tracing::warn!(%group, %error, "group did not stop cleanly");
        }
        let _ = open.supervisor.await;
        // The supervisor may have rebuilt the group meanwhile.
        if let Err(error) = open.group.raft().shutdown().await {
            tracing::warn!(%group, %error, "group did not stop cleanly");
        }
        if !supervisor::machine_is_gone(&open.group).await {
            tracing::error!(%group, "the group's state machine does not stop");
        }
    }

    /// Stops a replica and deletes its rows. Only for a replica that the cluster map has buried.
    ///
    /// # Errors
    /// What the disk said.
    pub async fn destroy(&self, group: GroupId, replica: ReplicaId) -> Result<(), StorageError> {
        let _turn = self.inner.turn.lock().await;
        self.close_now(group).await;
        self.inner.storage.destroy_replica(replica).await
    }

    /// Replaces the set of other nodes.
    pub fn set_peers(&self, peers: BTreeMap<NodeId, Peer>) {
        self.inner.peers.set(peers);
    }

    /// Whether this node has a connection to `node` and hears from it.
    #[must_use]
    pub fn reachable(&self, node: NodeId) -> bool {
        self.inner.peers.is_reachable(node)
    }

    /// What to mount on the peer listener.
    #[must_use]
    pub fn raft_service(&self) -> RaftServiceServer<impl RaftService + use<>> {
        Service::server(self.clone())
    }

    /// The budgets of what waits on this node, for those who take commands in.
    #[must_use]
    pub fn admission(&self) -> &Admission {
        &self.inner.admission
    }

    /// Sends a command to the replica that leads `group` elsewhere: the one hop that is allowed. Commands to
    /// one node keep the order of calls. `time` is how long its sender will wait: the leader makes room for it no
    /// longer than that.
    ///
    /// # Errors
    /// `NotLeader` if nothing was sent. Everything else comes with the reply.
    pub async fn propose_at(
        &self,
        leader: Replica,
        group: GroupId,
        command: Bytes,
        time: Duration,
    ) -> Result<PendingReply, ProposeError> {
        let link = self.inner.peers.link(leader.node.get(), Class::Forward);
        let question =
            Body::Propose(Propose { command, timeout_ms: u32::try_from(time.as_millis()).unwrap_or(u32::MAX).max(1) });
        let answered =
            link.start_call(group.get(), leader.id.get(), question).await.map_err(|error| forward_error(&error))?;
        Ok(async move { forwarded_reply(answered.await) }.boxed())
    }

    /// Set once a replica met a storage error that it can't survive: the node must stop.
    #[must_use]
    pub fn failure(&self) -> watch::Receiver<Option<String>> {
        self.inner.failure.subscribe()
    }

    pub(crate) fn report_failure(&self, reason: String) {
        self.inner.failure.send_if_modified(|failure| failure.is_none() && failure.replace(reason).is_none());
    }

    /// Hands every leadership to another node, then stops every replica.
    pub async fn shutdown(&self) {
        {
            // Whoever holds the turn is done opening when we get it; nobody opens after us.
            let _turn = self.inner.turn.lock().await;
            self.inner.shut_down.store(true, Ordering::Release);
        }
        let led: Vec<RaftGroup> = self.list().into_iter().filter(|group| group.leadership().is_self).collect();
        stream::iter(led)
            .for_each_concurrent(TRANSFERS_AT_ONCE, |group| async move {
                if let Err(error) = group.transfer_leader(None).await {
                    tracing::debug!(group = %group.id(), %error, "leadership stays until the election");
                }
            })
            .await;
        for group in self.list() {
            self.close(group.id()).await;
        }
        self.inner.peers.set(BTreeMap::new());
    }

    pub(crate) fn peers(&self) -> &Peers {
        &self.inner.peers
    }

    pub(crate) fn storage(&self) -> &Storage {
        &self.inner.storage
    }

    fn write_open(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<GroupId, Open>> {
        self.inner.open.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn forward_error(error: &LinkError) -> ProposeError {
    match error {
        LinkError::Lost(_) => ProposeError::Unknown { why: error.to_string() },
        LinkError::Down(_) | LinkError::Full(_) | LinkError::Refused { .. } => {
            ProposeError::NotLeader { leader: None, term: 0 }
        }
    }
}

fn forwarded_reply(answer: Result<Body, LinkError>) -> Result<Reply, ProposeError> {
    let unknown = |why: String| ProposeError::Unknown { why };
    let Body::ProposeReply(answer) = answer.map_err(|error| forward_error(&error))? else {
        return Err(unknown("unexpected answer to a forwarded command".to_owned()));
    };
    match answer.outcome {
        Some(Outcome::Reply(reply)) => Reply::decode(&reply).map_err(|error| unknown(error.to_string())),
        Some(Outcome::NotLeader(NotLeader { leader_replica_id, leader_node_id, term })) => {
            let leader = (leader_node_id != 0)
                .then(|| Replica { id: ReplicaId::new(leader_replica_id), node: NodeId::new(leader_node_id) });
            Err(ProposeError::NotLeader { leader, term })
        }
        Some(Outcome::Overloaded(wire::Overloaded { setting, limit })) => {
            Err(ProposeError::Overloaded(Overload { setting: setting.into(), limit }))
        }
        Some(Outcome::Unknown(why)) => Err(unknown(why)),
        None => Err(unknown("empty answer to a forwarded command".to_owned())),
    }
}

fn openraft_config(config: &GroupsConfig) -> Result<Config, OpenGroupError> {
    Config {
        cluster_name: config.cluster.clone(),
        // No timer per group: `detection` watches nodes and elects.
        enable_tick: false,
        enable_heartbeat: false,
        enable_elect: false,
        // Of what openraft makes of these three, this remains: how long a read round may take, how long a vote may
        // take, and the lease.
        heartbeat_interval: LEASE_MS / 2,
        election_timeout_min: LEASE_MS - 1,
        election_timeout_max: LEASE_MS,
        enable_pre_vote: Some(true),
        // A restarted leader must win an election: its peers may have moved on.
        enable_leader_restore: Some(false),
        // The log is the message store: it is purged by retention only, never because it grew.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 0,
        max_payload_entries: 1024,
        replication_lag_threshold: 1000,
        install_snapshot_timeout: 10_000,
        // Cut short when the link to a node is open again: until then, asking costs every leader time.
        backoff: "200ms 400ms ..5s".to_owned(),
        removed_leader_step_down: StepDownPolicy::After(150),
        ..Config::default()
    }
    .validate()
    .map_err(|error| OpenGroupError::Settings(error.to_string()))
}

/// How long a replica waits for the preferred one to create the group.
pub(crate) fn initialize_delay(detection: DetectionSettings, rank: usize) -> Duration {
    let rank = u32::try_from(rank).unwrap_or(u32::MAX);
    detection.suspect_after().saturating_mul(3).saturating_mul(rank)
}

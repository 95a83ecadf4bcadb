//! The handle of one replica of one Raft group.

mod deleted;
mod leadership;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use openraft::ReadPolicy;
use openraft::async_runtime::{Instant as _, WatchReceiver as _};
use openraft::errors::{ClientWriteError, Fatal, ForwardToLeader, LinearizableReadError, RaftError};
use openraft::impls::ProgressResponder;
use quorate_model::partition::subscription::{Lane, Place};
use quorate_model::{ClusterMap, GroupId, IndexSegment, Offset, PartitionMachine, Replica, ReplicaId, Reply};
use quorate_storage::{EntryId, ReadRecordsError, RecordReader, StateStore, StoredBatch};
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::Instant;

pub use leadership::TransferError;

use crate::admission::Overload;
use crate::apply::Published;
use crate::codec;
use crate::groups::{GroupSpec, LEASE_MS};
use crate::network::peers::Peers;
use crate::types::{Command, LogId, Raft, Snapshot, Types, Vote};

/// One replica of one group. Cheap to clone; stays valid while the supervisor rebuilds the group.
#[derive(Clone)]
pub struct RaftGroup {
    inner: Arc<Inner>,
}

struct Inner {
    id: GroupId,
    replica: ReplicaId,
    /// The voters in the order of placement.
    members: Vec<Replica>,
    /// Commands are submitted in turn. Holds until when the last refusal to renew the lease stands.
    turn: tokio::sync::Mutex<Option<Instant>>,
    running: RwLock<Running>,
    published: Arc<Published>,
    leadership: watch::Sender<Leadership>,
    /// The last term whose leader was found not to lead any more.
    abandoned_term: AtomicU64,
    peers: Peers,
}

/// What a rebuild replaces.
#[derive(Clone)]
pub(crate) struct Running {
    pub(crate) raft: Raft,
    pub(crate) records: RecordReader,
    pub(crate) store: StateStore,
}

impl Running {
    /// Installs a leader's snapshot, unless the log holds what it ends with: a leader that hasn't heard how far this replica
    /// got may send one that the log goes beyond, and openraft takes it for a step back (simulation seed 500004). The vote
    /// that counts then.
    pub(crate) async fn install(&self, vote: Vote, snapshot: Snapshot) -> Result<Vote, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let last = snapshot.meta.last_log_id;
        let has_it = move |state: &openraft::RaftState<Types>| {
            *state.vote_ref() == vote && last.is_some_and(|last| state.log_ids.get(last.index) == Some(last))
        };
        if self.raft.with_raft_state(has_it).await.map_err(|error| text(&error))? {
            // The leader takes what it hears for durable.
            self.store.synced().await.map_err(|error| text(&error))?;
            return Ok(vote);
        }
        let response = self.raft.install_full_snapshot(vote, snapshot).await.map_err(|error| text(&error))?;
        Ok(response.vote)
    }
}

/// Who leads a group, as this replica last heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// None while an election is under way.
    pub leader: Option<Replica>,
    /// Raft term of this knowledge: of two answers the higher is the newer.
    pub term: u64,
    /// This replica leads.
    pub is_self: bool,
}

/// How far a replica has applied its log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Index of the last applied entry.
    pub applied_index: Option<u64>,
    /// Offset of the oldest record kept.
    pub log_start: Offset,
    /// Offset that the next record will get.
    pub end: Offset,
    /// Bytes of all record batches kept.
    pub bytes: u64,
    /// How often a subscription of the partition was moved.
    pub seeks: u64,
    /// How often messages of the partition were deleted.
    pub deletions: u64,
    /// Records kept of which that is true, at the most of what lies between `log_start` and `end`.
    pub deleted: u64,
    /// Index of the newest entries, not yet in storage. None for the metadata group.
    pub(crate) open_segment: Option<IndexSegment>,
    /// What retention counts by: bytes ever accepted, and when the first record behind the last mark was proposed.
    pub(crate) appended_bytes: u64,
    pub(crate) open_since_ms: Option<u64>,
}

/// A replica's view of its group, for metrics and operators.
#[derive(Clone, Debug)]
pub struct GroupStatus {
    /// `leader`, `follower`, `candidate`, `learner` or `shutdown`.
    pub role: &'static str,
    /// Current Raft term.
    pub term: u64,
    /// Index of the last entry in the log.
    pub last_log_index: u64,
    /// Index of the last entry known to be committed.
    pub committed_index: u64,
    /// Index of the last applied entry.
    pub applied_index: u64,
    /// On the leader: entries that each other replica still lacks.
    pub lag: BTreeMap<ReplicaId, u64>,
}

/// How far a replica has come, entry by entry, for those who watch over Raft's invariants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// Current Raft term.
    pub term: u64,
    /// It leads in that term.
    pub leads: bool,
    /// Index of the last entry in the log.
    pub last_index: Option<u64>,
    /// The last entry that it knows to be committed.
    pub committed: Option<EntryId>,
    /// The last entry that it has applied.
    pub applied: Option<EntryId>,
    /// The last entry of what its newest snapshot stands for.
    pub snapshot: Option<EntryId>,
    /// The last entry that is gone from its log.
    pub purged: Option<EntryId>,
    /// What its state counts: the same for all replicas that have applied as much.
    pub counts: Counts,
}

/// A few numbers that replicas with the same state have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Index of the last entry that is counted.
    pub applied_index: Option<u64>,
    /// Offset that the next record will get.
    pub end: Offset,
    /// Bytes of all record batches kept.
    pub bytes: u64,
    /// Bytes of all record batches ever accepted.
    pub appended_bytes: u64,
    /// When the first record behind retention's last mark was proposed.
    pub open_since_ms: Option<u64>,
}

/// Why a proposal has no reply.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProposeError {
    /// Not appended: safe to send elsewhere.
    #[error("this replica does not lead the group (term {term})")]
    NotLeader {
        /// Who does, as far as this replica knows.
        leader: Option<Replica>,
        /// Term of that knowledge.
        term: u64,
    },
    /// Perhaps appended, perhaps not: only a repeat with a producer id and sequence is safe.
    #[error("the outcome is unknown: {why}")]
    Unknown {
        /// What happened.
        why: String,
    },
    /// Not appended: the node that leads the group has as much in hand as it may have.
    #[error("too much waits on the node that leads: {0}")]
    Overloaded(Overload),
    /// Not appended: the group is being closed or rebuilt.
    #[error("the group is stopped")]
    Stopped,
}

impl ProposeError {
    /// Whether the command may have been executed.
    #[must_use]
    pub fn may_be_executed(&self) -> bool {
        matches!(self, Self::Unknown { .. })
    }
}

/// Why records could not be read.
#[derive(Clone, Debug, Error)]
pub enum ReadError {
    /// The position is before the log start or behind the end.
    #[error("offset {asked} is outside the log [{log_start}, {end}]")]
    OutOfRange {
        /// What was asked for.
        asked: Offset,
        /// Offset of the oldest record kept.
        log_start: Offset,
        /// Offset that the next record will get.
        end: Offset,
    },
    /// The disk could not answer, or retention overtook the read.
    #[error(transparent)]
    Records(#[from] ReadRecordsError),
}

/// The reply to a submitted command, once it is committed and applied.
pub type PendingReply = BoxFuture<'static, Result<Reply, ProposeError>>;

/// Longest wait for a majority to confirm the lease of a leader that wasn't used for a while.
const LEASE_RENEWAL_TIMEOUT: Duration = Duration::from_millis(500);

impl RaftGroup {
    pub(crate) fn new(spec: &GroupSpec, running: Running, published: Arc<Published>, peers: Peers) -> Self {
        let leadership = watch::Sender::new(Leadership::default());
        let (id, replica, members) = (spec.group, spec.replica, spec.members.clone());
        let (turn, running) = (tokio::sync::Mutex::default(), RwLock::new(running));
        let abandoned_term = AtomicU64::new(0);
        let inner = Inner { id, replica, members, turn, running, published, leadership, abandoned_term, peers };
        Self { inner: Arc::new(inner) }
    }

    /// The group.
    #[must_use]
    pub fn id(&self) -> GroupId {
        self.inner.id
    }

    /// This node's replica of it.
    #[must_use]
    pub fn replica(&self) -> ReplicaId {
        self.inner.replica
    }

    /// Enqueues a command for replication, in the order of calls, and returns the wait for its reply.
    /// Dropping the wait doesn't cancel the command.
    ///
    /// # Errors
    /// [`ProposeError::Stopped`] if the group isn't running. Everything else comes with the reply.
    pub async fn submit(&self, command: Bytes) -> Result<PendingReply, ProposeError> {
        let (responder, answered) = ProgressResponder::complete_only();
        {
            let mut refused_until = self.inner.turn.lock().await;
            self.renew_lease(&mut refused_until).await;
            self.raft().client_write_ff(Command(command), Some(responder)).await.map_err(|_| ProposeError::Stopped)?;
        }
        let group = self.clone();
        let pending = async move {
            match answered.await {
                Ok(Ok(response)) => {
                    response.data.ok_or_else(|| ProposeError::Unknown { why: "the entry was not a command".to_owned() })
                }
                Ok(Err(ClientWriteError::ForwardToLeader(forward))) => Err(group.not_leader(&forward)),
                Ok(Err(ClientWriteError::LogEntryDiscarded(_))) => {
                    Err(ProposeError::Unknown { why: "the leader changed before the commit".to_owned() })
                }
                Ok(Err(other)) => Err(ProposeError::Unknown { why: other.to_string() }),
                Err(_) => Err(ProposeError::Unknown { why: "the group stopped before the commit".to_owned() }),
            }
        };
        Ok(pending.boxed())
    }

    /// A leader that hasn't been used for a while asks a majority whether it still leads: openraft accepts no write
    /// without a recent answer, and nobody sends heartbeats for an idle group. Costs a round trip and no fsync.
    async fn renew_lease(&self, refused_until: &mut Option<Instant>) {
        let now = Instant::now();
        if self.lease_is_fresh() || refused_until.is_some_and(|until| now < until) {
            return;
        }
        let renewed = tokio::time::timeout(LEASE_RENEWAL_TIMEOUT, self.read_barrier()).await;
        // Without a majority the write itself will be refused; those that wait behind it needn't ask again.
        *refused_until = (!matches!(renewed, Ok(Ok(())))).then(|| Instant::now() + LEASE_RENEWAL_TIMEOUT);
    }

    fn lease_is_fresh(&self) -> bool {
        let raft = self.raft();
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let half = Duration::from_millis(LEASE_MS / 2);
        metrics.state != openraft::ServerState::Leader
            || metrics.last_quorum_acked.is_some_and(|at| at.elapsed() < half)
    }

    /// Replicates a command and waits for its reply.
    ///
    /// # Errors
    /// See [`ProposeError`]; only `Unknown` may have been executed.
    pub async fn propose(&self, command: Bytes) -> Result<Reply, ProposeError> {
        self.submit(command).await?.await
    }

    /// Returns once this replica has confirmed with a quorum that it leads, and has applied everything that
    /// was committed before the call: what is read afterwards includes every earlier acknowledged write.
    ///
    /// # Errors
    /// `NotLeader` if it doesn't lead or can't reach a quorum.
    pub async fn read_barrier(&self) -> Result<(), ProposeError> {
        match self.raft().ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => Err(self.not_leader(&forward)),
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                Err(ProposeError::NotLeader { leader: None, term: self.leadership().term })
            }
            Err(RaftError::Fatal(_)) => Err(ProposeError::Stopped),
        }
    }

    /// How long ago a quorum last confirmed that this replica leads, as far as replication and heartbeats tell; `None`
    /// if none ever did. A long time means doubt, not loss: [`RaftGroup::read_barrier`] asks.
    #[must_use]
    pub fn quorum_age(&self) -> Option<Duration> {
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        metrics.last_quorum_acked.as_ref().map(|acked| acked.elapsed())
    }

    /// Who leads.
    #[must_use]
    pub fn leadership(&self) -> Leadership {
        *self.inner.leadership.borrow()
    }

    /// Follows who leads.
    #[must_use]
    pub fn watch_leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.subscribe()
    }

    /// Follows how far this replica has applied.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.inner.published.progress.subscribe()
    }

    /// Follows the replicated cluster map; the metadata group only.
    #[must_use]
    pub fn cluster_map(&self) -> Option<watch::Receiver<Arc<ClusterMap>>> {
        self.inner.published.map.as_ref().map(watch::Sender::subscribe)
    }

    /// A look at a partition's state, as far as this replica has applied; `None` for the metadata group. Applying waits
    /// meanwhile.
    #[must_use]
    pub fn look<T>(&self, at: impl FnOnce(&PartitionMachine) -> T) -> Option<T> {
        self.inner.published.machine().as_partition().map(at)
    }

    /// Applied record batches from the one that holds `from` on, about `bytes_max` bytes of them, at least one
    /// unless `from` is the end. The first may begin before `from`: batches are stored whole.
    ///
    /// # Errors
    /// [`ReadError::OutOfRange`], or what the disk said.
    pub async fn read(&self, from: Offset, bytes_max: u64) -> Result<Vec<StoredBatch>, ReadError> {
        let Progress { log_start, end, open_segment, .. } = *self.inner.published.progress.borrow();
        if from < log_start || from > end {
            return Err(ReadError::OutOfRange { asked: from, log_start, end });
        }
        let Some(open_segment) = open_segment.filter(|_| from < end) else { return Ok(Vec::new()) };
        Ok(self.running().records.read(from, &open_segment, bytes_max).await?)
    }

    /// Offset of the first record whose publish time isn't before `time_ms`; the end if there is none.
    ///
    /// # Errors
    /// What the disk said.
    pub async fn offset_for_time(&self, time_ms: u64) -> Result<Offset, ReadError> {
        let Progress { log_start, end, open_segment, .. } = *self.inner.published.progress.borrow();
        let Some(open_segment) = open_segment else { return Ok(end) };
        let found = self.running().records.offset_for_time(time_ms, log_start, &open_segment).await?;
        Ok(found.unwrap_or(end))
    }

    /// The first `most` places of a lane within a range, also of messages that were applied a moment ago.
    ///
    /// # Errors
    /// What the disk said.
    pub async fn places(&self, lane: Lane, places: Range<Place>, most: usize) -> Result<Vec<Place>, ReadError> {
        let store = self.running().store;
        Ok(store.places(lane, places, most).await.map_err(ReadRecordsError::from)?)
    }

    /// A view for metrics and operators.
    #[must_use]
    pub fn status(&self) -> GroupStatus {
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        let last_log_index = metrics.last_log_index.unwrap_or(0);
        let lag = metrics.replication.iter().flatten().map(|(replica, matched)| {
            let matched = matched.as_ref().map_or(0, |id| id.index);
            (ReplicaId::new(*replica), last_log_index.saturating_sub(matched))
        });
        GroupStatus {
            role: role(metrics.state),
            term: metrics.current_term,
            last_log_index,
            committed_index: metrics.local_committed.as_ref().map_or(0, |id| id.index),
            applied_index: metrics.last_applied.as_ref().map_or(0, |id| id.index),
            lag: lag.filter(|(replica, _)| *replica != self.inner.replica).collect(),
        }
    }

    /// The voters, in the order of placement.
    #[must_use]
    pub fn members(&self) -> &[Replica] {
        &self.inner.members
    }

    /// How far this replica has come.
    #[must_use]
    pub fn marks(&self) -> Marks {
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        let id = |id: &Option<LogId>| id.as_ref().map(codec::log_id_to_entry_id);
        let Progress { applied_index, end, bytes, appended_bytes, open_since_ms, .. } =
            *self.inner.published.progress.borrow();
        Marks {
            term: metrics.current_term,
            leads: metrics.state == openraft::ServerState::Leader,
            last_index: metrics.last_log_index,
            committed: id(&metrics.local_committed),
            applied: id(&metrics.last_applied),
            snapshot: id(&metrics.snapshot),
            purged: id(&metrics.purged),
            counts: Counts { applied_index, end, bytes, appended_bytes, open_since_ms },
        }
    }

    pub(crate) fn raft(&self) -> Raft {
        self.running().raft
    }

    pub(crate) fn running(&self) -> Running {
        self.inner.running.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn replace_running(&self, running: Running) {
        *self.inner.running.write().unwrap_or_else(PoisonError::into_inner) = running;
    }

    pub(crate) fn published(&self) -> &Arc<Published> {
        &self.inner.published
    }

    /// Why openraft's core ended, once it has.
    pub(crate) fn stop_reason(&self) -> Option<Fatal<Types>> {
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        metrics.running_state.clone().err()
    }

    fn not_leader(&self, forward: &ForwardToLeader<Types>) -> ProposeError {
        let Leadership { leader, term, .. } = self.leadership();
        // openraft names only members, and a new replica hears of its leader before it hears of the members.
        let named = forward.leader_id.map(ReplicaId::new).or(leader.map(|leader| leader.id));
        let hint = named.filter(|id| *id != self.inner.replica);
        let hint = hint.and_then(|id| Some(Replica { id, node: self.node_of(id)? }));
        ProposeError::NotLeader { leader: hint, term }
    }
}

fn role(state: openraft::ServerState) -> &'static str {
    match state {
        openraft::ServerState::Leader => "leader",
        openraft::ServerState::Follower => "follower",
        openraft::ServerState::Candidate => "candidate",
        openraft::ServerState::Learner => "learner",
        openraft::ServerState::Shutdown => "shutdown",
    }
}

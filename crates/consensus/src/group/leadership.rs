//! Who leads a group: elections, transfers, and what this replica believes.

use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use openraft::raft::TransferLeaderRequest;
use quorate_model::{NodeId, Replica, ReplicaId};
use thiserror::Error;

use super::{Leadership, RaftGroup};

/// A replica id that is never given out.
const NO_REPLICA: u64 = 0;

/// Longest wait for a transferred leadership to show.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(3);

/// A target that hasn't taken over by then is asked again: its log was not flushed yet, or nobody voted for it.
const TRANSFER_REPEAT: Duration = Duration::from_millis(150);

/// Why leadership was not handed over.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TransferError {
    /// Only the leader can hand over.
    #[error("this replica does not lead the group")]
    NotLeader,
    /// The group has no other voter, or the one named isn't one.
    #[error("no such other replica to hand the leadership to")]
    NoTarget,
    /// Nobody hears from the one that was named.
    #[error("the node of that replica can't be reached")]
    Unreachable,
    /// The target didn't take over in time; an election will settle it.
    #[error("the target did not take over within {0:?}")]
    Timeout(Duration),
    /// The group is being closed.
    #[error("the group is stopped")]
    Stopped,
}

impl RaftGroup {
    /// Hands the leadership over and waits until it has moved; without a target, to the other voter that has
    /// the most of the log. Goes on if the caller gives up.
    ///
    /// # Errors
    /// See [`TransferError`].
    pub async fn transfer_leader(&self, to: Option<ReplicaId>) -> Result<ReplicaId, TransferError> {
        if !self.leadership().is_self {
            return Err(TransferError::NotLeader);
        }
        let target = match to {
            Some(replica) => self.others().contains(&replica).then_some(replica),
            None => self.most_caught_up(),
        };
        let target = target.ok_or(TransferError::NoTarget)?;
        // One that is down would not take over, and asking it would cost the group its leader.
        if !self.is_reachable(target) {
            return Err(TransferError::Unreachable);
        }
        let group = self.clone();
        let transfer = tokio::spawn(async move { group.transfer_to(target).await });
        transfer.await.unwrap_or(Err(TransferError::Stopped))
    }

    async fn transfer_to(&self, target: ReplicaId) -> Result<ReplicaId, TransferError> {
        let mut leadership = self.watch_leadership();
        let raft = self.raft();
        let asking = async {
            loop {
                // Ignored by openraft once this replica doesn't lead any more.
                if raft.trigger().transfer_leader(target.get()).await.is_err() {
                    return;
                }
                tokio::time::sleep(TRANSFER_REPEAT).await;
            }
        };
        let elsewhere = |now: &Leadership| now.leader.is_some_and(|leader| leader.id != self.inner.replica);
        let moved = async {
            tokio::select! {
                now = leadership.wait_for(elsewhere) => now.ok().map(|now| *now),
                () = asking => None,
            }
        };
        match tokio::time::timeout(TRANSFER_TIMEOUT, moved).await {
            Ok(Some(now)) => Ok(now.leader.map_or(target, |leader| leader.id)),
            Ok(None) => Err(TransferError::Stopped),
            Err(_) => {
                // openraft's leader refuses writes from here on, for as long as it leads. Once stopped, it is rebuilt
                // by the supervisor as a follower, and the group elects.
                let _ = raft.shutdown().await;
                Err(TransferError::Timeout(TRANSFER_TIMEOUT))
            }
        }
    }

    /// Stands for election, unless this replica leads. Pre-vote: nothing happens unless a majority would agree.
    pub(crate) async fn stand_for_election(&self) {
        // A group that is being stopped or rebuilt reports its leader again.
        let _ = self.raft().trigger().elect(true).await;
    }

    /// A replica asks for votes in `term`. If it is the one that this replica takes for its leader, it leads no more:
    /// it was restarted, so quickly perhaps that nobody noticed, and may lack what it needs to be elected again.
    pub(crate) async fn hear_candidate(&self, candidate: ReplicaId, term: u64) {
        let now = self.leadership();
        if now.leader.is_some_and(|leader| leader.id == candidate) && !now.is_self && now.term < term {
            self.inner.abandoned_term.store(now.term, Ordering::Release);
            self.refresh_leadership();
            self.drop_lease().await;
        }
    }

    /// Lets this replica vote although it heard from its leader a moment ago.
    pub(crate) async fn drop_lease(&self) {
        let raft = self.raft();
        let vote = raft.server_metrics().borrow_watched().vote;
        // "Hand over to nobody": openraft's only way to end a lease, and it does so only if the vote is still the same.
        let nobody = TransferLeaderRequest::new(vote, NO_REPLICA, None);
        let _ = raft.handle_transfer_leader(nobody).await;
    }

    /// Has the leader send at once what the replica on `node` lacks, the commit index in any case.
    pub(crate) async fn resume_replication_to(&self, node: u64) {
        let Some(replica) = self.inner.members.iter().find(|member| member.node.get() == node) else { return };
        let raft = self.raft();
        let _ = raft.trigger().reset_backoff([replica.id.get()]).await;
        let _ = raft.trigger().heartbeat().await;
    }

    /// The nodes of all voters, in the order of placement.
    pub(crate) fn voter_nodes(&self) -> Vec<u64> {
        self.inner.members.iter().map(|member| member.node.get()).collect()
    }

    pub(super) fn node_of(&self, replica: ReplicaId) -> Option<NodeId> {
        self.inner.members.iter().find(|member| member.id == replica).map(|member| member.node)
    }

    /// Of the voters that this node has a connection to.
    fn most_caught_up(&self) -> Option<ReplicaId> {
        let mut others = self.others();
        others.retain(|replica| self.is_reachable(*replica));
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        let matched =
            |replica: ReplicaId| metrics.replication.as_ref()?.get(&replica.get())?.as_ref().map(|id| id.index);
        others.into_iter().max_by_key(|replica| matched(*replica))
    }

    /// Whether this node has a connection to that of a voter.
    fn is_reachable(&self, replica: ReplicaId) -> bool {
        self.node_of(replica).is_some_and(|node| self.inner.peers.is_reachable(node))
    }

    /// The voters other than this replica.
    fn others(&self) -> Vec<ReplicaId> {
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        let voters = metrics.membership_config.voter_ids().map(ReplicaId::new);
        voters.filter(|replica| *replica != self.inner.replica).collect()
    }

    /// Publishes what openraft says of the leadership now.
    pub(crate) fn refresh_leadership(&self) {
        let raft = self.raft();
        let (leader, term, state) = {
            let server = raft.server_metrics();
            let server = server.borrow_watched();
            (server.current_leader, server.vote.leader_id.term, server.state)
        };
        let leader = leader.and_then(|replica| {
            let id = ReplicaId::new(replica);
            Some(Replica { id, node: self.node_of(id)? })
        });
        let is_self = state == openraft::ServerState::Leader && leader.is_some_and(|it| it.id == self.inner.replica);
        // A leader that openraft still names although it stepped down itself is no hint to anybody.
        let leader = leader.filter(|it| is_self || it.id != self.inner.replica);
        let leader = leader.filter(|_| is_self || term != self.inner.abandoned_term.load(Ordering::Acquire));
        let now = Leadership { leader, term, is_self };
        if self.inner.leadership.send_if_modified(|old| std::mem::replace(old, now) != now) {
            self.inner.peers.sentinel().group_changed(self.inner.id);
        }
    }
}

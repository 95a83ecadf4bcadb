//! Brings a command to the replica that leads its group: this node's own, or another node's by one hop.

use std::time::Duration;

use bytes::Bytes;
use quorate_consensus::{Overload, PendingReply, ProposeError, RaftGroup, RaftGroups};
use quorate_model::{GroupId, NodeId, Replica, Reply};
use tonic::metadata::MetadataMap;

use crate::deadline::Deadline;
use crate::leaders::{KnownLeader, LeaderBook, known};

/// How long a request that may be forwarded waits for an election to end. Nothing was executed so far, so
/// that trying again is safe, and most elections are over before the caller would have noticed one.
pub(crate) const LEADER_WAIT: Duration = Duration::from_secs(5);

/// Pause between two looks for a leader.
pub(crate) const LEADER_POLL: Duration = Duration::from_millis(25);

/// What the caller wants if another node leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Routing {
    /// Forward the request, at most once.
    Forward,
    /// Say who leads; the caller goes there itself.
    Direct,
}

impl Routing {
    /// From the metadata `quorate-routing: direct`; anything else means forwarding.
    pub(crate) fn of(metadata: &MetadataMap) -> Self {
        match metadata.get("quorate-routing").map(tonic::metadata::MetadataValue::as_bytes) {
            Some(b"direct") => Self::Direct,
            _ => Self::Forward,
        }
    }
}

/// A group and where its replicas are, as the cluster map has it.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) group: GroupId,
    pub(crate) replicas: &'a [Replica],
}

/// Why a command did not bring a reply.
#[derive(Clone, Debug)]
pub(crate) enum RouteError {
    /// Not executed: another replica leads, or none is known to.
    NotLeader(Option<KnownLeader>),
    /// Not executed: the node that leads has as much in hand as it may have.
    Overloaded(Overload),
    /// It may or may not have been executed.
    Unknown(String),
}

/// The way to a group's leader.
pub(crate) enum Route {
    /// This node leads.
    Local(RaftGroup),
    /// Another node leads, or is the likeliest to know who does.
    Remote(KnownLeader),
}

/// Knows this node's groups and what it has heard of others.
#[derive(Clone)]
pub(crate) struct Router {
    node: NodeId,
    groups: RaftGroups,
    leaders: LeaderBook,
}

impl Router {
    pub(crate) fn new(node: NodeId, groups: RaftGroups, leaders: LeaderBook) -> Self {
        Self { node, groups, leaders }
    }

    pub(crate) fn groups(&self) -> &RaftGroups {
        &self.groups
    }

    pub(crate) fn leaders(&self) -> &LeaderBook {
        &self.leaders
    }

    /// The leader of a group as far as it is known; never a guess.
    pub(crate) fn leader(&self, group: GroupId) -> Option<KnownLeader> {
        match self.groups.get(group) {
            Some(local) => known(&local.leadership()),
            None => self.leaders.of(group),
        }
    }

    /// The way to the leader; without any knowledge a replica that should know it, a different one with each
    /// `attempt`. `None` while the replicas of this node are electing.
    pub(crate) fn route(&self, target: Target<'_>, attempt: usize) -> Option<Route> {
        if let Some(local) = self.groups.get(target.group) {
            let leadership = local.leadership();
            if leadership.is_self {
                return Some(Route::Local(local));
            }
            return known(&leadership).filter(|leader| leader.node != self.node).map(Route::Remote);
        }
        if let Some(leader) = self.leaders.of(target.group).filter(|leader| leader.node != self.node) {
            return Some(Route::Remote(leader));
        }
        let others: Vec<&Replica> = target.replicas.iter().filter(|replica| replica.node != self.node).collect();
        let guess = others.get(attempt.checked_rem(others.len())?)?;
        Some(Route::Remote(KnownLeader { replica: guess.id, node: guess.node, term: 0 }))
    }

    /// Enqueues a command at the leader, in the order of the calls. What comes back resolves when it is
    /// committed on a quorum and applied.
    pub(crate) async fn submit(
        &self,
        target: Target<'_>,
        command: Bytes,
        routing: Routing,
        deadline: Deadline,
    ) -> Result<PendingReply, RouteError> {
        self.submit_attempt(target, command, routing, 0, deadline).await
    }

    /// The outcome of something submitted.
    pub(crate) async fn outcome(&self, group: GroupId, pending: PendingReply) -> Result<Reply, RouteError> {
        pending.await.map_err(|error| self.refused(group, error))
    }

    /// Submits and awaits the reply. If forwarding is allowed, waits for an election to end.
    pub(crate) async fn execute(
        &self,
        target: Target<'_>,
        command: Bytes,
        routing: Routing,
        deadline: Deadline,
    ) -> Result<Reply, RouteError> {
        let leader_by = deadline.within(LEADER_WAIT);
        let mut attempt = 0;
        loop {
            let submitted = self.submit_attempt(target, command.clone(), routing, attempt, deadline).await;
            let refused = match submitted {
                Ok(pending) => match deadline.limit(self.outcome(target.group, pending)).await {
                    Ok(Ok(reply)) => return Ok(reply),
                    Ok(Err(refused)) => refused,
                    Err(_) => return Err(RouteError::Unknown("no reply before the deadline".to_owned())),
                },
                Err(refused) => refused,
            };
            match refused {
                RouteError::NotLeader(_) if routing == Routing::Forward && leader_by.remaining() > LEADER_POLL => {}
                _ => return Err(refused),
            }
            attempt += 1;
            tokio::time::sleep(LEADER_POLL).await;
        }
    }

    async fn submit_attempt(
        &self,
        target: Target<'_>,
        command: Bytes,
        routing: Routing,
        attempt: usize,
        deadline: Deadline,
    ) -> Result<PendingReply, RouteError> {
        let submitted = match self.route(target, attempt) {
            None => return Err(RouteError::NotLeader(None)),
            Some(Route::Local(group)) => match self.room_at_disk(target.group) {
                Ok(()) => group.submit(command).await,
                Err(overload) => Err(ProposeError::Overloaded(overload)),
            },
            Some(Route::Remote(leader)) if routing == Routing::Direct => {
                return Err(RouteError::NotLeader(Some(leader)));
            }
            Some(Route::Remote(leader)) => {
                self.groups.propose_at(leader.as_replica(), target.group, command, deadline.remaining()).await
            }
        };
        submitted.map_err(|error| self.refused(target.group, error))
    }

    /// What is appended here must get to this node's disk. The metadata group is small and must be able to help.
    fn room_at_disk(&self, group: GroupId) -> Result<(), Overload> {
        if group == GroupId::METADATA { Ok(()) } else { self.groups.admission().disk_keeps_up() }
    }

    /// Learns from a refusal who leads instead; a refusal that names nobody says that the last report is stale.
    fn refused(&self, group: GroupId, error: ProposeError) -> RouteError {
        match error {
            ProposeError::NotLeader { leader: Some(Replica { id, node }), term } => {
                let leader = KnownLeader { replica: id, node, term };
                self.leaders.heard(group, leader);
                RouteError::NotLeader(Some(leader))
            }
            ProposeError::NotLeader { leader: None, .. } | ProposeError::Stopped => {
                if self.groups.get(group).is_none() {
                    self.leaders.forget(group);
                }
                RouteError::NotLeader(None)
            }
            ProposeError::Overloaded(overload) => RouteError::Overloaded(overload),
            ProposeError::Unknown { why } => RouteError::Unknown(why),
        }
    }
}

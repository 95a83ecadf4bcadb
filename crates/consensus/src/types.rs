//! The openraft configuration of every group, and short names for its types.

use std::fmt;

use bytes::Bytes;
use quorate_model::Reply;

use crate::runtime::SeedableRuntime;

openraft::declare_raft_types!(
    /// One configuration for partitions and metadata: to consensus, commands are bytes.
    pub(crate) Types:
        D = Command,
        R = Option<Reply>,
        NodeId = u64,
        Node = Member,
        LeaderId = LeaderId,
        AsyncRuntime = SeedableRuntime,
);

/// One leader a term, as in the Raft paper: whoever compares terms compares leaders. openraft's other kind, its default,
/// lets a term have several (ADR 0014).
pub(crate) type LeaderId = openraft::vote::leader_id_std::LeaderId<u64, u64>;
pub(crate) type LogId = openraft::alias::LogIdOf<Types>;
pub(crate) type Vote = openraft::alias::VoteOf<Types>;
pub(crate) type Entry = openraft::alias::EntryOf<Types>;
pub(crate) type Membership = openraft::Membership<u64, Member>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<Types>;
pub(crate) type Snapshot = openraft::alias::SnapshotOf<Types, Bytes>;
pub(crate) type Raft = openraft::Raft<Types, crate::apply::StateMachine>;

/// An encoded [`quorate_model::Command`].
#[derive(Clone)]
pub(crate) struct Command(pub(crate) Bytes);

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Command({} bytes)", self.0.len())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What a Raft membership says of a replica: the node that holds it. Addresses live in the cluster map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) node: u64,
}

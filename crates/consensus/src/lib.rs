//! Agreement: Raft groups over openraft, behind our own types. No openraft type is named outside this crate.
//!
//! What a group replicates is a [`quorate_model::Machine`]: one per partition and one for the cluster's
//! metadata. The Raft log *is* the message store; applying an entry keeps metadata only (ADR 0002).
//!
//! - [`admission`]: how much may wait for a quorum and for the disk.
//! - [`env`]: listen, connect, disk, clock: everything that simulation replaces.
//! - [`group`]: [`RaftGroup`], the handle of one replica: propose, read, leadership.
//! - [`groups`]: [`RaftGroups`], all replicas of this node: open, close, forward, shut down.
//! - `detection`: notices by heartbeats between nodes that one is down, and has its groups elect.
//! - `apply`, `log_store`: openraft's storage traits over `quorate-storage`.
//! - `codec`: our own bytes for votes, entries and memberships, on disk and on the wire.
//! - `network`: one multiplexed stream per peer and class of traffic.
//! - `snapshot`: where the log is cut, and when.
//! - `runtime`: openraft's runtime with seedable randomness.
//! - `supervisor`: rebuilds a group that died, reports storage failures.
//!
//! This crate knows nothing of topics, clients or configuration files: that is the server's.

pub mod admission;
mod apply;
#[cfg(test)]
mod cluster_tests;
mod codec;
#[cfg(test)]
mod conformance_tests;
mod detection;
pub mod env;
#[cfg(test)]
mod flow_tests;
pub mod group;
pub mod groups;
#[cfg(test)]
mod install_tests;
mod log_store;
mod network;
#[cfg(test)]
mod retention_tests;
mod runtime;
mod snapshot;
mod supervisor;
mod types;

pub use admission::{Admission, AdmissionLimits, Overload, Permit};
pub use detection::DetectionSettings;
pub use env::{Accepted, BoxIo, Env, Listener};
pub use group::{
    Counts, GroupStatus, Leadership, Marks, PendingReply, Progress, ProposeError, RaftGroup, ReadError, TransferError,
};
pub use groups::{GroupSpec, GroupsConfig, OpenGroupError, Peer, RaftGroups};

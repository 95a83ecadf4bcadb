//! Failure detection by node, not by group (ADR 0009).
//!
//! openraft's ticks are off: a group that nobody uses costs nothing. Instead each pair of nodes exchanges one
//! heartbeat, and a node that is down has the groups that it led elect another leader, a bounded number at a time.
//!
//! ```text
//!  link, service ── heard, gone ──▶ suspicions ── down ──▶ elections ── due ──▶ sentinel ── elect ──▶ Raft
//!  groups ───────── leader changed ─────────────────────▶
//! ```
//!
//! - `suspicions`: which nodes are silent, and what the others say of them. Plain data.
//! - `elections`: which groups lack a leader, and whose turn it is to stand. Plain data.
//! - `sentinel`: the one task that exchanges heartbeats and acts on both.
//!
//! Safety never depends on any of this: a wrong suspicion costs an election.

#[cfg(test)]
mod cluster_tests;
mod elections;
#[cfg(test)]
mod elections_tests;
pub(crate) mod sentinel;
mod suspicions;
#[cfg(test)]
mod suspicions_tests;

use std::time::Duration;

/// Timing of failure detection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DetectionSettings {
    /// Interval of the heartbeat between two nodes, in milliseconds.
    pub heartbeat_ms: u64,
    /// A node from which nothing was heard for this long is suspected, in milliseconds: several heartbeats.
    pub suspect_after_ms: u64,
}

impl Default for DetectionSettings {
    fn default() -> Self {
        Self { heartbeat_ms: 100, suspect_after_ms: 500 }
    }
}

impl DetectionSettings {
    pub(crate) fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms)
    }

    pub(crate) fn suspect_after(&self) -> Duration {
        Duration::from_millis(self.suspect_after_ms)
    }
}

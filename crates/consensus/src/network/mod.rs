//! Node-to-node traffic: one long-lived bidirectional stream per ordered pair of nodes and [`Class`] of
//! traffic, over which all groups are multiplexed. Each class has a connection of its own, so that votes
//! and heartbeats never wait behind data.
//!
//! ```text
//!  asking node                                        answering node
//!  client (openraft's Net* traits)                    service
//!    └─ call / session ─▶ link ══ frames ══▶ inbound ─▶ group's Raft
//!                           ◀═══ frames ════           (answers paired by call id)
//! ```
//!
//! - `link`: the asking side of one stream: connect, greet, pair answers with calls, fail them all on loss.
//! - `peers`: the links to every peer, and who they are.
//! - `client`: openraft's network traits over links.
//! - `service`: the answering side.

pub(crate) mod client;
pub(crate) mod link;
pub(crate) mod peers;
pub(crate) mod service;

use std::time::Duration;

use futures::Stream;
use futures::stream;
use quorate_proto::internal::{Envelope, Frame, Hello, Refusal, envelope};
use tokio::sync::mpsc;

/// Largest message that either side accepts: one record batch at its cap, and its envelope.
pub(crate) const FRAME_BYTES_MAX: usize = 64 << 20;
/// A frame is closed once it holds this much …
const FRAME_BYTES_TARGET: usize = 1 << 20;
/// … or this many envelopes.
const FRAME_ENVELOPES_MAX: usize = 256;
/// Envelopes that may wait for a stream to become writable.
const OUTBOX_ENVELOPES: usize = 4096;
/// Requests of one append session that may be unanswered; what the answering side buffers per session.
pub(crate) const SESSION_WINDOW: usize = 64;
/// Bytes of entries that one append session may have unanswered …
pub(crate) const SESSION_BYTES: u32 = 4 << 20;
/// … and all sessions of one link together.
pub(crate) const LINK_BYTES: usize = 32 << 20;
/// Longest wait for the peer's greeting on a new stream.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest that a forwarded command is waited for at the leader, whatever its sender says.
const FORWARD_TIME_MAX: Duration = Duration::from_secs(30);

/// What a stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// Votes, heartbeats, leadership transfers.
    Control,
    /// Log replication and snapshots.
    Data,
    /// Commands forwarded to a leader.
    Forward,
}

impl Class {
    pub(crate) const ALL: [Self; 3] = [Self::Control, Self::Data, Self::Forward];
}

/// Who a node says it is when a stream opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) cluster: String,
    pub(crate) node: u64,
    pub(crate) store_id: u64,
}

impl Identity {
    fn hello(&self) -> Envelope {
        let Self { cluster, node, store_id } = self.clone();
        address(0, 0, 0, envelope::Body::Hello(Hello { cluster, node_id: node, store_id }))
    }
}

impl From<Hello> for Identity {
    fn from(hello: Hello) -> Self {
        Self { cluster: hello.cluster, node: hello.node_id, store_id: hello.store_id }
    }
}

fn address(group_id: u64, to_replica_id: u64, call_id: u64, body: envelope::Body) -> Envelope {
    Envelope { group_id, to_replica_id, call_id, body: Some(body) }
}

fn refusal(reason: &impl ToString) -> envelope::Body {
    envelope::Body::Refusal(Refusal { reason: reason.to_string() })
}

/// Packs whatever is waiting into frames, in order, without ever waiting for more.
fn frames(outbox: mpsc::Receiver<Envelope>) -> impl Stream<Item = Frame> + Send + 'static {
    stream::unfold(outbox, |mut outbox| async move {
        let mut envelopes = vec![outbox.recv().await?];
        let mut bytes = body_bytes(&envelopes[0]);
        while bytes < FRAME_BYTES_TARGET && envelopes.len() < FRAME_ENVELOPES_MAX {
            let Ok(next) = outbox.try_recv() else { break };
            bytes += body_bytes(&next);
            envelopes.push(next);
        }
        Some((Frame { envelopes }, outbox))
    })
}

fn body_bytes(envelope: &Envelope) -> usize {
    match &envelope.body {
        Some(envelope::Body::Append(append)) => append.entries.iter().map(|entry| entry.body.len()).sum(),
        Some(envelope::Body::Propose(propose)) => propose.command.len(),
        Some(envelope::Body::Snapshot(snapshot)) => snapshot.data.len(),
        _ => 0,
    }
}

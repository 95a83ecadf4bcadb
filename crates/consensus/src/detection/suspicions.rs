//! Which nodes this node suspects, and which of them are down.
//!
//! A node is *unheard* when nothing arrived from it for a while, or when its process is gone. It is *suspected* when
//! it is unheard or says itself that it doesn't hear us: a link that works in one direction only is of no use. It is
//! *down* once another node, one that we don't suspect, suspects it too: without that second voice a single cut link
//! would move leaders about. Both lists travel in the heartbeat; if only the suspected did, two nodes could go on
//! suspecting each other for no reason but the other's suspicion.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

/// Node ids.
pub(crate) type Nodes = BTreeSet<u64>;

/// What is known of the other nodes.
pub(super) struct Suspicions {
    me: u64,
    /// Silence after which a node is suspected.
    suspect_after: Duration,
    peers: BTreeMap<u64, Peer>,
    /// When `step` was last called: if that is long ago, it was this node that stood still.
    stepped: Instant,
}

struct Peer {
    heard: Instant,
    /// Nobody listens at its address.
    gone: bool,
    /// By its last heartbeat.
    word: Word,
}

/// What a node says of the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) unheard: Nodes,
    pub(crate) suspected: Nodes,
}

impl Suspicions {
    pub(super) fn new(me: u64, suspect_after: Duration, now: Instant) -> Self {
        Self { me, suspect_after, peers: BTreeMap::new(), stepped: now }
    }

    /// Replaces the set of other nodes. A new one has the benefit of the doubt.
    pub(super) fn set_peers(&mut self, now: Instant, nodes: &Nodes) {
        self.peers.retain(|node, _| nodes.contains(node));
        for &node in nodes {
            self.peers.entry(node).or_insert_with(|| Peer { heard: now, gone: false, word: Word::default() });
        }
    }

    /// Anything arrived from a node.
    pub(super) fn heard(&mut self, now: Instant, node: u64) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.heard = now;
            peer.gone = false;
        }
    }

    /// A node's heartbeat arrived. True if it says something new.
    pub(super) fn heartbeat(&mut self, now: Instant, node: u64, word: Word) -> bool {
        self.heard(now, node);
        let Some(peer) = self.peers.get_mut(&node) else { return false };
        let news = peer.word != word;
        peer.word = word;
        news
    }

    /// A node's connection was lost and nobody listens at its address: its process has died.
    pub(super) fn gone(&mut self, node: u64) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.gone = true;
        }
    }

    pub(super) fn is_gone(&self, node: u64) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.gone)
    }

    /// Must be called regularly. If this node itself stood still, the silence of the others was its own.
    pub(super) fn step(&mut self, now: Instant) {
        if now.duration_since(self.stepped) > self.suspect_after / 2 {
            for peer in self.peers.values_mut() {
                peer.heard = now;
            }
        }
        self.stepped = now;
    }

    /// What this node says of the others.
    pub(super) fn word(&self, now: Instant) -> Word {
        let unheard = self.select(|peer| self.is_unheard(now, peer));
        let suspected = self.select(|peer| self.is_unheard(now, peer) || peer.word.unheard.contains(&self.me));
        Word { unheard, suspected }
    }

    /// The suspected nodes that another node, not itself suspected, suspects too.
    pub(super) fn down(&self, now: Instant) -> Nodes {
        let Word { suspected, .. } = self.word(now);
        let witnesses = self.peers.iter().filter(|(node, _)| !suspected.contains(node));
        let testimony: Nodes = witnesses.flat_map(|(_, witness)| witness.word.suspected.iter().copied()).collect();
        suspected.intersection(&testimony).copied().collect()
    }

    /// When the next node falls silent, if nothing is heard until then.
    pub(super) fn next_silence(&self, now: Instant) -> Option<Instant> {
        let heard = self.peers.values().filter(|peer| !self.is_unheard(now, peer));
        heard.map(|peer| peer.heard + self.suspect_after).min()
    }

    fn is_unheard(&self, now: Instant, peer: &Peer) -> bool {
        peer.gone || now.duration_since(peer.heard) >= self.suspect_after
    }

    fn select(&self, which: impl Fn(&Peer) -> bool) -> Nodes {
        self.peers.iter().filter(|(_, peer)| which(peer)).map(|(node, _)| *node).collect()
    }
}

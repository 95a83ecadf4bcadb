//! Who leads which group, as far as this node has heard: its own replicas tell it about theirs, refusals of
//! other nodes about the rest. Soft knowledge: being wrong costs one more hop, never correctness.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_consensus::Leadership;
use quorate_model::{GroupId, NodeId, Replica, ReplicaId};
use tokio::sync::watch;

/// A leader and the term in which it was elected: of two reports, the higher term is the newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KnownLeader {
    pub(crate) replica: ReplicaId,
    pub(crate) node: NodeId,
    /// 0: a guess.
    pub(crate) term: u64,
}

impl KnownLeader {
    pub(crate) fn as_replica(self) -> Replica {
        Replica { id: self.replica, node: self.node }
    }
}

/// Leaders by group, and a watch on all of them.
#[derive(Clone)]
pub(crate) struct LeaderBook {
    known: Arc<watch::Sender<BTreeMap<GroupId, KnownLeader>>>,
}

impl LeaderBook {
    pub(crate) fn new() -> Self {
        Self { known: Arc::new(watch::Sender::new(BTreeMap::new())) }
    }

    pub(crate) fn of(&self, group: GroupId) -> Option<KnownLeader> {
        self.known.borrow().get(&group).copied()
    }

    /// Remembers a report unless something newer is known.
    pub(crate) fn heard(&self, group: GroupId, leader: KnownLeader) {
        self.known.send_if_modified(|known| match known.get(&group) {
            Some(before) if *before == leader || before.term > leader.term => false,
            _ => {
                known.insert(group, leader);
                true
            }
        });
    }

    /// Forgets a leader that is no longer one.
    pub(crate) fn forget(&self, group: GroupId) {
        self.known.send_if_modified(|known| known.remove(&group).is_some());
    }

    /// The groups that a node leads.
    pub(crate) fn led_by(&self, node: NodeId) -> Vec<GroupId> {
        let known = self.known.borrow();
        known.iter().filter(|(_, leader)| leader.node == node).map(|(group, _)| *group).collect()
    }

    /// Changes at every change of a leader.
    pub(crate) fn watch(&self) -> watch::Receiver<BTreeMap<GroupId, KnownLeader>> {
        self.known.subscribe()
    }

    /// Keeps the book up to date with a replica of this node, until that is closed. Holds the watch and not the
    /// replica itself, which would never be closed then.
    pub(crate) async fn follow(self, group: GroupId, mut leadership: watch::Receiver<Leadership>) {
        loop {
            let now = *leadership.borrow_and_update();
            match known(&now) {
                Some(leader) => self.heard(group, leader),
                None => self.forget(group),
            }
            if leadership.changed().await.is_err() {
                return self.forget(group);
            }
        }
    }
}

/// The leader that a replica believes in.
pub(crate) fn known(leadership: &Leadership) -> Option<KnownLeader> {
    leadership.leader.map(|Replica { id, node }| KnownLeader { replica: id, node, term: leadership.term })
}

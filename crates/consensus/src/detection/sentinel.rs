//! The one task of a node that watches the others: exchanges heartbeats, and sees to the groups of those that are down.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use quorate_model::GroupId;
use quorate_proto::internal::{NodeHeartbeat, envelope::Body};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::DetectionSettings;
use super::elections::Elections;
use super::suspicions::{Nodes, Suspicions, Word};
use crate::groups::{Inner, RaftGroups};
use crate::network::Class;

/// Where the rest of the crate reports what it hears. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Sentinel {
    shared: Arc<Shared>,
}

struct Shared {
    inbox: Mutex<Inbox>,
    /// Something arrived that shouldn't wait for the next heartbeat.
    urgent: Notify,
}

struct Inbox {
    suspicions: Suspicions,
    /// Groups whose leader changed, or that were opened or closed.
    changed: BTreeSet<GroupId>,
    /// Nodes to which a data link was opened.
    linked: Nodes,
}

impl Sentinel {
    pub(crate) fn new(me: u64, settings: DetectionSettings) -> Self {
        let suspicions = Suspicions::new(me, settings.suspect_after(), Instant::now());
        let inbox = Inbox { suspicions, changed: BTreeSet::new(), linked: Nodes::new() };
        Self { shared: Arc::new(Shared { inbox: Mutex::new(inbox), urgent: Notify::new() }) }
    }

    pub(crate) fn set_peers(&self, nodes: &Nodes) {
        self.inbox().suspicions.set_peers(Instant::now(), nodes);
    }

    pub(crate) fn suspects(&self, node: u64) -> bool {
        self.inbox().suspicions.word(Instant::now()).suspected.contains(&node)
    }

    /// Anything arrived from a node.
    pub(crate) fn heard(&self, node: u64) {
        self.inbox().suspicions.heard(Instant::now(), node);
    }

    /// A node's heartbeat arrived.
    pub(crate) fn heartbeat(&self, node: u64, heartbeat: NodeHeartbeat) {
        let NodeHeartbeat { unheard, suspected } = heartbeat;
        let word = Word { unheard: unheard.into_iter().collect(), suspected: suspected.into_iter().collect() };
        if self.inbox().suspicions.heartbeat(Instant::now(), node, word) {
            self.shared.urgent.notify_one();
        }
    }

    /// A node's connection was lost, and nobody listens at its address.
    pub(crate) fn gone(&self, node: u64) {
        self.inbox().suspicions.gone(node);
        self.shared.urgent.notify_one();
    }

    /// Whether that was the last that is known of it.
    pub(crate) fn is_gone(&self, node: u64) -> bool {
        self.inbox().suspicions.is_gone(node)
    }

    /// The data link to a node has been opened.
    pub(crate) fn linked(&self, node: u64) {
        self.inbox().linked.insert(node);
        self.shared.urgent.notify_one();
    }

    /// A group's leader changed, or the group was opened or closed.
    pub(crate) fn group_changed(&self, group: GroupId) {
        self.inbox().changed.insert(group);
        self.shared.urgent.notify_one();
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.shared.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches until the groups are dropped.
    pub(crate) async fn run(self, me: u64, settings: DetectionSettings, groups: Weak<Inner>) {
        let mut watch =
            Watch { elections: Elections::new(me), word: Word::default(), down: Nodes::new(), beat_at: Instant::now() };
        loop {
            let now = Instant::now();
            let wake_at = {
                let Some(groups) = groups.upgrade().map(RaftGroups::from_inner) else { return };
                watch.step(now, &self, &groups, settings.heartbeat())
            };
            tokio::select! {
                () = tokio::time::sleep_until(wake_at) => {}
                () = self.shared.urgent.notified() => {}
            }
        }
    }
}

/// What the task remembers from one step to the next.
struct Watch {
    elections: Elections,
    /// What this node last said of the others.
    word: Word,
    down: Nodes,
    beat_at: Instant,
}

impl Watch {
    /// Does what is due, and returns when to come back.
    fn step(&mut self, now: Instant, sentinel: &Sentinel, groups: &RaftGroups, heartbeat: Duration) -> Instant {
        let (word, down, changed, linked, next_silence) = {
            let mut inbox = sentinel.inbox();
            inbox.suspicions.step(now);
            let (changed, linked) = (std::mem::take(&mut inbox.changed), std::mem::take(&mut inbox.linked));
            let suspicions = &inbox.suspicions;
            (suspicions.word(now), suspicions.down(now), changed, linked, suspicions.next_silence(now))
        };
        // The others wait for our word before they act: a new suspicion isn't kept until the next heartbeat.
        if now >= self.beat_at || word != self.word {
            self.say(&word, groups);
            self.beat_at = now + heartbeat;
        }
        for id in &changed {
            match groups.get(*id) {
                Some(group) => {
                    let leader = group.leadership().leader.map(|leader| leader.node.get());
                    self.elections.leader_is(*id, &group.voter_nodes(), leader);
                }
                None => self.elections.closed(*id),
            }
        }
        for node in down.difference(&self.down) {
            tracing::warn!(node, led = self.elections.led_by(*node).len(), "node is down");
            drop_leases(&self.elections.led_by(*node), groups);
        }
        for node in self.down.difference(&down) {
            tracing::info!(node, "node is back");
        }
        for node in linked {
            resume_replication(node, &self.elections.led_here_with(node), groups);
        }
        self.elections.review(now, &changed, &down, &word.suspected);
        for id in self.elections.due(now, &word.suspected, random_below) {
            stand(id, &down, groups);
        }
        (self.word, self.down) = (word, down);
        [next_silence, self.elections.next_due(now)].into_iter().flatten().fold(self.beat_at, Instant::min)
    }

    fn say(&self, word: &Word, groups: &RaftGroups) {
        let heartbeat = NodeHeartbeat {
            unheard: word.unheard.iter().copied().collect(),
            suspected: word.suspected.iter().copied().collect(),
        };
        for node in groups.peers().nodes() {
            // A link that is down or full is what the other side's silence is made of.
            let _ = groups.peers().link(node, Class::Control).post(Body::NodeHeartbeat(heartbeat.clone()));
        }
    }
}

/// Lets the replicas of this node vote although the leader was heard from a moment ago: it is down, and two nodes say
/// so. Pre-vote then needs a majority that has done the same.
fn drop_leases(led: &[GroupId], groups: &RaftGroups) {
    for group in led.iter().filter_map(|id| groups.get(*id)) {
        tokio::spawn(async move { group.drop_lease().await });
    }
}

/// A follower that is back shouldn't have to wait until openraft's back-off is over; and one that missed a commit in a
/// group that has been idle since would otherwise hear of it with the next write.
fn resume_replication(node: u64, led: &[GroupId], groups: &RaftGroups) {
    for group in led.iter().filter_map(|id| groups.get(*id)) {
        tokio::spawn(async move { group.resume_replication_to(node).await });
    }
}

fn stand(id: GroupId, down: &Nodes, groups: &RaftGroups) {
    let Some(group) = groups.get(id) else { return };
    let leader_is_down = group.leadership().leader.is_some_and(|leader| down.contains(&leader.node.get()));
    tokio::spawn(async move {
        if leader_is_down {
            group.drop_lease().await;
        }
        group.stand_for_election().await;
    });
}

fn random_below(bound: Duration) -> Duration {
    bound.mul_f64(fastrand::f64())
}

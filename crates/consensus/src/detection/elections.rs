//! Which groups lack a leader, and when this node's replica should stand for election.
//!
//! A group is an *orphan* while it has no leader, or one whose node is down. The replicas stand in the order of
//! placement: the first that is up at once, each further one a little later. A node lets only so many elections be
//! under way, and repeats one only after a pause: with a thousand groups, eager repeats took up to twelve terms for
//! each (reference notes, `detection.md` §6.7).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_model::GroupId;
use tokio::time::Instant;

use super::suspicions::Nodes;

/// Before the first attempt: the other survivors must drop the dead leader's lease too.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// How much later each further replica stands …
const RANK_PAUSE: Duration = Duration::from_millis(60);
/// … and how much longer it leaves the first ones for each orphan that they have to see to.
const BACKLOG_PAUSE: Duration = Duration::from_micros(500);
/// Before a repeat; doubles up to the longest, and is stretched at random by up to a half.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(200);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);
/// Elections of this node that may be under way.
pub(super) const ELECTIONS_AT_ONCE: usize = 32;

/// A replica of this node, and where the others of its group are.
struct Group {
    /// The nodes of all voters in the order of placement, this one among them.
    nodes: Vec<u64>,
    leader: Option<u64>,
}

/// A group that needs a leader.
struct Orphan {
    due: Instant,
    retry_pause: Duration,
    /// The attempt under way counts until then.
    attempt_until: Option<Instant>,
}

/// The groups of this node.
pub(super) struct Elections {
    me: u64,
    groups: BTreeMap<GroupId, Group>,
    led_by: BTreeMap<u64, BTreeSet<GroupId>>,
    orphans: BTreeMap<GroupId, Orphan>,
}

impl Elections {
    pub(super) fn new(me: u64) -> Self {
        Self { me, groups: BTreeMap::new(), led_by: BTreeMap::new(), orphans: BTreeMap::new() }
    }

    /// What a replica now says of its leader; also how a group becomes known.
    pub(super) fn leader_is(&mut self, group: GroupId, nodes: &[u64], leader: Option<u64>) {
        let known = self.groups.entry(group).or_insert_with(|| Group { nodes: nodes.to_vec(), leader: None });
        let before = std::mem::replace(&mut known.leader, leader);
        if let Some(led) = before.and_then(|before| self.led_by.get_mut(&before)) {
            led.remove(&group);
        }
        if let Some(leader) = leader {
            self.led_by.entry(leader).or_default().insert(group);
        }
    }

    /// A replica was closed.
    pub(super) fn closed(&mut self, group: GroupId) {
        self.leader_is(group, &[], None);
        self.groups.remove(&group);
        self.orphans.remove(&group);
    }

    /// The groups that a node leads.
    pub(super) fn led_by(&self, node: u64) -> Vec<GroupId> {
        self.led_by.get(&node).into_iter().flatten().copied().collect()
    }

    /// The groups that have a voter on `node` and are led by this one.
    pub(super) fn led_here_with(&self, node: u64) -> Vec<GroupId> {
        let mut led = self.led_by(self.me);
        led.retain(|group| self.groups.get(group).is_some_and(|group| group.nodes.contains(&node)));
        led
    }

    /// Notes which groups have become orphans and which no longer are.
    pub(super) fn review(&mut self, now: Instant, changed: &BTreeSet<GroupId>, down: &Nodes, suspected: &Nodes) {
        let of_the_dead = down.iter().flat_map(|node| self.led_by(*node));
        let affected: BTreeSet<GroupId> =
            of_the_dead.chain(changed.iter().copied()).chain(self.orphans.keys().copied()).collect();
        for id in affected {
            let Some(group) = self.groups.get(&id) else { continue };
            if group.leader.is_some_and(|leader| !down.contains(&leader)) {
                self.orphans.remove(&id);
            } else if !self.orphans.contains_key(&id) {
                let due = now + FIRST_PAUSE + self.turn(group, suspected);
                self.orphans.insert(id, Orphan { due, retry_pause: RETRY_PAUSE_MIN, attempt_until: None });
            }
        }
    }

    /// How long the replicas before this one have to themselves.
    fn turn(&self, group: &Group, suspected: &Nodes) -> Duration {
        let up = group.nodes.iter().filter(|node| !suspected.contains(node));
        let rank = up.take_while(|node| **node != self.me).count();
        let rank = u32::try_from(rank).unwrap_or(u32::MAX);
        let backlog = u32::try_from(self.orphans.len()).unwrap_or(u32::MAX);
        (RANK_PAUSE + BACKLOG_PAUSE.saturating_mul(backlog)).saturating_mul(rank)
    }

    /// The groups whose turn it is. Each is considered under way until it has a leader or its pause is over.
    /// `stretch` draws a random number below its argument.
    pub(super) fn due(
        &mut self,
        now: Instant,
        suspected: &Nodes,
        mut stretch: impl FnMut(Duration) -> Duration,
    ) -> Vec<GroupId> {
        let under_way = |orphan: &Orphan| orphan.attempt_until.is_some_and(|until| until > now);
        let room = ELECTIONS_AT_ONCE.saturating_sub(self.orphans.values().filter(|orphan| under_way(orphan)).count());
        let due = self.orphans.iter().filter(|(_, orphan)| orphan.due <= now);
        let mut waiting: Vec<(Instant, GroupId)> = due.map(|(id, orphan)| (orphan.due, *id)).collect();
        // Whoever has waited longest comes first: a group that can't win must not keep the others from trying.
        waiting.sort_unstable();
        let mut standing = Vec::new();
        for (_, id) in waiting {
            let Some(orphan) = self.orphans.get_mut(&id) else { continue };
            if standing.len() == room {
                break;
            }
            orphan.due = now + orphan.retry_pause + stretch(orphan.retry_pause / 2);
            orphan.attempt_until = None;
            // Without a majority there is nothing to win, and no reason to ask more rarely once there is one.
            if self.groups.get(&id).is_some_and(|group| group.has_majority(suspected)) {
                orphan.attempt_until = Some(now + RETRY_PAUSE_MIN);
                orphan.retry_pause = (orphan.retry_pause * 2).min(RETRY_PAUSE_MAX);
                standing.push(id);
            }
        }
        standing
    }

    /// When `due` next has something to say, unless something changes before.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        let next = self.orphans.values().map(|orphan| orphan.due).min()?;
        if next > now {
            return Some(next);
        }
        // Due, but there is no room: the next attempt that ends makes some.
        self.orphans.values().filter_map(|orphan| orphan.attempt_until).filter(|until| *until > now).min().or(Some(now))
    }
}

impl Group {
    fn has_majority(&self, suspected: &Nodes) -> bool {
        let up = self.nodes.iter().filter(|node| !suspected.contains(node)).count();
        up * 2 > self.nodes.len()
    }
}

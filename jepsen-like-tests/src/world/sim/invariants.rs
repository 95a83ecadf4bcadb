//! Raft's invariants, watched at every step of a simulation: what breaks one may be lost later, or never be noticed by a
//! client of this run. After Ongaro and Ousterhout, *In Search of an Understandable Consensus Algorithm* (2014), figure 3,
//! and the rule that an acknowledgement means "on the disks of a majority".

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_consensus::{Counts, Marks, RaftGroups};
use quorate_model::{GroupId, Replica};
use quorate_storage::EntryId;

/// The replicas of the nodes that run.
#[derive(Clone, Default)]
pub(super) struct Running {
    nodes: Arc<Mutex<BTreeMap<u64, RaftGroups>>>,
}

/// Takes a node's replicas out of sight when its process ends, in whatever way.
pub(super) struct InSight {
    running: Running,
    node: u64,
}

impl Running {
    pub(super) fn show(&self, node: u64, groups: &RaftGroups) -> InSight {
        self.lock().insert(node, groups.clone());
        InSight { running: self.clone(), node }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, RaftGroups>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InSight {
    fn drop(&mut self) {
        self.running.lock().remove(&self.node);
    }
}

/// What was seen so far, and what of it mustn't be.
#[derive(Default)]
pub(super) struct Invariants {
    /// What each replica last showed.
    seen: BTreeMap<(u64, GroupId), Marks>,
    /// Groups of which a replica was removed: their topic was.
    removed: BTreeSet<GroupId>,
    /// Who led a group in a term.
    leaders: BTreeMap<(GroupId, u64), u64>,
    /// Which entry was once committed or applied at an index.
    settled: BTreeMap<(GroupId, u64), EntryId>,
    /// What a state counted after the entry at an index.
    counted: BTreeMap<(GroupId, u64), Counts>,
    /// The last committed entry of each group.
    newest: BTreeMap<GroupId, EntryId>,
    /// One sentence for each invariant of a group that was broken.
    broken: BTreeMap<(GroupId, Invariant), String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Invariant {
    ElectionSafety,
    LeaderCompleteness,
    StateMachineSafety,
    CommittedOnQuorum,
    OrderOfMarks,
}

impl Invariants {
    /// Looks at every replica. `would_keep`: whether a power loss now would leave an entry on a replica's disk, if anything.
    pub(super) fn look(
        &mut self,
        now_ms: u64,
        running: &Running,
        would_keep: impl Fn(&Replica, EntryId) -> Option<bool>,
    ) {
        for (node, groups) in running.lock().iter() {
            for group in groups.list() {
                let (id, marks) = (group.id(), group.marks());
                if self.seen.insert((*node, id), marks) == Some(marks) {
                    continue;
                }
                let mut voters = group.members().iter();
                let had_voted =
                    |voter: &Replica| self.seen.get(&(voter.node.get(), id)).is_some_and(|was| was.term > 0);
                if let Some(entry) = marks.committed
                    && voters.any(|voter| would_keep(voter, entry).is_none() && had_voted(voter))
                {
                    self.removed.insert(id);
                }
                let is_removed = self.removed.contains(&id);
                let kept =
                    |entry| group.members().iter().filter(|voter| would_keep(voter, entry) == Some(true)).count();
                self.judge(now_ms, *node, id, &marks, |entry| is_removed || kept(entry) * 2 > group.members().len());
            }
        }
    }

    /// What was broken, in the order of groups.
    pub(super) fn broken(&self) -> Vec<String> {
        self.broken.values().cloned().collect()
    }

    fn judge(&mut self, now_ms: u64, node: u64, group: GroupId, marks: &Marks, safe: impl Fn(EntryId) -> bool) {
        let mut complaints = Vec::new();
        let mut complain = |what: Invariant, how: String| complaints.push((what, how));

        let Marks { term, leads, last_index, committed, applied, snapshot, purged, counts } = *marks;
        if leads {
            let leader = *self.leaders.entry((group, term)).or_insert(node);
            if leader != node {
                complain(Invariant::ElectionSafety, format!("nodes {leader} and {node} lead in term {term}"));
            }
            if let Some(newest) = self.newest.get(&group).filter(|newest| newest.term <= term)
                && last_index < Some(newest.index)
            {
                let lacks = format!("node {node} leads in term {term} with a log up to {last_index:?}");
                complain(Invariant::LeaderCompleteness, format!("{lacks} and lacks {}", show(*newest)));
            }
        }
        for entry in BTreeSet::from([committed, applied]).into_iter().flatten() {
            let known = self.settled.insert((group, entry.index), entry);
            if let Some(other) = known.filter(|known| *known != entry) {
                let both = format!("node {node} settled on {}, another replica on {}", show(entry), show(other));
                complain(Invariant::StateMachineSafety, both);
            }
            if known.is_none() && !safe(entry) {
                let what = format!("node {node} takes {} for committed", show(entry));
                complain(Invariant::CommittedOnQuorum, format!("{what}; it isn't on the disks of a majority"));
            }
            let newest = self.newest.entry(group).or_insert(entry);
            *newest = entry.max(*newest);
        }
        if let Some(index) = counts.applied_index {
            let known = *self.counted.entry((group, index)).or_insert(counts);
            if known != counts {
                let both = format!("after entry {index} node {node} counts {counts:?}, another replica {known:?}");
                complain(Invariant::StateMachineSafety, both);
            }
        }
        let index = |id: Option<EntryId>| id.map(|id| id.index);
        let order = [index(purged), index(snapshot), index(applied), index(committed), last_index];
        if !order.is_sorted() {
            let marks = format!("purged, snapshot, applied, committed, last of node {node} are {order:?}");
            complain(Invariant::OrderOfMarks, marks);
        }
        for (invariant, how) in complaints {
            let sentence = format!("{now_ms} ms, group {group}, {invariant:?}: {how}");
            self.broken.entry((group, invariant)).or_insert(sentence);
        }
    }
}

fn show(entry: EntryId) -> String {
    format!("entry {} of term {}", entry.index, entry.term)
}

#[cfg(test)]
mod tests {
    use quorate_model::Offset;

    use super::*;

    const GROUP: GroupId = GroupId::new(1);

    fn entry(term: u64, index: u64) -> Option<EntryId> {
        Some(EntryId { term, index })
    }

    fn follower(term: u64, committed: Option<EntryId>) -> Marks {
        let last_index = committed.map(|id| id.index);
        let counts =
            Counts { applied_index: last_index, end: Offset::ZERO, bytes: 0, appended_bytes: 0, open_since_ms: None };
        Marks { term, leads: false, last_index, committed, applied: committed, snapshot: None, purged: None, counts }
    }

    fn broken(seen: &[(u64, Marks)], safe: bool) -> Vec<Invariant> {
        let mut invariants = Invariants::default();
        for (node, marks) in seen {
            invariants.judge(0, *node, GROUP, marks, |_| safe);
        }
        invariants.broken.into_keys().map(|(_, invariant)| invariant).collect()
    }

    #[test]
    fn one_leader_a_term() {
        let leader = |term| Marks { leads: true, ..follower(term, None) };
        assert_eq!(broken(&[(1, leader(1)), (2, leader(2)), (1, leader(3))], true), []);
        assert_eq!(broken(&[(1, leader(1)), (2, leader(1))], true), [Invariant::ElectionSafety]);
    }

    #[test]
    fn a_leader_has_all_that_was_committed_before_its_term() {
        let leader = |term, last| Marks { leads: true, last_index: Some(last), ..follower(term, entry(1, 3)) };
        assert_eq!(broken(&[(1, follower(1, entry(1, 4))), (2, leader(2, 4))], true), []);
        assert_eq!(broken(&[(1, follower(1, entry(1, 4))), (2, leader(2, 3))], true), [Invariant::LeaderCompleteness]);
        assert_eq!(broken(&[(1, follower(2, entry(2, 4))), (2, leader(1, 3))], true), [], "it doesn't know yet");
    }

    #[test]
    fn what_was_settled_stays_and_is_on_a_majority() {
        let one = (1, follower(1, entry(1, 4)));
        assert_eq!(broken(&[one, (2, follower(2, entry(1, 4)))], true), []);
        assert_eq!(broken(&[one, (2, follower(2, entry(2, 4)))], true), [Invariant::StateMachineSafety]);
        assert_eq!(broken(&[one], false), [Invariant::CommittedOnQuorum]);
    }

    #[test]
    fn equal_entries_make_equal_states() {
        let one = follower(1, entry(1, 4));
        let other = Marks { counts: Counts { end: Offset::new(7), ..one.counts }, ..one };
        assert_eq!(broken(&[(1, one), (2, other)], true), [Invariant::StateMachineSafety]);
    }

    #[test]
    fn nothing_is_applied_before_it_is_committed() {
        let ahead = Marks { applied: entry(1, 5), ..follower(1, entry(1, 4)) };
        assert_eq!(broken(&[(1, ahead)], true), [Invariant::OrderOfMarks]);
    }
}

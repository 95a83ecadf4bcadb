//! Groups that were deleted. A node may remove a group's data only if the group is here, never because
//! the map doesn't mention it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::GroupId;

/// A set of deleted groups, kept as runs of neighbours.
///
/// Group ids are given out in sequence and a topic's groups are neighbours, so there is at most one run
/// more than there are topics, however many topics were ever deleted: the set is bounded without
/// forgetting anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstones {
    /// First group of each run → the group after its last.
    runs: BTreeMap<GroupId, GroupId>,
}

impl Tombstones {
    /// Whether the group was deleted.
    pub fn contains(&self, group: &GroupId) -> bool {
        self.runs.range(..=group).next_back().is_some_and(|(_, end)| group < end)
    }

    /// All deleted groups, in order.
    pub fn iter(&self) -> impl Iterator<Item = GroupId> {
        self.runs.iter().flat_map(|(first, end)| (first.get()..end.get()).map(GroupId::new))
    }

    /// Whether nothing was ever deleted.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Buries a group.
    pub(super) fn insert(&mut self, group: GroupId) {
        if self.contains(&group) {
            return;
        }
        let after = GroupId::new(group.get() + 1);
        let end = self.runs.remove(&after).unwrap_or(after);
        match self.runs.range_mut(..group).next_back() {
            Some((_, previous_end)) if *previous_end == group => *previous_end = end,
            _ => {
                self.runs.insert(group, end);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Tombstones;
    use crate::ids::GroupId;
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    proptest! {
        #[test]
        fn runs_behave_like_a_plain_set(groups in proptest::collection::vec(0u64..40, 0..60)) {
            let mut runs = Tombstones::default();
            let mut plain = BTreeSet::new();
            for group in groups.into_iter().map(GroupId::new) {
                runs.insert(group);
                plain.insert(group);
                prop_assert!(runs.iter().eq(plain.iter().copied()));
            }
            for group in (0..42).map(GroupId::new) {
                prop_assert_eq!(runs.contains(&group), plain.contains(&group));
            }
            // No two runs touch, so there are as few as can be.
            let ends: Vec<_> = runs.runs.values().collect();
            prop_assert!(ends.iter().all(|end| !runs.runs.contains_key(end)));
        }
    }
}

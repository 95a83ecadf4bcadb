//! The hash ring: many points per node on a circle of 64-bit numbers. A key belongs to the nodes that
//! follow it on the circle, so that a node that joins or leaves moves only its own share of the keys.

use std::collections::BTreeSet;

use xxhash_rust::xxh3::xxh3_64;

use crate::ids::{NodeId, PartitionId};
use crate::limits::RING_POINTS_PER_NODE;

/// Nodes on a circle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashRing {
    /// Sorted by position; equal positions by node.
    points: Vec<(u64, NodeId)>,
    nodes: usize,
}

impl HashRing {
    /// A ring of these nodes, each once.
    pub fn new(nodes: impl IntoIterator<Item = NodeId>) -> Self {
        let mut points = Vec::new();
        let mut count = 0;
        for node in nodes {
            count += 1;
            for point in 0..RING_POINTS_PER_NODE {
                points.push((point_position(node, point), node));
            }
        }
        points.sort_unstable();
        Self { points, nodes: count }
    }

    /// The nodes in the order in which the circle meets them from the key on, each once.
    pub fn walk(&self, key: u64) -> impl Iterator<Item = NodeId> {
        let start = self.points.partition_point(|(position, _)| *position < key);
        let (before, after) = self.points.split_at(start);
        let mut met = BTreeSet::new();
        after.iter().chain(before).map(|(_, node)| *node).filter(move |node| met.insert(*node)).take(self.nodes)
    }
}

/// Where a partition stands on the circle.
pub(super) fn partition_position(partition: PartitionId) -> u64 {
    position(b'p', partition.topic.get(), partition.index)
}

fn point_position(node: NodeId, point: u32) -> u64 {
    position(b'n', node.get(), point)
}

/// The kind keeps a partition from standing exactly on the point of a node with the same numbers.
fn position(kind: u8, major: u64, minor: u32) -> u64 {
    let mut key = [kind; 13];
    key[1..9].copy_from_slice(&major.to_le_bytes());
    key[9..].copy_from_slice(&minor.to_le_bytes());
    xxh3_64(&key)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::{HashRing, partition_position, point_position};
    use crate::ids::{NodeId, PartitionId, TopicId};
    use proptest::prelude::{any, prop_assert_eq, proptest};

    fn nodes(numbers: impl IntoIterator<Item = u64>) -> Vec<NodeId> {
        numbers.into_iter().map(NodeId::new).collect()
    }

    /// The order of the nodes by how far the circle runs from the key to each node's nearest point.
    fn naive_walk(nodes: &[NodeId], key: u64) -> Vec<NodeId> {
        let distance = |node: NodeId| {
            (0..super::RING_POINTS_PER_NODE).map(|point| point_position(node, point).wrapping_sub(key)).min()
        };
        let mut order = nodes.to_vec();
        order.sort_by_key(|node| (distance(*node), *node));
        order
    }

    proptest! {
        #[test]
        fn a_walk_meets_every_node_once_nearest_first(
            numbers in proptest::collection::btree_set(1u64..500, 1..9),
            key in any::<u64>(),
        ) {
            let nodes = nodes(numbers);
            let ring = HashRing::new(nodes.iter().copied());
            prop_assert_eq!(ring.walk(key).collect::<Vec<_>>(), naive_walk(&nodes, key));
        }

        #[test]
        fn a_node_that_leaves_moves_nothing_but_its_own_share(
            numbers in proptest::collection::btree_set(1u64..500, 2..9),
            leaver in any::<proptest::sample::Index>(),
            key in any::<u64>(),
        ) {
            let all = nodes(numbers);
            let leaver = all[leaver.index(all.len())];
            let others = || all.iter().copied().filter(|node| *node != leaver);
            let before: Vec<_> = HashRing::new(all.iter().copied())
                .walk(key)
                .filter(|node| *node != leaver)
                .collect();
            let after: Vec<_> = HashRing::new(others()).walk(key).collect();
            prop_assert_eq!(before, after);
        }
    }

    #[test]
    fn an_empty_ring_leads_nowhere() {
        assert_eq!(HashRing::new([]).walk(7).count(), 0);
    }

    #[test]
    fn every_node_gets_about_the_same_share_of_the_keys() {
        let ring = HashRing::new(nodes(1..=5));
        let mut firsts: BTreeMap<NodeId, u32> = BTreeMap::new();
        for index in 0..10_000 {
            let key = partition_position(PartitionId::new(TopicId::new(1), index));
            *firsts.entry(ring.walk(key).next().expect("five nodes")).or_default() += 1;
        }
        assert_eq!(firsts.len(), 5);
        assert!(firsts.values().all(|count| (1_500..2_500).contains(count)), "{firsts:?}");
    }

    #[test]
    fn places_on_the_circle_are_fixed_and_distinct() {
        assert_eq!(point_position(NodeId::new(1), 0), 5_973_430_722_714_807_653);
        assert_eq!(partition_position(PartitionId::new(TopicId::new(1), 0)), 16_852_647_262_879_191_711);
        let places: BTreeSet<u64> =
            (1..=100).flat_map(|node| (0..128).map(move |point| point_position(NodeId::new(node), point))).collect();
        assert_eq!(places.len(), 12_800);
    }
}

//! Where the replicas of a new topic go.
//!
//! The ring proposes: from the partition's place on, it names nodes in order. A node whose share is full
//! is passed over ("Consistent Hashing with Bounded Loads", Mirrokni, Thorup, Zadimoghaddam, 2018), so
//! that no node holds much more than the mean. Two shares bound each node: of this topic, because its
//! throughput is what the placement is for, and of all replicas in the cluster. The result is stored as
//! it is: changing this algorithm later moves nothing that is placed.
//!
//! The proposal depends on nothing but the replicated state, so every replica of the metadata group
//! computes the same one.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ids::{NodeId, PartitionId, TopicId};
use crate::limits::PLACEMENT_SLACK_PERCENT;
use crate::meta::ring::partition_position;
use crate::meta::{HashRing, NodeInfo, TopicState};
use crate::names::TopicName;

/// What a node carries.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    cluster_replicas: u64,
    cluster_leaders: u64,
    topic_replicas: u64,
    topic_leaders: u64,
}

/// The nodes of each partition's replicas, the preferred leader first.
pub(super) fn place(
    nodes: &BTreeMap<NodeId, NodeInfo>,
    topics: &BTreeMap<TopicName, Arc<TopicState>>,
    topic: TopicId,
    partitions: u32,
    replication_factor: u32,
) -> Vec<Vec<NodeId>> {
    assert!(replication_factor as usize <= nodes.len(), "checked before");
    let ring = HashRing::new(nodes.keys().copied());
    let mut loads = current_loads(nodes, topics);
    let new_replicas = u64::from(partitions) * u64::from(replication_factor);
    let all_replicas = new_replicas + loads.values().map(|l| l.cluster_replicas).sum::<u64>();
    let topic_share = share(new_replicas, nodes.len());
    let cluster_share = share(all_replicas, nodes.len());
    let has_room = |load: &Load| load.topic_replicas < topic_share && load.cluster_replicas < cluster_share;

    let mut placed = Vec::with_capacity(partitions as usize);
    for index in 0..partitions {
        let proposed: Vec<NodeId> = ring.walk(partition_position(PartitionId::new(topic, index))).collect();
        // Nodes with room come first and keep the ring's order. Where too few have room (few nodes, or a
        // node so new that all others are above the mean), the least loaded of the others follow.
        let mut ranked: Vec<(u64, u64, usize)> = proposed
            .iter()
            .enumerate()
            .map(|(rank, node)| match &loads[node] {
                load if has_room(load) => (0, 0, rank),
                load => (1 + load.topic_replicas, load.cluster_replicas, rank),
            })
            .collect();
        ranked.sort_unstable();
        let mut chosen: Vec<NodeId> =
            ranked.iter().take(replication_factor as usize).map(|(_, _, rank)| proposed[*rank]).collect();
        put_leader_first(&mut chosen, &loads);
        record(&mut loads, &chosen);
        placed.push(chosen);
    }
    even_out_leaders(&mut placed, &mut loads);
    placed
}

fn current_loads(
    nodes: &BTreeMap<NodeId, NodeInfo>,
    topics: &BTreeMap<TopicName, Arc<TopicState>>,
) -> BTreeMap<NodeId, Load> {
    let mut loads: BTreeMap<NodeId, Load> = nodes.keys().map(|node| (*node, Load::default())).collect();
    for partition in topics.values().flat_map(|topic| &topic.partitions) {
        for (rank, replica) in partition.replicas.iter().enumerate() {
            if let Some(load) = loads.get_mut(&replica.node) {
                load.cluster_replicas += 1;
                load.cluster_leaders += u64::from(rank == 0);
            }
        }
    }
    loads
}

/// The mean with the slack on top, rounded up.
fn share(replicas: u64, nodes: usize) -> u64 {
    (replicas * (100 + PLACEMENT_SLACK_PERCENT)).div_ceil(100 * nodes as u64)
}

/// The chosen node that leads least, of this topic and then of all, becomes the preferred leader.
fn put_leader_first(chosen: &mut [NodeId], loads: &BTreeMap<NodeId, Load>) {
    let leader = (0..chosen.len()).min_by_key(|rank| {
        let load = &loads[&chosen[*rank]];
        (load.topic_leaders, load.cluster_leaders, *rank)
    });
    if let Some(leader) = leader {
        chosen[..=leader].rotate_right(1);
    }
}

/// One partition after another can't foresee who will have little to choose from later. So leadership then
/// moves to another replica of the same partition wherever that one leads fewer partitions by two or more.
///
/// It ends, because each move brings two numbers with the same sum closer together.
fn even_out_leaders(placed: &mut [Vec<NodeId>], loads: &mut BTreeMap<NodeId, Load>) {
    let mut moved = true;
    while moved {
        moved = false;
        for chosen in placed.iter_mut() {
            let leads = |rank: usize| loads[&chosen[rank]].topic_leaders;
            let Some(heir) = (1..chosen.len()).min_by_key(|rank| leads(*rank)) else {
                continue;
            };
            if leads(heir) + 2 > leads(0) {
                continue;
            }
            move_leadership(loads, chosen[0], chosen[heir]);
            chosen[..=heir].rotate_right(1);
            moved = true;
        }
    }
}

fn move_leadership(loads: &mut BTreeMap<NodeId, Load>, from: NodeId, to: NodeId) {
    let giver = loads.get_mut(&from).expect("a chosen node has a load");
    giver.topic_leaders -= 1;
    giver.cluster_leaders -= 1;
    let taker = loads.get_mut(&to).expect("a chosen node has a load");
    taker.topic_leaders += 1;
    taker.cluster_leaders += 1;
}

fn record(loads: &mut BTreeMap<NodeId, Load>, chosen: &[NodeId]) {
    for (rank, node) in chosen.iter().enumerate() {
        let load = loads.get_mut(node).expect("a chosen node has a load");
        load.cluster_replicas += 1;
        load.topic_replicas += 1;
        load.cluster_leaders += u64::from(rank == 0);
        load.topic_leaders += u64::from(rank == 0);
    }
}

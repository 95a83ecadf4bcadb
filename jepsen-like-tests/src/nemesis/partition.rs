//! The network is cut: one node from the others, with or without its clients, or all nodes from each other.

use fastrand::Rng;

use super::{Begun, Fault, all_but, any_node};
use crate::world::sim::{NODES, SimWorld};

struct Partition {
    nodes: Vec<u64>,
    dropped_before: u64,
}

pub(super) fn begin(world: &mut SimWorld, rng: &mut Rng) -> Begun {
    let (dropped_before, _) = world.packets_stopped();
    let node = any_node(rng);
    let (nodes, detail) = match rng.u8(..5) {
        0 => (NODES.to_vec(), "all nodes cut from each other".to_owned()),
        1 | 2 => {
            world.cut_from_clients(node);
            (vec![node], format!("node {node} cut from the others and from clients"))
        }
        _ => (vec![node], format!("node {node} cut from the others")),
    };
    for node in &nodes {
        all_but(*node).for_each(|other| world.cut(*node, other));
    }
    (Box::new(Partition { nodes, dropped_before }), detail)
}

impl Fault for Partition {
    fn end(&mut self, world: &mut SimWorld) -> bool {
        let (dropped, _) = world.packets_stopped();
        let were_up = self.nodes.iter().all(|node| world.is_running(*node));
        for node in &self.nodes {
            world.mend(*node);
        }
        were_up && dropped > self.dropped_before
    }
}

//! The network is cut: a node or a minority from the others, with or without its clients; all nodes from each other; or
//! so that one node alone still reaches both sides.

use fastrand::Rng;

use super::{Begun, all_but, any_node};
use crate::nemesis::Fault;
use crate::world::sim::SimWorld;

struct Partition {
    nodes: Vec<u64>,
    dropped_before: u64,
}

pub(super) fn begin(world: &mut SimWorld, rng: &mut Rng) -> Result<Begun, String> {
    let (dropped_before, _) = world.packets_stopped();
    let node = any_node(world, rng);
    let mut others = all_but(world, node);
    rng.shuffle(&mut others);
    let (nodes, detail) = match rng.u8(..6) {
        0 => {
            let nodes = world.nodes().to_vec();
            nodes.iter().for_each(|node| all_but(world, *node).into_iter().for_each(|other| world.cut(*node, other)));
            (nodes, "all nodes cut from each other".to_owned())
        }
        1 => {
            let (left, right) = others.split_at(others.len() / 2);
            cut_apart(world, left, right);
            (others.clone(), format!("nodes {left:?} and {right:?} cut apart, and node {node} between them"))
        }
        2 | 3 => {
            world.cut_from_clients(node);
            cut_apart(world, &[node], &others);
            (vec![node], format!("node {node} cut from the others and from clients"))
        }
        _ => {
            // With three nodes that is one.
            others.truncate(others.len() / 2 - 1);
            others.push(node);
            let rest: Vec<u64> = world.nodes().iter().copied().filter(|node| !others.contains(node)).collect();
            cut_apart(world, &others, &rest);
            (others.clone(), format!("nodes {others:?} cut from the others"))
        }
    };
    Ok((Box::new(Partition { nodes, dropped_before }), detail))
}

fn cut_apart(world: &mut SimWorld, left: &[u64], right: &[u64]) {
    for a in left {
        right.iter().for_each(|b| world.cut(*a, *b));
    }
}

impl Fault<SimWorld> for Partition {
    fn end(&mut self, world: &mut SimWorld) -> Result<bool, String> {
        let (dropped, _) = world.packets_stopped();
        let were_up = self.nodes.iter().all(|node| world.is_running(*node));
        for node in &self.nodes {
            world.mend(*node);
        }
        Ok(were_up && dropped > self.dropped_before)
    }
}

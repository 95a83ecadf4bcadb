//! The network is cut, in one of the shapes in which networks break. Packets vanish, and nobody is told.

use fastrand::Rng;

use super::{Begun, any_minority, any_node, both_ways, others};
use crate::nemesis::Fault;
use crate::world::real::{CLIENTS, RealWorld, Treatment, Way};

/// Ways that are cut until the end of the fault.
struct Cut {
    ways: Vec<Way>,
    dropped_before: u64,
    dropped: u64,
}

/// Cuts ways.
fn cut(world: &RealWorld, ways: Vec<Way>) -> Result<Cut, String> {
    let dropped_before = world.dropped(Treatment::Cut)?;
    world.treat(Treatment::Cut, &ways)?;
    Ok(Cut { ways, dropped_before, dropped: 0 })
}

pub(super) fn begin(world: &mut RealWorld, rng: &mut Rng) -> Result<Begun, String> {
    let (ways, detail) = shape(world, rng);
    let cut = cut(world, ways)?;
    Ok((Box::new(cut), detail))
}

/// What is cut.
fn shape(world: &RealWorld, rng: &mut Rng) -> (Vec<Way>, String) {
    let node = any_node(world, rng);
    let mut rest = others(world, node);
    rng.shuffle(&mut rest);
    match rng.u8(..6) {
        0 => (all_apart(world), "all nodes cut from each other".to_owned()),
        1 => {
            let (left, right) = rest.split_at(rest.len() / 2);
            (both_ways(left, right), format!("nodes {left:?} and {right:?} cut apart, and node {node} between them"))
        }
        2 => (around(world, &[node]), format!("node {node} cut from the others and from clients")),
        3 => (both_ways(&[node], &rest), format!("node {node} cut from the others, not from clients")),
        4 => {
            let ring = [&rest[..], &[node]].concat();
            (in_a_ring(&ring), format!("nodes {ring:?} see their neighbours alone, in a ring or a row"))
        }
        _ => {
            let minority = any_minority(world, rng);
            let majority: Vec<u64> = world.nodes().into_iter().filter(|node| !minority.contains(node)).collect();
            let (with_clients, without) = if rng.bool() { (&majority, &minority) } else { (&minority, &majority) };
            (around(world, without), format!("nodes {without:?} cut from {with_clients:?} and from clients"))
        }
    }
}

/// Cuts nodes from all others and from clients.
pub(super) fn begin_isolated(world: &RealWorld, nodes: &[u64]) -> Result<Begun, String> {
    let cut = cut(world, around(world, nodes))?;
    Ok((Box::new(cut), format!("nodes {nodes:?} cut from the others and from clients")))
}

fn around(world: &RealWorld, nodes: &[u64]) -> Vec<Way> {
    let rest = world.nodes().into_iter().filter(|node| !nodes.contains(node));
    both_ways(nodes, &rest.chain([CLIENTS]).collect::<Vec<u64>>())
}

fn all_apart(world: &RealWorld) -> Vec<Way> {
    let nodes = world.nodes();
    let ways = nodes.iter().flat_map(|a| nodes.iter().map(|b| (*a, *b)));
    ways.filter(|(a, b)| a != b).collect()
}

/// Each of five has a majority with its two neighbours, and no two have the same. Of three, the first and last are apart.
fn in_a_ring(ring: &[u64]) -> Vec<Way> {
    let mut ways = Vec::new();
    for (at, node) in ring.iter().enumerate() {
        for (other_at, other) in ring.iter().enumerate() {
            let distance = at.abs_diff(other_at);
            let is_ring = ring.len() > 3;
            if distance > 1 && !(is_ring && distance == ring.len() - 1) {
                ways.push((*node, *other));
            }
        }
    }
    ways
}

/// Clients alone are cut off: from one node, or from all but one.
pub(super) fn begin_clients(world: &mut RealWorld, rng: &mut Rng) -> Result<Begun, String> {
    let node = any_node(world, rng);
    let nodes = match rng.u8(..3) {
        0 => world.nodes(),
        1 => others(world, node),
        _ => vec![node],
    };
    let cut = cut(world, both_ways(&nodes, &[CLIENTS]))?;
    Ok((Box::new(cut), format!("clients cut from nodes {nodes:?}")))
}

/// What a node says arrives, and what it is told doesn't, or the other way round.
pub(super) fn begin_one_way(world: &mut RealWorld, rng: &mut Rng) -> Result<Begun, String> {
    let node = any_node(world, rng);
    let rest = others(world, node);
    let (ways, direction) = match rng.bool() {
        true => (rest.iter().map(|other| (node, *other)).collect(), "from"),
        false => (rest.iter().map(|other| (*other, node)).collect::<Vec<Way>>(), "to"),
    };
    let cut = cut(world, ways)?;
    Ok((Box::new(cut), format!("packets {direction} node {node} dropped, between nodes")))
}

impl Fault<RealWorld> for Cut {
    fn end(&mut self, world: &mut RealWorld) -> Result<bool, String> {
        world.leave_alone(Treatment::Cut, &self.ways)?;
        self.dropped = world.dropped(Treatment::Cut)? - self.dropped_before;
        // The other nemesis may have ended some of them meanwhile.
        let is_up = |party: u64| party == CLIENTS || world.is_running(party);
        Ok(self.dropped > 0 && self.ways.iter().any(|(from, to)| is_up(*from) && is_up(*to)))
    }

    fn outcome(&self) -> String {
        format!("{} packets dropped", self.dropped)
    }
}

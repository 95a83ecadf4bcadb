//! Packets get lost here and there, between nodes and to and from clients.

use fastrand::Rng;

use super::{Begun, any_node, both_ways, others};
use crate::nemesis::Fault;
use crate::world::real::{CLIENTS, RealWorld, Treatment, Way};

struct Loss {
    ways: Vec<Way>,
    dropped_before: u64,
    dropped: u64,
}

pub(super) fn begin(world: &mut RealWorld, rng: &mut Rng) -> Result<Begun, String> {
    let dropped_before = world.dropped(Treatment::Lossy)?;
    let percent = rng.u8(1..=30);
    let node = any_node(world, rng);
    let all: Vec<u64> = others(world, node).into_iter().chain([CLIENTS]).collect();
    let ways = both_ways(&[node], &all);
    world.lose(percent)?;
    world.treat(Treatment::Lossy, &ways)?;
    let detail = format!("{percent} % of the packets from and to node {node} dropped");
    Ok((Box::new(Loss { ways, dropped_before, dropped: 0 }), detail))
}

impl Fault<RealWorld> for Loss {
    fn end(&mut self, world: &mut RealWorld) -> Result<bool, String> {
        world.leave_alone(Treatment::Lossy, &self.ways)?;
        self.dropped = world.dropped(Treatment::Lossy)? - self.dropped_before;
        Ok(self.dropped > 0)
    }

    fn outcome(&self) -> String {
        format!("{} packets dropped", self.dropped)
    }
}

//! A node is told to stop, finishes what is under way, hands its leaderships over, ends, and is started again at once: a
//! step of a rolling upgrade.

use fastrand::Rng;

use super::{Begun, any_node};
use crate::nemesis::Fault;
use crate::world::sim::SimWorld;

/// Longest time to stop: draining, handing over and ending have their bounds, and this is above their sum.
pub(super) const LONGEST_MS: u64 = 20_000;

struct Restart {
    node: u64,
}

pub(super) fn begin(world: &mut SimWorld, rng: &mut Rng) -> Result<Begun, String> {
    let node = any_node(world, rng);
    world.ask_to_stop(node);
    Ok((Box::new(Restart { node }), format!("node {node} told to stop")))
}

impl Fault<SimWorld> for Restart {
    fn end(&mut self, world: &mut SimWorld) -> Result<bool, String> {
        let has_stopped = world.has_stopped(self.node);
        world.kill(self.node);
        world.start(self.node);
        Ok(has_stopped && world.is_running(self.node))
    }

    fn go_on(&mut self, world: &mut SimWorld) -> Result<bool, String> {
        Ok(world.has_stopped(self.node))
    }
}

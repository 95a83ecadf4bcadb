//! A node is told to stop, finishes what is under way, hands its leaderships over, ends, and is started again at once: a
//! step of a rolling upgrade.

use fastrand::Rng;

use super::{Begun, Fault, any_node};
use crate::world::sim::SimWorld;

/// Longest time to stop: draining, handing over and ending have their bounds, and this is above their sum.
pub(super) const LONGEST_MS: u64 = 20_000;

struct Restart {
    node: u64,
}

pub(super) fn begin(world: &mut SimWorld, rng: &mut Rng) -> Begun {
    let node = any_node(rng);
    world.ask_to_stop(node);
    (Box::new(Restart { node }), format!("node {node} told to stop"))
}

impl Fault for Restart {
    fn end(&mut self, world: &mut SimWorld) -> bool {
        let has_stopped = world.has_stopped(self.node);
        world.kill(self.node);
        world.start(self.node);
        has_stopped && world.is_running(self.node)
    }

    fn is_over(&self, world: &SimWorld) -> bool {
        world.has_stopped(self.node)
    }
}

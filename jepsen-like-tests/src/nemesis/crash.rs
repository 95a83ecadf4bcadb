//! A node's process is killed, and started again later. The operating system closes its connections and keeps its writes.

use fastrand::Rng;

use super::{Begun, Fault, any_node};
use crate::world::sim::SimWorld;

struct Crash {
    node: u64,
}

pub(super) fn begin(world: &mut SimWorld, rng: &mut Rng) -> Begun {
    let node = any_node(rng);
    world.kill(node);
    (Box::new(Crash { node }), format!("node {node} killed"))
}

impl Fault for Crash {
    fn end(&mut self, world: &mut SimWorld) -> bool {
        let was_down = !world.is_running(self.node);
        world.start(self.node);
        was_down && world.is_running(self.node)
    }
}

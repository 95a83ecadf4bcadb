//! A node's process is killed, and started again later. The operating system closes its connections and keeps its writes.

use fastrand::Rng;

use super::{Begun, any_node};
use crate::nemesis::Fault;
use crate::world::sim::SimWorld;

struct Crash {
    node: u64,
}

pub(super) fn begin(world: &mut SimWorld, rng: &mut Rng) -> Result<Begun, String> {
    let node = any_node(world, rng);
    world.kill(node);
    Ok((Box::new(Crash { node }), format!("node {node} killed")))
}

impl Fault<SimWorld> for Crash {
    fn end(&mut self, world: &mut SimWorld) -> Result<bool, String> {
        let was_down = !world.is_running(self.node);
        world.start(self.node);
        Ok(was_down && world.is_running(self.node))
    }
}

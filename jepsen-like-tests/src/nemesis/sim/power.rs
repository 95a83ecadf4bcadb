//! A machine loses its power: no connection is closed, nobody is told, and writes that were not synced may be gone.

use fastrand::Rng;

use super::{Begun, any_node};
use crate::nemesis::Fault;
use crate::world::sim::SimWorld;

struct PowerLoss {
    node: u64,
}

pub(super) fn begin(world: &mut SimWorld, rng: &mut Rng) -> Result<Begun, String> {
    let node = any_node(world, rng);
    let lost = world.take_power(node);
    Ok((Box::new(PowerLoss { node }), format!("node {node} lost its power and {lost} commits")))
}

impl Fault<SimWorld> for PowerLoss {
    fn end(&mut self, world: &mut SimWorld) -> Result<bool, String> {
        let was_down = !world.is_running(self.node);
        world.start(self.node);
        Ok(was_down && world.is_running(self.node))
    }
}

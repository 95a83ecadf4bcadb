//! A machine loses its power: no connection is closed, nobody is told, and writes that were not synced may be gone.

use fastrand::Rng;

use super::{Begun, Fault, any_node};
use crate::world::sim::SimWorld;

struct PowerLoss {
    node: u64,
}

pub(super) fn begin(world: &mut SimWorld, rng: &mut Rng) -> Begun {
    let node = any_node(rng);
    let lost = world.take_power(node);
    (Box::new(PowerLoss { node }), format!("node {node} lost its power and {lost} commits"))
}

impl Fault for PowerLoss {
    fn end(&mut self, world: &mut SimWorld) -> bool {
        let was_down = !world.is_running(self.node);
        world.start(self.node);
        was_down && world.is_running(self.node)
    }
}

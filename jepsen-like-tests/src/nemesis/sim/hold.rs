//! Packets between two nodes are kept back and arrive late, all at once; on connections that were given up meanwhile too.

use fastrand::Rng;

use super::{Begun, all_but, any, any_node};
use crate::nemesis::Fault;
use crate::world::sim::SimWorld;

struct Hold {
    a: u64,
    b: u64,
    held_before: u64,
}

pub(super) fn begin(world: &mut SimWorld, rng: &mut Rng) -> Result<Begun, String> {
    let (_, held_before) = world.packets_stopped();
    let a = any_node(world, rng);
    let b = any(&all_but(world, a), rng);
    world.hold(a, b);
    Ok((Box::new(Hold { a, b, held_before }), format!("packets between nodes {a} and {b} kept back")))
}

impl Fault<SimWorld> for Hold {
    fn end(&mut self, world: &mut SimWorld) -> Result<bool, String> {
        let (_, held) = world.packets_stopped();
        world.release(self.a, self.b);
        Ok(world.is_running(self.a) && world.is_running(self.b) && held > self.held_before)
    }
}

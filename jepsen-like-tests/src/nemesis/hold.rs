//! Packets between two nodes are kept back and arrive late, all at once; on connections that were given up meanwhile too.

use fastrand::Rng;

use super::{Begun, Fault, all_but, any_node};
use crate::world::sim::SimWorld;

struct Hold {
    a: u64,
    b: u64,
    held_before: u64,
}

pub(super) fn begin(world: &mut SimWorld, rng: &mut Rng) -> Begun {
    let (_, held_before) = world.packets_stopped();
    let a = any_node(rng);
    let others: Vec<u64> = all_but(a).collect();
    let b = others[rng.usize(..others.len())];
    world.hold(a, b);
    (Box::new(Hold { a, b, held_before }), format!("packets between nodes {a} and {b} kept back"))
}

impl Fault for Hold {
    fn end(&mut self, world: &mut SimWorld) -> bool {
        let (_, held) = world.packets_stopped();
        world.release(self.a, self.b);
        world.is_running(self.a) && world.is_running(self.b) && held > self.held_before
    }
}

//! Packets pass in one direction only: a node hears the others and isn't heard, or is heard and doesn't hear.

use fastrand::Rng;

use super::{Begun, Fault, all_but, any_node};
use crate::world::sim::SimWorld;

struct OneWay {
    node: u64,
    dropped_before: u64,
}

pub(super) fn begin(world: &mut SimWorld, rng: &mut Rng) -> Begun {
    let (dropped_before, _) = world.packets_stopped();
    let node = any_node(rng);
    let detail = if rng.bool() {
        all_but(node).for_each(|other| world.cut_one_way(node, other));
        format!("node {node} isn't heard by the others")
    } else {
        all_but(node).for_each(|other| world.cut_one_way(other, node));
        format!("node {node} doesn't hear the others")
    };
    (Box::new(OneWay { node, dropped_before }), detail)
}

impl Fault for OneWay {
    fn end(&mut self, world: &mut SimWorld) -> bool {
        let (dropped, _) = world.packets_stopped();
        world.mend(self.node);
        world.is_running(self.node) && dropped > self.dropped_before
    }
}

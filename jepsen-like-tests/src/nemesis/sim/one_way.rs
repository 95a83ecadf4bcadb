//! Packets pass in one direction only: a node hears the others and isn't heard, or is heard and doesn't hear.

use fastrand::Rng;

use super::{Begun, all_but, any_node};
use crate::nemesis::Fault;
use crate::world::sim::SimWorld;

struct OneWay {
    node: u64,
    dropped_before: u64,
}

pub(super) fn begin(world: &mut SimWorld, rng: &mut Rng) -> Result<Begun, String> {
    let (dropped_before, _) = world.packets_stopped();
    let node = any_node(world, rng);
    let detail = if rng.bool() {
        all_but(world, node).into_iter().for_each(|other| world.cut_one_way(node, other));
        format!("node {node} isn't heard by the others")
    } else {
        all_but(world, node).into_iter().for_each(|other| world.cut_one_way(other, node));
        format!("node {node} doesn't hear the others")
    };
    Ok((Box::new(OneWay { node, dropped_before }), detail))
}

impl Fault<SimWorld> for OneWay {
    fn end(&mut self, world: &mut SimWorld) -> Result<bool, String> {
        let (dropped, _) = world.packets_stopped();
        world.mend(self.node);
        Ok(world.is_running(self.node) && dropped > self.dropped_before)
    }
}

//! A disk is full. The node must say so and stop, and be as it was once there is room again.

use fastrand::Rng;

use super::refusal::refusal;
use super::{Begun, any_node};
use crate::nemesis::Fault;
use crate::world::real::RealWorld;

struct FullDisk {
    node: u64,
    outcome: String,
}

pub(super) fn begin(world: &mut RealWorld, rng: &mut Rng) -> Result<Begun, String> {
    let node = any_node(world, rng);
    world.let_give_up(node, true);
    let room = world.fill_disk(node)?;
    let detail = format!("disk of node {node} filled with {} MiB", room >> 20);
    Ok((Box::new(FullDisk { node, outcome: String::new() }), detail))
}

impl Fault<RealWorld> for FullDisk {
    fn end(&mut self, world: &mut RealWorld) -> Result<bool, String> {
        world.make_room(self.node)?;
        let gave_up = !world.is_running(self.node);
        self.outcome = if gave_up { refusal(world, self.node)? } else { "it needed no room".to_owned() };
        world.let_give_up(self.node, false);
        world.start(self.node)?;
        Ok(gave_up)
    }

    fn outcome(&self) -> String {
        self.outcome.clone()
    }
}

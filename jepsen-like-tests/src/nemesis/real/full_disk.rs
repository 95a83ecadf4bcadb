//! A disk is full. The node must say so and stop, and be as it was once there is room again.

use fastrand::Rng;

use super::refusal::refusal;
use super::{Begun, any_node};
use crate::nemesis::Fault;
use crate::world::World as _;
use crate::world::real::RealWorld;

/// Time between its end and the moment at which there is room again.
const DOWN_MS: u64 = 2_000;

struct FullDisk {
    node: u64,
    /// When it is known to have given up.
    until_ms: Option<u64>,
    outcome: String,
}

pub(super) fn begin(world: &mut RealWorld, rng: &mut Rng) -> Result<Begun, String> {
    let node = any_node(world, rng);
    world.let_give_up(node, true);
    let room = world.fill_disk(node)?;
    let detail = format!("disk of node {node} filled with {} MiB", room >> 20);
    Ok((Box::new(FullDisk { node, until_ms: None, outcome: String::new() }), detail))
}

impl Fault<RealWorld> for FullDisk {
    fn go_on(&mut self, world: &mut RealWorld) -> Result<bool, String> {
        if !world.is_running(self.node) && self.until_ms.is_none() {
            self.until_ms = Some(world.now_ms() + DOWN_MS);
        }
        Ok(self.until_ms.is_some_and(|until_ms| world.now_ms() >= until_ms))
    }

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

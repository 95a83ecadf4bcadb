//! A process stands still with its connections open, shorter or longer than it takes to be suspected, and then goes on as
//! if nothing had been: it may still hold itself for the leader.

use fastrand::Rng;
use nix::sys::signal::Signal;

use super::{Begun, any_minority, any_node};
use crate::nemesis::Fault;
use crate::world::real::RealWorld;

struct Pause {
    nodes: Vec<u64>,
}

pub(super) fn begin_any(world: &mut RealWorld, rng: &mut Rng) -> Result<Begun, String> {
    let nodes = match rng.u8(..4) {
        0 => any_minority(world, rng),
        1 => world.nodes(),
        _ => vec![any_node(world, rng)],
    };
    begin(world, nodes)
}

pub(super) fn begin(world: &mut RealWorld, nodes: Vec<u64>) -> Result<Begun, String> {
    for node in &nodes {
        world.signal(*node, Signal::SIGSTOP)?;
    }
    let detail = format!("nodes {nodes:?} stopped");
    Ok((Box::new(Pause { nodes }), detail))
}

impl Fault<RealWorld> for Pause {
    fn end(&mut self, world: &mut RealWorld) -> Result<bool, String> {
        let stood_still = self.nodes.iter().all(|node| world.is_stopped(*node));
        for node in &self.nodes {
            world.signal(*node, Signal::SIGCONT)?;
        }
        Ok(stood_still)
    }
}

//! A node may have little more memory than it has: its cached files go first, and then it is killed.

use fastrand::Rng;

use super::{Begun, any_node};
use crate::nemesis::Fault;
use crate::world::real::RealWorld;

struct Memory {
    node: u64,
    before: (u64, u64),
    met: u64,
    killed: u64,
}

pub(super) fn begin(world: &mut RealWorld, rng: &mut Rng) -> Result<Begun, String> {
    let node = any_node(world, rng);
    let above_mib = rng.u64(0..=6);
    let before = world.memory_failures(node)?;
    world.let_give_up(node, true);
    world.limit_memory(node, Some(above_mib << 20))?;
    let detail = format!("node {node} may have {above_mib} MiB more than it holds");
    Ok((Box::new(Memory { node, before, met: 0, killed: 0 }), detail))
}

impl Fault<RealWorld> for Memory {
    fn end(&mut self, world: &mut RealWorld) -> Result<bool, String> {
        world.limit_memory(self.node, None)?;
        let (met, killed) = world.memory_failures(self.node)?;
        (self.met, self.killed) = (met - self.before.0, killed - self.before.1);
        if !world.is_running(self.node) && self.killed == 0 {
            return Err(format!("node {} gave up for want of memory:\n{}", self.node, world.said(self.node)));
        }
        world.let_give_up(self.node, false);
        world.start(self.node)?;
        Ok(self.met > 0)
    }

    fn outcome(&self) -> String {
        format!("met its limit {} times, killed {} times", self.met, self.killed)
    }
}

//! A node's disk takes its time for every sync, as one that is shared or worn does. The node is alive all the while.

use fastrand::Rng;

use super::{Begun, any_node};
use crate::nemesis::Fault;
use crate::world::real::RealWorld;

struct SlowDisk {
    node: u64,
    delayed: usize,
}

pub(super) fn begin(world: &mut RealWorld, rng: &mut Rng) -> Result<Begun, String> {
    let node = any_node(world, rng);
    let delay_ms = rng.u64(20..1_500);
    let rules = ["-e", "trace=fsync,fdatasync", "-e"].map(str::to_owned).into_iter();
    let rules: Vec<String> =
        rules.chain([format!("inject=fsync,fdatasync:delay_enter={}", delay_ms * 1_000)]).collect();
    world.inject(node, &rules)?;
    Ok((Box::new(SlowDisk { node, delayed: 0 }), format!("each sync of node {node} takes {delay_ms} ms longer")))
}

impl Fault<RealWorld> for SlowDisk {
    fn end(&mut self, world: &mut RealWorld) -> Result<bool, String> {
        self.delayed = world.injected();
        world.stop_injecting();
        Ok(self.delayed > 0 && world.is_running(self.node))
    }

    fn outcome(&self) -> String {
        format!("{} syncs delayed", self.delayed)
    }
}

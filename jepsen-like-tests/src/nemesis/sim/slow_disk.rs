//! A node's disk takes its time for every sync, as one that is shared or worn does. The node is alive all the while.

use fastrand::Rng;

use super::{Begun, any_node};
use crate::nemesis::Fault;
use crate::world::sim::SimWorld;

struct SlowDisk {
    node: u64,
    syncs_before: u64,
}

pub(super) fn begin(world: &mut SimWorld, rng: &mut Rng) -> Result<Begun, String> {
    let node = any_node(world, rng);
    let sync_ms = rng.u64(50..1_500);
    world.slow_syncs(node, sync_ms);
    let syncs_before = world.syncs(node);
    Ok((Box::new(SlowDisk { node, syncs_before }), format!("each sync of node {node} takes {sync_ms} ms longer")))
}

impl Fault<SimWorld> for SlowDisk {
    fn end(&mut self, world: &mut SimWorld) -> Result<bool, String> {
        world.slow_syncs(self.node, 0);
        Ok(world.syncs(self.node) > self.syncs_before)
    }
}

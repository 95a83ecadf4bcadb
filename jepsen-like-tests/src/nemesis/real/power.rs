//! The power goes: the file system stops at once, without its own journal, the process is killed, and what was not synced
//! is gone. One node, as many as the cluster can do without, or all at the same moment.

use super::Begun;
use crate::nemesis::Fault;
use crate::world::real::RealWorld;

struct PowerCut {
    nodes: Vec<u64>,
    were_up: bool,
    cut_off: usize,
}

pub(super) fn begin(world: &mut RealWorld, nodes: Vec<u64>) -> Result<Begun, String> {
    let were_up = nodes.iter().all(|node| world.is_running(*node));
    world.cut_power(&nodes)?;
    let detail = format!("power of nodes {nodes:?} cut");
    Ok((Box::new(PowerCut { nodes, were_up, cut_off: 0 }), detail))
}

impl Fault<RealWorld> for PowerCut {
    fn end(&mut self, world: &mut RealWorld) -> Result<bool, String> {
        self.cut_off = world.restore_power(&self.nodes)?;
        Ok(self.were_up && self.cut_off == self.nodes.len())
    }

    fn outcome(&self) -> String {
        format!("{} disks came back through their journals", self.cut_off)
    }
}

//! Processes are killed, and started again later: one, as many as the cluster can do without, or all at once.

use super::Begun;
use crate::nemesis::Fault;
use crate::world::real::RealWorld;

struct Kill {
    nodes: Vec<u64>,
    died: usize,
}

pub(super) fn begin(world: &mut RealWorld, nodes: Vec<u64>) -> Result<Begun, String> {
    let mut died = 0;
    for node in &nodes {
        died += usize::from(world.kill(*node)?);
    }
    let detail = format!("nodes {nodes:?} killed");
    Ok((Box::new(Kill { nodes, died }), detail))
}

impl Fault<RealWorld> for Kill {
    fn end(&mut self, world: &mut RealWorld) -> Result<bool, String> {
        self.nodes.iter().try_for_each(|node| world.start(*node))?;
        Ok(self.died == self.nodes.len())
    }
}

//! Processes are killed, and started again later: one, as many as the cluster can do without, or all at once.

use fastrand::Rng;

use super::{Begun, any_minority, any_node};
use crate::nemesis::Fault;
use crate::world::real::RealWorld;

struct Kill {
    nodes: Vec<u64>,
    died: usize,
}

pub(super) fn begin_one(world: &mut RealWorld, rng: &mut Rng) -> Result<Begun, String> {
    let node = any_node(world, rng);
    begin(world, vec![node])
}

pub(super) fn begin_minority(world: &mut RealWorld, rng: &mut Rng) -> Result<Begun, String> {
    let nodes = any_minority(world, rng);
    begin(world, nodes)
}

pub(super) fn begin_all(world: &mut RealWorld, _: &mut Rng) -> Result<Begun, String> {
    let nodes = world.nodes();
    begin(world, nodes)
}

fn begin(world: &mut RealWorld, nodes: Vec<u64>) -> Result<Begun, String> {
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

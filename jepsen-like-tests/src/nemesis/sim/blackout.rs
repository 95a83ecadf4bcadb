//! All machines lose their power at the same moment: what was acknowledged must be on the disks.

use fastrand::Rng;

use super::Begun;
use crate::nemesis::Fault;
use crate::world::sim::SimWorld;

struct Blackout;

pub(super) fn begin(world: &mut SimWorld, _: &mut Rng) -> Result<Begun, String> {
    let nodes = world.nodes().to_vec();
    let lost: Vec<String> = nodes.into_iter().map(|node| world.take_power(node).to_string()).collect();
    Ok((Box::new(Blackout), format!("all nodes lost their power, and {} commits", lost.join(", "))))
}

impl Fault<SimWorld> for Blackout {
    fn end(&mut self, world: &mut SimWorld) -> Result<bool, String> {
        let nodes = world.nodes().to_vec();
        let were_down = nodes.iter().all(|node| !world.is_running(*node));
        for node in nodes {
            world.start(node);
        }
        Ok(were_down)
    }
}

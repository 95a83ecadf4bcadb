//! All machines lose their power at the same moment: what was acknowledged must be on the disks.

use fastrand::Rng;

use super::{Begun, Fault};
use crate::world::sim::{NODES, SimWorld};

struct Blackout;

pub(super) fn begin(world: &mut SimWorld, _: &mut Rng) -> Begun {
    let lost = NODES.map(|node| world.take_power(node).to_string());
    (Box::new(Blackout), format!("all nodes lost their power, and {} commits", lost.join(", ")))
}

impl Fault for Blackout {
    fn end(&mut self, world: &mut SimWorld) -> bool {
        let were_down = NODES.iter().all(|node| !world.is_running(*node));
        for node in NODES {
            world.start(node);
        }
        were_down
    }
}

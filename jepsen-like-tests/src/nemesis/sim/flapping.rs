//! A link comes and goes, several times a second or every few seconds: each time it is there, connections are made.

use fastrand::Rng;

use super::{Begun, all_but, any, any_node};
use crate::nemesis::Fault;
use crate::world::World as _;
use crate::world::sim::SimWorld;

struct Flapping {
    a: u64,
    b: u64,
    /// Time that it is there, and the same time that it isn't.
    half_period_ms: u64,
    next_ms: u64,
    is_cut: bool,
    cuts: u64,
    dropped_before: u64,
}

pub(super) fn begin(world: &mut SimWorld, rng: &mut Rng) -> Result<Begun, String> {
    let (dropped_before, _) = world.packets_stopped();
    let a = any_node(world, rng);
    let b = any(&all_but(world, a), rng);
    let half_period_ms = rng.u64(50..1_500);
    let flapping = Flapping { a, b, half_period_ms, next_ms: world.now_ms(), is_cut: false, cuts: 0, dropped_before };
    Ok((Box::new(flapping), format!("link between nodes {a} and {b} cut every {} ms", 2 * half_period_ms)))
}

impl Fault<SimWorld> for Flapping {
    fn go_on(&mut self, world: &mut SimWorld) -> Result<bool, String> {
        if world.now_ms() >= self.next_ms {
            self.next_ms = world.now_ms() + self.half_period_ms;
            self.is_cut = !self.is_cut;
            if self.is_cut {
                world.cut(self.a, self.b);
                self.cuts += 1;
            } else {
                world.mend_between(self.a, self.b);
            }
        }
        Ok(false)
    }

    fn end(&mut self, world: &mut SimWorld) -> Result<bool, String> {
        let (dropped, _) = world.packets_stopped();
        world.mend_between(self.a, self.b);
        let were_up = world.is_running(self.a) && world.is_running(self.b);
        Ok(were_up && self.cuts > 0 && dropped > self.dropped_before)
    }
}

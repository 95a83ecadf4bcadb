//! A link comes and goes, several times a second or every few seconds: each time it is there, connections are made.

use fastrand::Rng;

use super::{Begun, any, any_node, both_ways, others};
use crate::nemesis::Fault;
use crate::world::World as _;
use crate::world::real::{RealWorld, Treatment};

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

pub(super) fn begin(world: &mut RealWorld, rng: &mut Rng) -> Result<Begun, String> {
    let a = any_node(world, rng);
    let b = any(&others(world, a), rng);
    let half_period_ms = rng.u64(100..2_000);
    let (next_ms, dropped_before) = (world.now_ms(), world.dropped(Treatment::Cut)?);
    let flapping = Flapping { a, b, half_period_ms, next_ms, is_cut: false, cuts: 0, dropped_before };
    Ok((Box::new(flapping), format!("link between nodes {a} and {b} cut every {} ms", 2 * half_period_ms)))
}

impl Flapping {
    fn switch(&mut self, world: &RealWorld) -> Result<(), String> {
        let ways = both_ways(&[self.a], &[self.b]);
        self.is_cut = !self.is_cut;
        self.cuts += u64::from(self.is_cut);
        if self.is_cut { world.treat(Treatment::Cut, &ways) } else { world.leave_alone(Treatment::Cut, &ways) }
    }
}

impl Fault<RealWorld> for Flapping {
    fn go_on(&mut self, world: &mut RealWorld) -> Result<bool, String> {
        if world.now_ms() >= self.next_ms {
            self.next_ms = world.now_ms() + self.half_period_ms;
            self.switch(world)?;
        }
        Ok(false)
    }

    fn end(&mut self, world: &mut RealWorld) -> Result<bool, String> {
        if self.is_cut {
            self.switch(world)?;
        }
        let dropped = world.dropped(Treatment::Cut)? > self.dropped_before;
        Ok(dropped && world.is_running(self.a) && world.is_running(self.b))
    }

    fn outcome(&self) -> String {
        format!("{} times", self.cuts)
    }
}

//! Connections are broken again and again, between nodes and to clients, and both sides are told.

use fastrand::Rng;

use super::{Begun, any};
use crate::nemesis::Fault;
use crate::world::World as _;
use crate::world::real::{CLIENTS, RealWorld};

struct Reset {
    rng: Rng,
    every_ms: u64,
    next_ms: u64,
    broken: usize,
}

pub(super) fn begin(world: &mut RealWorld, rng: &mut Rng) -> Result<Begun, String> {
    let every_ms = rng.u64(100..1_500);
    let reset = Reset { rng: rng.fork(), every_ms, next_ms: world.now_ms(), broken: 0 };
    Ok((Box::new(reset), format!("connections of two parties reset every {every_ms} ms")))
}

impl Fault<RealWorld> for Reset {
    fn go_on(&mut self, world: &mut RealWorld) -> Result<bool, String> {
        if world.now_ms() >= self.next_ms {
            self.next_ms = world.now_ms() + self.every_ms;
            let parties: Vec<u64> = world.nodes().into_iter().chain([CLIENTS]).collect();
            let (a, b) = (any(&parties, &mut self.rng), any(&world.nodes(), &mut self.rng));
            if a != b {
                self.broken += world.reset_connections(a, b)?;
            }
        }
        Ok(false)
    }

    fn end(&mut self, _: &mut RealWorld) -> Result<bool, String> {
        Ok(self.broken > 0)
    }

    fn outcome(&self) -> String {
        format!("{} connections reset", self.broken)
    }
}

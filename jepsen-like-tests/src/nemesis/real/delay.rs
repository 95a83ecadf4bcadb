//! Packets take their time, each another, so that some overtake others, and some come twice.

use fastrand::Rng;

use super::{Begun, any_node, both_ways, others};
use crate::nemesis::Fault;
use crate::world::real::{CLIENTS, Delivery, RealWorld, Way};

struct Delay {
    ways: Vec<Way>,
    counts: (u64, u64),
    twice_percent: u8,
}

pub(super) fn begin(world: &mut RealWorld, rng: &mut Rng) -> Result<Begun, String> {
    let node = any_node(world, rng);
    let all: Vec<u64> = others(world, node).into_iter().chain([CLIENTS]).collect();
    let ways = both_ways(&[node], &all);
    let twice_percent = if rng.bool() { rng.u8(1..=20) } else { 0 };
    let delivery = Delivery { delay_ms: rng.u64(1..=200), jitter_ms: rng.u64(0..=100), twice_percent };
    world.slow_down(&ways, delivery, rng.u64(..))?;
    let Delivery { delay_ms, jitter_ms, .. } = delivery;
    let detail = format!(
        "packets from and to node {node} take {delay_ms} to {} ms, {twice_percent} % come twice",
        delay_ms + jitter_ms
    );
    Ok((Box::new(Delay { ways, counts: (0, 0), twice_percent }), detail))
}

impl Fault<RealWorld> for Delay {
    fn end(&mut self, world: &mut RealWorld) -> Result<bool, String> {
        self.counts = world.speed_up(&self.ways)?;
        let (late, twice) = self.counts;
        Ok(late > 0 && (twice > 0 || self.twice_percent == 0))
    }

    fn outcome(&self) -> String {
        format!("{} packets came late, {} of them twice", self.counts.0, self.counts.1)
    }
}

//! Whoever leads a partition is hit: the others must elect another. How long that takes is measured by `failover`.

use std::ops::RangeInclusive;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::{BeginOf, Begun, Nothing};
use crate::nemesis::Fault;
use crate::world::real::{Led, RealWorld};

/// Longer than it takes to be suspected and replaced.
pub(super) const LASTS_MS: RangeInclusive<u64> = 3_000..=8_000;

/// How long a leader is waited for where nobody leads.
const PATIENCE: Duration = Duration::from_secs(3);

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

struct Leader {
    led: Led,
    fault: Box<dyn Fault<RealWorld>>,
    /// Who leads in its place.
    successor: Option<u64>,
}

pub(super) fn begin(world: &mut RealWorld, rng: &mut Rng, begin: BeginOf) -> Result<Begun, String> {
    let Some(led) = any_led(world, rng) else {
        return Ok((Box::new(Nothing), "no partition had a leader".to_owned()));
    };
    let (fault, detail) = begin(world, vec![led.leader])?;
    let detail = format!("{detail}, as the leader of {}/{}", led.topic, led.partition);
    Ok((Box::new(Leader { led, fault, successor: None }), detail))
}

/// Any partition that somebody leads, and who.
fn any_led(world: &RealWorld, rng: &mut Rng) -> Option<Led> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut led = world.led();
        if !led.is_empty() {
            return Some(led.swap_remove(rng.usize(..led.len())));
        }
        if Instant::now() > deadline {
            return None;
        }
        thread::sleep(LOOK_EVERY);
    }
}

impl Fault<RealWorld> for Leader {
    fn go_on(&mut self, world: &mut RealWorld) -> Result<bool, String> {
        self.fault.go_on(world)
    }

    /// Whether somebody else was elected is said, and no condition: a failover that takes too long counts as well.
    fn end(&mut self, world: &mut RealWorld) -> Result<bool, String> {
        let same = |led: &Led| (&led.topic, led.partition) == (&self.led.topic, self.led.partition);
        self.successor = world.led().into_iter().find(same).map(|led| led.leader);
        self.fault.end(world)
    }

    fn outcome(&self) -> String {
        let outcome = self.fault.outcome();
        let separator = if outcome.is_empty() { "" } else { ", " };
        match self.successor {
            Some(node) if node != self.led.leader => format!("{outcome}{separator}node {node} leads in its place"),
            _ => format!("{outcome}{separator}nobody leads in its place"),
        }
    }

    fn partition(&self) -> Option<u32> {
        Some(self.led.partition)
    }
}

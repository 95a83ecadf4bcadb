//! A node's wall clock jumps, or runs fast or slow. Its monotonic clock is as it should be.

use std::time::{SystemTime, UNIX_EPOCH};

use fastrand::Rng;

use super::{Begun, any, any_node};
use crate::nemesis::Fault;
use crate::world::World as _;
use crate::world::real::RealWorld;

/// More than an answer takes, and less than any step; a clock that runs fast or slow is as far off within seconds.
const NOTICEABLE_S: u64 = 2;

/// Time between two settings of a clock that goes to and fro.
const STROBE_MS: u64 = 1_500;

struct Clock {
    node: u64,
    /// Set in turn.
    settings: Vec<String>,
    next: usize,
    next_ms: u64,
    /// The furthest that it was seen to be wrong.
    off_s: u64,
}

pub(super) fn begin(world: &mut RealWorld, rng: &mut Rng) -> Result<Begun, String> {
    let node = any_node(world, rng);
    let step = any(&["+60", "-60", "+3600", "-3600", "+864000", "-864000"], rng).to_owned();
    let settings = match rng.u8(..3) {
        0 => vec![step],
        1 => vec![step, "+0".to_owned()],
        _ => vec![format!("+0 x{}", any(&["0.5", "0.8", "1.25", "2"], rng))],
    };
    let detail = format!("clock of node {node} set to {}", settings.join(" and "));
    Ok((Box::new(Clock { node, settings, next: 0, next_ms: world.now_ms(), off_s: 0 }), detail))
}

impl Fault<RealWorld> for Clock {
    fn go_on(&mut self, world: &mut RealWorld) -> Result<bool, String> {
        if world.now_ms() >= self.next_ms {
            self.next_ms = world.now_ms() + STROBE_MS;
            if let Some(theirs) = world.time_of(self.node) {
                let ours = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
                self.off_s = self.off_s.max(ours.abs_diff(theirs));
            }
            if self.settings.len() > 1 || self.next == 0 {
                world.set_clock(self.node, &self.settings[self.next % self.settings.len()])?;
                self.next += 1;
            }
        }
        Ok(false)
    }

    fn end(&mut self, world: &mut RealWorld) -> Result<bool, String> {
        world.set_clock(self.node, "+0")?;
        Ok(self.off_s > NOTICEABLE_S)
    }

    fn outcome(&self) -> String {
        format!("it was seen to be {} s off", self.off_s)
    }
}

//! Every node in turn is told to stop, finishes what is under way, hands its leaderships over, ends, and is started
//! again: a rolling upgrade.

use fastrand::Rng;
use nix::sys::signal::Signal;

use super::Begun;
use crate::nemesis::Fault;
use crate::world::World as _;
use crate::world::real::RealWorld;

/// Time between the start of a node and the stop of the next.
const SETTLE_MS: u64 = 3_000;

struct Rolling {
    /// Those whose turn is still to come; the last is next.
    left: Vec<u64>,
    /// Told to stop, and not there again.
    stopping: Option<u64>,
    next_ms: u64,
    ended_well: usize,
    nodes: usize,
}

pub(super) fn begin(world: &mut RealWorld, rng: &mut Rng) -> Result<Begun, String> {
    let mut left = world.nodes();
    rng.shuffle(&mut left);
    let detail = format!("nodes {left:?} restarted one after another, the last one first");
    let nodes = left.len();
    let rolling = Rolling { left, stopping: None, next_ms: world.now_ms(), ended_well: 0, nodes };
    Ok((Box::new(rolling), detail))
}

impl Fault<RealWorld> for Rolling {
    fn go_on(&mut self, world: &mut RealWorld) -> Result<bool, String> {
        match self.stopping {
            Some(node) if world.is_running(node) => return Ok(false),
            Some(node) => {
                self.stopping = None;
                self.ended_well += usize::from(world.ended(node).is_some_and(|ended| ended.success()));
                world.let_give_up(node, false);
                world.start(node)?;
                self.next_ms = world.now_ms() + SETTLE_MS;
            }
            None if world.now_ms() < self.next_ms => {}
            None => {
                let Some(node) = self.left.pop() else { return Ok(true) };
                world.let_give_up(node, true);
                world.signal(node, Signal::SIGTERM)?;
                self.stopping = Some(node);
            }
        }
        Ok(false)
    }

    fn end(&mut self, world: &mut RealWorld) -> Result<bool, String> {
        if let Some(node) = self.stopping {
            world.kill(node)?;
            world.let_give_up(node, false);
            world.start(node)?;
        }
        Ok(self.ended_well == self.nodes)
    }

    fn outcome(&self) -> String {
        format!("{} of {} ended with code 0", self.ended_well, self.nodes)
    }
}

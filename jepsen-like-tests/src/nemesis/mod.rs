//! Faults, one kind per file. Each knows whether it took effect. A nemesis has one fault under way at a time; one for
//! processes and one for the network, side by side, make a node crash in the midst of a partition.

mod blackout;
mod crash;
mod hold;
mod one_way;
mod partition;
mod power;
mod restart;

use std::ops::RangeInclusive;

use fastrand::Rng;

use crate::history::{Action, Op, Phase, Recorder};
use crate::world::sim::SimWorld;

/// A fault that is under way.
pub trait Fault {
    /// Ends it. True if it took effect: a process was gone, or packets were stopped between nodes that were up.
    fn end(&mut self, world: &mut SimWorld) -> bool;

    /// Whether it is over before its time.
    fn is_over(&self, _: &SimWorld) -> bool {
        false
    }
}

/// A fault that has begun, and what it does to whom.
type Begun = (Box<dyn Fault>, String);

type Begin = fn(&mut SimWorld, &mut Rng) -> Begun;

/// A kind of fault.
#[derive(Clone, Debug)]
pub struct Kind {
    /// Its name, on the command line and in histories.
    pub name: &'static str,
    /// What it harms.
    pub harms: Harm,
    begin: Begin,
    lasts_ms: RangeInclusive<u64>,
}

/// What a fault harms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// Nodes.
    Processes,
    /// What is between them.
    Network,
}

/// Time between two faults.
const PAUSE_MS: RangeInclusive<u64> = 100..=2_500;

/// Every kind of fault.
#[must_use]
pub fn kinds() -> Vec<Kind> {
    let of = |harms| move |name, begin: Begin, lasts_ms| Kind { name, harms, begin, lasts_ms };
    let (process, network) = (of(Harm::Processes), of(Harm::Network));
    vec![
        process("crash", crash::begin, 20..=3_000),
        process("restart", restart::begin, restart::LONGEST_MS..=restart::LONGEST_MS),
        process("power", power::begin, 20..=4_000),
        process("blackout", blackout::begin, 20..=1_000),
        network("partition", partition::begin, 200..=5_000),
        network("one-way", one_way::begin, 200..=5_000),
        network("hold", hold::begin, 100..=3_000),
    ]
}

/// Injects faults of the given kinds until it is told to stop.
pub struct Nemesis {
    kinds: Vec<Kind>,
    /// Kinds that are still to come before any comes again.
    bag: Vec<Kind>,
    rng: Rng,
    recorder: Recorder,
    active: Option<Active>,
    next_ms: u64,
}

struct Active {
    kind: Kind,
    detail: String,
    fault: Box<dyn Fault>,
    op: Op,
    until_ms: u64,
}

impl Nemesis {
    /// Its choices come from `seed` alone. The first fault comes after `from_ms`.
    #[must_use]
    pub fn new(kinds: Vec<Kind>, seed: u64, from_ms: u64, recorder: Recorder) -> Self {
        let mut rng = Rng::with_seed(seed);
        let next_ms = from_ms + rng.u64(PAUSE_MS);
        Self { kinds, bag: Vec::new(), rng, recorder, active: None, next_ms }
    }

    /// Begins or ends a fault if it is time to.
    pub fn act(&mut self, world: &mut SimWorld) {
        let now_ms = world.now_ms();
        match &self.active {
            Some(active) if now_ms >= active.until_ms || active.fault.is_over(world) => self.end_fault(world),
            None if now_ms >= self.next_ms && !self.kinds.is_empty() => self.begin_fault(world),
            _ => {}
        }
    }

    fn begin_fault(&mut self, world: &mut SimWorld) {
        if self.bag.is_empty() {
            self.bag.clone_from(&self.kinds);
            self.rng.shuffle(&mut self.bag);
        }
        let Some(kind) = self.bag.pop() else { return };
        let (fault, detail) = (kind.begin)(world, &mut self.rng);
        let action = Action::Fault { fault: kind.name.to_owned(), detail: detail.clone() };
        let op = self.recorder.invoke("nemesis", action);
        let until_ms = world.now_ms() + self.rng.u64(kind.lasts_ms.clone());
        self.active = Some(Active { kind, detail, fault, op, until_ms });
    }

    /// Ends what is under way.
    pub fn end_fault(&mut self, world: &mut SimWorld) {
        let Some(mut active) = self.active.take() else { return };
        let took_effect = active.fault.end(world);
        let phase = if took_effect { Phase::Ok } else { Phase::Fail };
        let action = Action::Fault { fault: active.kind.name.to_owned(), detail: active.detail };
        self.recorder.end(&active.op, phase, action);
        if !took_effect {
            // Such as packets kept back to a node that wasn't up: it is the next one to try.
            self.bag.push(active.kind);
        }
        self.next_ms = world.now_ms() + self.rng.u64(PAUSE_MS);
    }
}

/// Any node.
fn any_node(rng: &mut Rng) -> u64 {
    let nodes = crate::world::sim::NODES;
    nodes[rng.usize(..nodes.len())]
}

/// All nodes but one.
fn all_but(node: u64) -> impl Iterator<Item = u64> {
    crate::world::sim::NODES.into_iter().filter(move |other| *other != node)
}

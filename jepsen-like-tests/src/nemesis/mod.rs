//! Faults, one kind per file. Each knows whether it took effect. A nemesis has one fault under way at a time; one for
//! processes and one for the network, side by side, make a node crash in the midst of a partition.

pub mod real;
pub mod sim;

use std::fmt;
use std::ops::RangeInclusive;

use fastrand::Rng;

use crate::history::{Action, Op, Phase, Recorder};
use crate::world::World;

/// A fault that is under way in a world `W`.
pub trait Fault<W> {
    /// Ends it. True if it took effect: a process was gone, or packets were stopped between nodes that were up.
    ///
    /// # Errors
    /// If the world can't be brought back to what it was.
    fn end(&mut self, world: &mut W) -> Result<bool, String>;

    /// Does what it does from time to time. True if it is over before its time.
    ///
    /// # Errors
    /// If the world can't do what is asked of it.
    fn go_on(&mut self, _: &mut W) -> Result<bool, String> {
        Ok(false)
    }

    /// What came of it, in addition to what was known when it began. Asked after its end.
    fn outcome(&self) -> String {
        String::new()
    }
}

/// A fault that has begun, and what it does to whom.
pub type Begun<W> = (Box<dyn Fault<W>>, String);

/// Begins a fault.
pub type Begin<W> = fn(&mut W, &mut Rng) -> Result<Begun<W>, String>;

/// A kind of fault.
pub struct Kind<W> {
    /// Its name, on the command line and in histories.
    pub name: &'static str,
    /// What it harms.
    pub harms: Harm,
    /// How it begins.
    pub begin: Begin<W>,
    /// How long it lasts.
    pub lasts_ms: RangeInclusive<u64>,
}

/// What a fault harms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// Nodes, with their disks and clocks.
    Processes,
    /// What is between them.
    Network,
}

/// When faults come, and when they don't.
#[derive(Clone, Debug)]
pub struct Rhythm {
    /// Time between two faults.
    pub pause_ms: RangeInclusive<u64>,
    /// Of so many pauses one is `quiet_ms` long; 0: none is.
    pub quiet_one_in: u32,
    /// Length of a quiet period.
    pub quiet_ms: u64,
}

/// Injects faults of the given kinds until it is told to stop.
pub struct Nemesis<W> {
    kinds: Vec<Kind<W>>,
    /// Kinds that are still to come before any comes again.
    bag: Vec<Kind<W>>,
    rhythm: Rhythm,
    rng: Rng,
    recorder: Recorder,
    active: Option<Active<W>>,
    next_ms: u64,
}

struct Active<W> {
    kind: Kind<W>,
    detail: String,
    fault: Box<dyn Fault<W>>,
    op: Op,
    until_ms: u64,
}

impl<W: World> Nemesis<W> {
    /// Its choices come from `seed` alone. The first fault comes after `from_ms`.
    #[must_use]
    pub fn new(kinds: Vec<Kind<W>>, rhythm: Rhythm, seed: u64, from_ms: u64, recorder: Recorder) -> Self {
        let mut rng = Rng::with_seed(seed);
        let next_ms = from_ms + rng.u64(rhythm.pause_ms.clone());
        Self { kinds, bag: Vec::new(), rhythm, rng, recorder, active: None, next_ms }
    }

    /// Begins or ends a fault if it is time to.
    ///
    /// # Errors
    /// If the world can't do what is asked of it.
    pub fn act(&mut self, world: &mut W) -> Result<(), String> {
        let now_ms = world.now_ms();
        let is_over = match &mut self.active {
            None if now_ms >= self.next_ms && !self.kinds.is_empty() => return self.begin_fault(world),
            None => false,
            Some(active) => now_ms >= active.until_ms || active.fault.go_on(world)?,
        };
        if is_over { self.end_fault(world) } else { Ok(()) }
    }

    fn begin_fault(&mut self, world: &mut W) -> Result<(), String> {
        if self.bag.is_empty() {
            self.bag.clone_from(&self.kinds);
            self.rng.shuffle(&mut self.bag);
        }
        let Some(kind) = self.bag.pop() else { return Ok(()) };
        let (fault, detail) =
            (kind.begin)(world, &mut self.rng).map_err(|error| format!("fault {}: {error}", kind.name))?;
        let action = Action::Fault { fault: kind.name.to_owned(), detail: detail.clone() };
        let op = self.recorder.invoke("nemesis", action);
        let until_ms = world.now_ms() + self.rng.u64(kind.lasts_ms.clone());
        self.active = Some(Active { kind, detail, fault, op, until_ms });
        Ok(())
    }

    /// Ends what is under way.
    ///
    /// # Errors
    /// If the world can't be brought back to what it was.
    pub fn end_fault(&mut self, world: &mut W) -> Result<(), String> {
        let Some(mut active) = self.active.take() else { return Ok(()) };
        let took_effect =
            active.fault.end(world).map_err(|error| format!("end of fault {}: {error}", active.kind.name))?;
        let phase = if took_effect { Phase::Ok } else { Phase::Fail };
        let outcome = active.fault.outcome();
        let separator = if outcome.is_empty() { "" } else { ": " };
        let detail = format!("{}{separator}{outcome}", active.detail);
        let action = Action::Fault { fault: active.kind.name.to_owned(), detail };
        self.recorder.end(&active.op, phase, action);
        if !took_effect {
            // Such as packets kept back to a node that wasn't up: it is the next one to try.
            self.bag.push(active.kind);
        }
        let Rhythm { pause_ms, quiet_one_in, quiet_ms } = &self.rhythm;
        let quiet = *quiet_one_in > 0 && self.rng.u32(..*quiet_one_in) == 0;
        self.next_ms = world.now_ms() + if quiet { *quiet_ms } else { self.rng.u64(pause_ms.clone()) };
        Ok(())
    }
}

// Derived, these would ask the same of `W`.
impl<W> fmt::Debug for Kind<W> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name)
    }
}

impl<W> Clone for Kind<W> {
    fn clone(&self) -> Self {
        Self { lasts_ms: self.lasts_ms.clone(), ..*self }
    }
}

/// Picks kinds by their names: `all`, `none`, or names separated by commas.
///
/// # Errors
/// If there is no kind of that name; the known ones.
pub fn pick<W>(all: Vec<Kind<W>>, names: &str) -> Result<Vec<Kind<W>>, String> {
    match names {
        "all" => Ok(all),
        "none" => Ok(Vec::new()),
        names => {
            let find = |name: &str| {
                let known = all.iter().find(|kind| kind.name == name).cloned();
                known.ok_or_else(|| {
                    let known: Vec<&str> = all.iter().map(|kind| kind.name).collect();
                    format!("there is no fault {name:?}; there are {}", known.join(", "))
                })
            };
            names.split(',').map(find).collect()
        }
    }
}

/// One of them.
pub(crate) fn any<T: Copy>(of: &[T], rng: &mut Rng) -> T {
    of[rng.usize(..of.len())]
}

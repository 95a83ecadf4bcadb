//! Faults, one kind per file. Each knows whether it took effect. A nemesis has one fault under way at a time; one for
//! processes and one for the network, side by side, make a node crash in the midst of a partition.

pub mod real;
pub mod sim;

use std::collections::{BTreeMap, BTreeSet};
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

    /// The partition that it aimed at, if it did.
    fn partition(&self) -> Option<u32> {
        None
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
    /// A majority of nodes goes on undisturbed.
    pub spares_majority: bool,
}

/// What a fault harms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// Nodes, with their disks and clocks.
    Processes,
    /// What is between them.
    Network,
}

impl Harm {
    /// Every sort.
    pub const ALL: [Self; Self::SORTS as usize] = [Self::Processes, Self::Network];

    const SORTS: u32 = 2;

    /// What the fault of this number harmed: each sort has its own numbers.
    #[must_use]
    pub fn of_fault(number: u32) -> Self {
        Self::ALL[(number % Self::SORTS) as usize]
    }
}

/// The faults of a run.
#[derive(Clone, Debug)]
pub struct Schedule<W> {
    /// Kinds of faults.
    pub kinds: Vec<Kind<W>>,
    /// When they come.
    pub rhythm: Rhythm,
    /// What they do, and to whom, comes from it.
    pub seed: u64,
    /// Time with faults: at least the first, at most the last, and between them as long as a kind is still to take effect.
    pub seconds: RangeInclusive<u64>,
    /// How often each kind is to take effect.
    pub times: u32,
    /// Faults that don't happen, by their number: a run that fails is understood by leaving out what it fails without.
    pub skipped: BTreeSet<u32>,
}

/// When faults come, which of them together, and when none does.
#[derive(Clone, Debug)]
pub struct Rhythm {
    /// Time between two faults.
    pub pause_ms: RangeInclusive<u64>,
    /// Of so many pauses one is `quiet_ms` long; 0: none is.
    pub quiet_one_in: u32,
    /// Length of a quiet period.
    pub quiet_ms: u64,
    /// Kinds that come by turns for a while, before others do.
    pub at_a_time: usize,
    /// How often each of them comes until then.
    pub rounds: usize,
}

/// Injects faults of the given kinds until it is told to stop.
pub struct Nemesis<W> {
    kinds: Vec<Kind<W>>,
    /// Kinds whose turn is still to come before any has another.
    deck: Vec<Kind<W>>,
    /// Faults of those whose turn it is.
    bag: Vec<Kind<W>>,
    rhythm: Rhythm,
    /// Decides about everything but what a single fault does.
    rng: Rng,
    seed: u64,
    /// Number of the next fault, and how far apart numbers are: other nemeses have those between.
    number: u32,
    step: u32,
    skipped: BTreeSet<u32>,
    recorder: Recorder,
    active: Option<Active<W>>,
    /// How often each kind took effect.
    effective: BTreeMap<&'static str, u32>,
    times: u32,
    next_ms: u64,
}

struct Active<W> {
    kind: Kind<W>,
    /// As it began.
    action: Action,
    fault: Box<dyn Fault<W>>,
    op: Op,
    until_ms: u64,
}

impl<W: World> Nemesis<W> {
    /// For the sort of `harm`: its choices come from the schedule alone. The first fault comes after `from_ms`.
    #[must_use]
    pub fn new(harm: Harm, schedule: &Schedule<W>, from_ms: u64, recorder: Recorder) -> Self {
        let Schedule { kinds, rhythm, seed, skipped, times, .. } = schedule;
        // It must not draw what the world draws, nor what the other nemesis draws.
        let seed = seed.rotate_left(32) ^ harm as u64;
        let mut rng = Rng::with_seed(seed);
        let next_ms = from_ms + rng.u64(rhythm.pause_ms.clone());
        Self {
            kinds: kinds.iter().filter(|kind| kind.harms == harm).cloned().collect(),
            deck: Vec::new(),
            bag: Vec::new(),
            rhythm: rhythm.clone(),
            rng,
            seed,
            number: harm as u32,
            step: Harm::SORTS,
            skipped: skipped.clone(),
            recorder,
            active: None,
            effective: BTreeMap::new(),
            times: *times,
            next_ms,
        }
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
        let Some(kind) = self.next_kind() else { return Ok(()) };
        let number = self.number;
        self.number += self.step;
        let until_ms = world.now_ms() + self.rng.u64(kind.lasts_ms.clone());
        if self.skipped.contains(&number) {
            // Without it, the others come at their time all the same.
            self.next_ms = until_ms + self.pause_ms();
            return Ok(());
        }
        let mut rng = Rng::with_seed(self.seed ^ u64::from(number).rotate_left(16));
        let spares_majority = kind.spares_majority && world.is_complete();
        let (fault, detail) = (kind.begin)(world, &mut rng).map_err(|error| format!("fault {}: {error}", kind.name))?;
        let action = Action::Fault {
            number,
            fault: kind.name.to_owned(),
            partition: fault.partition(),
            detail,
            spares_majority,
        };
        let op = self.recorder.invoke("nemesis", action.clone());
        self.active = Some(Active { kind, action, fault, op, until_ms });
        Ok(())
    }

    fn next_kind(&mut self) -> Option<Kind<W>> {
        let Rhythm { at_a_time, rounds, .. } = self.rhythm;
        if self.bag.is_empty() {
            if self.deck.is_empty() {
                self.deck.clone_from(&self.kinds);
                self.rng.shuffle(&mut self.deck);
            }
            let turn = self.deck.split_off(self.deck.len().saturating_sub(at_a_time));
            self.bag = turn.iter().cycle().take(turn.len() * rounds).cloned().collect();
            // Of one round, the deck's order is as good.
            if rounds > 1 {
                self.rng.shuffle(&mut self.bag);
            }
        }
        self.bag.pop()
    }

    /// Whether every kind took effect as often as it should.
    pub fn has_covered_all(&self) -> bool {
        let times = |kind: &Kind<W>| self.effective.get(kind.name).copied().unwrap_or(0);
        self.kinds.iter().all(|kind| times(kind) >= self.times) || !self.skipped.is_empty()
    }

    fn pause_ms(&mut self) -> u64 {
        let Rhythm { pause_ms, quiet_one_in, quiet_ms, .. } = &self.rhythm;
        let quiet = *quiet_one_in > 0 && self.rng.u32(..*quiet_one_in) == 0;
        if quiet { *quiet_ms } else { self.rng.u64(pause_ms.clone()) }
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
        if let (Action::Fault { detail, .. }, false) = (&mut active.action, outcome.is_empty()) {
            *detail = format!("{detail}: {outcome}");
        }
        self.recorder.end(&active.op, phase, active.action);
        if !took_effect {
            // Such as packets kept back to a node that wasn't up: it comes again when the others have had their turn.
            self.bag.insert(0, active.kind);
        } else {
            *self.effective.entry(active.kind.name).or_default() += 1;
        }
        self.next_ms = world.now_ms() + self.pause_ms();
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

/// Picks kinds by their names: `all`, `none`, `some`, which the seed picks, or names separated by commas.
///
/// Some at a time find more than all at once, because faults also keep each other from doing harm: swarm testing (Groce,
/// Zhang, Eide, Chen, Regehr, 2012).
///
/// # Errors
/// If there is no kind of that name; the known ones.
pub fn pick<W>(all: Vec<Kind<W>>, names: &str, seed: u64) -> Result<Vec<Kind<W>>, String> {
    match names {
        "all" => Ok(all),
        "some" => {
            let mut rng = Rng::with_seed(seed ^ 0x5a3e);
            let mut kinds = all;
            rng.shuffle(&mut kinds);
            kinds.truncate(rng.usize(SOME));
            Ok(kinds)
        }
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

/// How many kinds of faults `some` are.
const SOME: RangeInclusive<usize> = 2..=5;

/// One of them.
pub(crate) fn any<T: Copy>(of: &[T], rng: &mut Rng) -> T {
    of[rng.usize(..of.len())]
}

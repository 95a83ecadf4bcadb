//! One run: faults while clients work, then none, then what is left is read and judged.

pub mod sim;

use crate::checker::{Expected, Verdict};
use crate::history::{Action, History};
use crate::nemesis::{Harm, Kind, Nemesis, Schedule};
use crate::workload::log::Load;
use crate::workload::{Course, Job, Stage};
use crate::world::World;

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// What clients asked and heard.
    pub history: History,
    /// What it means.
    pub verdict: Verdict,
    /// Time in all.
    pub took_ms: u64,
}

/// Time in which clients work before the first fault: whoever lies about that much loses more than the topic.
const UNDISTURBED_MS: u64 = 1_000;

/// Longest time for the nodes to start and the topic to be created.
const SET_UP_MS: u64 = 60_000;

/// Time in which clients work without faults.
const CALM_MS: u64 = 6_000;

/// Longest time for clients to finish what is under way.
const DRAIN_MS: u64 = 40_000;

/// Longest time to read what is left.
const FINAL_MS: u64 = 180_000;

/// Time for the last entries to reach all replicas.
const REST_MS: u64 = 5_000;

/// What a run must cover.
fn expected<W>(job: Job, kinds: &[Kind<W>], load: &Load) -> Expected {
    Expected { faults: kinds.iter().map(|kind| kind.name.to_owned()).collect(), ..job.expected(load) }
}

/// Leads everybody through the stages.
fn follow_course<W: World>(world: &mut W, course: &Course, schedule: &Schedule<W>) -> Result<(), String> {
    step_until(world, SET_UP_MS, "the topic is not there", |_| course.stage() >= Stage::Faults)?;

    let healed_at = world.now_ms() + schedule.seconds * 1_000;
    let at_last = healed_at + schedule.seconds * 1_000;
    let from_ms = world.now_ms() + UNDISTURBED_MS;
    let mut nemeses = Harm::ALL.map(|harm| Nemesis::new(harm, schedule, from_ms, course.recorder().clone()));
    let covered = |nemeses: &[Nemesis<W>]| nemeses.iter().all(Nemesis::has_covered_all);
    while world.now_ms() < healed_at || (!covered(&nemeses) && world.now_ms() < at_last) {
        nemeses.iter_mut().try_for_each(|nemesis| nemesis.act(world))?;
        world.step()?;
    }
    nemeses.iter_mut().try_for_each(|nemesis| nemesis.end_fault(world))?;
    course.recorder().remark("nemesis", Action::Healed);
    course.enter(Stage::Calm);
    let drained_from = world.now_ms() + CALM_MS;
    step_until(world, CALM_MS + 1_000, "time stands still", |world| world.now_ms() >= drained_from)?;

    course.enter(Stage::Drain);
    step_until(world, DRAIN_MS, "clients don't finish", |_| course.is_idle())?;

    course.enter(Stage::Final);
    let deadline = world.now_ms() + FINAL_MS;
    while !world.step()? {
        if world.now_ms() > deadline {
            return Err(format!("{FINAL_MS} ms were not enough to read what is left"));
        }
    }
    let rested_at = world.now_ms() + REST_MS;
    while world.now_ms() < rested_at {
        world.step()?;
    }
    Ok(())
}

fn step_until<W: World>(
    world: &mut W,
    limit_ms: u64,
    complaint: &str,
    done: impl Fn(&W) -> bool,
) -> Result<(), String> {
    let deadline = world.now_ms() + limit_ms;
    while !done(world) {
        if world.now_ms() > deadline {
            return Err(format!("{complaint} after {limit_ms} ms"));
        }
        world.step()?;
    }
    Ok(())
}

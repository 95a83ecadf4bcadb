//! One run: faults while clients work, then none, then what is left is read and judged.

pub mod real;
pub mod sim;

use crate::checker::{Expected, Verdict};
use crate::history::{Action, History, Recorder};
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

/// How long each part of a run takes, or may take.
struct Pace {
    /// Longest time for the nodes to start and the topic to be created.
    set_up_ms: u64,
    /// Time in which clients work before the first fault: whoever lies about that much loses more than the topic.
    undisturbed_ms: u64,
    /// Time in which clients work without faults.
    calm_ms: u64,
    /// Longest time for clients to finish what is under way.
    drain_ms: u64,
    /// Longest time to read what is left.
    final_ms: u64,
    /// Time for the last entries to reach all replicas.
    rest_ms: u64,
}

/// In the simulated world.
const SIMULATED: Pace = Pace {
    set_up_ms: 60_000,
    undisturbed_ms: 1_000,
    calm_ms: 6_000,
    drain_ms: 40_000,
    final_ms: 180_000,
    rest_ms: 5_000,
};

/// In the real world processes start slowly, and what is left is a thousand times as much. A partition has as long as in
/// the simulation to acknowledge again: clients work without faults for as long as that bound, so that one that keeps
/// it just so is seen to.
const REAL: Pace = Pace {
    set_up_ms: 60_000,
    undisturbed_ms: 2_000,
    calm_ms: 15_000,
    drain_ms: 40_000,
    final_ms: 600_000,
    rest_ms: 5_000,
};

/// What a run must cover.
fn expected<W>(job: Job, kinds: &[Kind<W>], load: &Load) -> Expected {
    Expected { faults: kinds.iter().map(|kind| kind.name.to_owned()).collect(), ..job.expected(load) }
}

/// Lets clients do their job in a world, with faults; false if it didn't come to its end, which the history says too.
fn play<W: World>(
    world: &mut W,
    recorder: &Recorder,
    (job, load): (Job, &Load),
    schedule: &Schedule<W>,
    pace: &Pace,
) -> bool {
    let course = Course::new(recorder.clone(), world.access());
    job.start(world, &course, load);
    recorder.remark("run", Action::Plan(expected(job, &schedule.kinds, load)));
    let followed = follow_course(world, &course, schedule, pace);
    if let Err(what) = &followed {
        recorder.remark("world", Action::Broken { what: what.clone() });
    }
    followed.is_ok()
}

/// Leads everybody through the stages.
fn follow_course<W: World>(world: &mut W, course: &Course, schedule: &Schedule<W>, pace: &Pace) -> Result<(), String> {
    step_until(world, pace.set_up_ms, "the topic is not there", |_| course.stage() >= Stage::Faults)?;

    let [healed_at, at_last] =
        [schedule.seconds.start(), schedule.seconds.end()].map(|seconds| world.now_ms() + seconds * 1_000);
    let from_ms = world.now_ms() + pace.undisturbed_ms;
    let mut nemeses = Harm::ALL.map(|harm| Nemesis::new(harm, schedule, from_ms, course.recorder().clone()));
    let covered = |nemeses: &[Nemesis<W>]| nemeses.iter().all(Nemesis::has_covered_all);
    while world.now_ms() < healed_at || (!covered(&nemeses) && world.now_ms() < at_last) {
        nemeses.iter_mut().try_for_each(|nemesis| nemesis.act(world))?;
        world.step()?;
    }
    nemeses.iter_mut().try_for_each(|nemesis| nemesis.end_fault(world))?;
    course.recorder().remark("nemesis", Action::Healed);
    course.enter(Stage::Calm);
    let drained_from = world.now_ms() + pace.calm_ms;
    step_until(world, pace.calm_ms + 1_000, "time stands still", |world| world.now_ms() >= drained_from)?;

    course.enter(Stage::Drain);
    step_until(world, pace.drain_ms, "clients don't finish", |_| course.is_idle())?;

    course.enter(Stage::Final);
    let deadline = world.now_ms() + pace.final_ms;
    while !world.step()? {
        if world.now_ms() > deadline {
            return Err(format!("{} ms were not enough to read what is left", pace.final_ms));
        }
    }
    let rested_at = world.now_ms() + pace.rest_ms;
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

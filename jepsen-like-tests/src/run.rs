//! One run: faults while clients work, then none, then what is left is read and judged.

use std::time::Duration;

use crate::checker::{Expected, Verdict, judge};
use crate::history::{Action, History, Recorder};
use crate::nemesis::{Harm, Kind, Nemesis};
use crate::trace::Trace;
use crate::workload::{Course, PUBLISH_DEADLINE, Stage, log};
use crate::world::sim::{NODES, SimWorld};

/// What decides a run. Equal options give equal runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Everything random comes from it.
    pub seed: u64,
    /// Simulated time with faults.
    pub seconds: u64,
    /// Kinds of faults.
    pub faults: Vec<Kind>,
    /// The disks acknowledge before they sync: a run with this must fail.
    pub lying_disks: bool,
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// What clients asked and heard.
    pub history: History,
    /// What it means.
    pub verdict: Verdict,
    /// Hash of the trace, and its number of lines.
    pub trace: (u64, u64),
    /// Simulated time in all.
    pub simulated_ms: u64,
}

/// Time in which clients work before the first fault: whoever lies about that much loses more than the topic.
const UNDISTURBED_MS: u64 = 1_000;

/// Messages per partition that a run with retention keeps: what comes in within a second.
const KEPT_MESSAGES: u64 = 50;

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

/// Runs a simulation. At most one per process, on one thread.
///
/// # Errors
/// If the world can't be made or its disks can't be read.
pub fn run(options: &Options, trace: &Trace) -> Result<Outcome, String> {
    let recorder = Recorder::new(trace.clone());
    let course = Course::new(recorder.clone());
    let mut world = SimWorld::new(options.seed, options.lying_disks, trace.clone())?;
    world.client("setup", log::set_up(course.clone(), keep_messages(options.seed)));
    // One outlasts most faults; the others give up in the midst of them, and then nobody knows.
    let patience = [PUBLISH_DEADLINE, Duration::from_secs(3), Duration::from_secs(1)];
    for (process, deadline) in ["p1", "p2", "p3"].into_iter().zip(patience) {
        world.client(process, log::publish(course.clone(), process, deadline));
    }
    world.client("r1", log::read_snapshots(course.clone(), "r1"));
    world.client("t1", log::follow(course.clone(), "t1"));
    world.client("f1", log::read_finally(course.clone(), "f1"));

    let mut logs = Vec::new();
    if let Err(what) = follow_course(&mut world, &course, options) {
        recorder.remark("world", Action::Broken { what });
    } else {
        logs = world.into_logs()?;
    }
    let history = recorder.history();
    let verdict = judge(&history, &logs, &expected(options));
    Ok(Outcome { history, verdict, trace: trace.sum(), simulated_ms: trace.now_ms() })
}

/// In every third run the log loses its head as it goes: who was away for a few seconds needs a snapshot to come back.
fn keep_messages(seed: u64) -> Option<u64> {
    seed.is_multiple_of(3).then_some(KEPT_MESSAGES)
}

fn expected(options: &Options) -> Expected {
    Expected {
        faults: options.faults.iter().map(|kind| kind.name).collect(),
        partitions: log::PARTITIONS,
        trimmed: keep_messages(options.seed).is_some(),
        final_reads: NODES.len(),
        // The metadata group and the partitions.
        groups: 1 + log::PARTITIONS as usize,
    }
}

/// Leads everybody through the stages.
fn follow_course(world: &mut SimWorld, course: &Course, options: &Options) -> Result<(), String> {
    step_until(world, SET_UP_MS, "the topic is not there", |_| course.stage() >= Stage::Faults)?;

    let healed_at = world.now_ms() + options.seconds * 1_000;
    let mut nemeses = [Harm::Processes, Harm::Network].map(|harm| nemesis(harm, options, world.now_ms(), course));
    while world.now_ms() < healed_at {
        nemeses.iter_mut().for_each(|nemesis| nemesis.act(world));
        world.step()?;
    }
    nemeses.iter_mut().for_each(|nemesis| nemesis.end_fault(world));
    course.recorder().remark("nemesis", Action::Healed);
    course.enter(Stage::Calm);
    let drained_from = world.now_ms() + CALM_MS;
    step_until(world, CALM_MS + 1, "time stands still", |world| world.now_ms() >= drained_from)?;

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

/// Does one sort of harm. It must not draw what the simulation draws, nor what the other nemesis draws.
fn nemesis(harm: Harm, options: &Options, now_ms: u64, course: &Course) -> Nemesis {
    let kinds = options.faults.iter().filter(|kind| kind.harms == harm).cloned().collect();
    let seed = options.seed.rotate_left(32) ^ harm as u64;
    Nemesis::new(kinds, seed, now_ms + UNDISTURBED_MS, course.recorder().clone())
}

fn step_until(
    world: &mut SimWorld,
    limit_ms: u64,
    complaint: &str,
    done: impl Fn(&SimWorld) -> bool,
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

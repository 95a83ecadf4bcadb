//! A run in the simulated world.

use std::collections::BTreeSet;

use super::{Outcome, SIMULATED, play};
use crate::checker::judge;
use crate::history::{Action, Recorder};
use crate::nemesis::{Kind, Rhythm, Schedule};
use crate::trace::Trace;
use crate::workload::Job;
use crate::workload::log::Load;
use crate::world::sim::{Scale, SimWorld};

/// What decides a run. Equal options give equal runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Everything random comes from it.
    pub seed: u64,
    /// What clients do.
    pub job: Job,
    /// Simulated time with faults.
    pub seconds: u64,
    /// Kinds of faults.
    pub faults: Vec<Kind<SimWorld>>,
    /// Faults that are left out, by their number.
    pub skipped: BTreeSet<u32>,
    /// The disks acknowledge before they sync: a run with this must fail.
    pub lying_disks: bool,
    /// Simulated time that passes at once.
    pub tick_ms: u64,
}

/// From this seed on a third of the runs is about subscriptions; earlier ones keep what they were found with.
const QUEUES_FROM: u64 = 30_000;

/// What clients do in a run of a seed: mostly the log, which has the most to lose.
#[must_use]
pub fn job_of(seed: u64) -> Job {
    if seed >= QUEUES_FROM && fastrand::Rng::with_seed(seed ^ 0x0c).u8(..3) == 0 {
        return Job::Queue;
    }
    match fastrand::Rng::with_seed(seed ^ 0x0b).u8(..4) {
        0 => Job::Retries,
        1 => Job::Metadata,
        _ => Job::Log,
    }
}

/// Messages per partition that a run with retention keeps: what comes in within a second.
const KEPT_MESSAGES: u64 = 50;

/// The same where subscribers need some time for them.
const KEPT_MESSAGES_OF_QUEUE: u64 = 500;

/// Runs a simulation. At most one per process, on one thread.
///
/// # Errors
/// If the world can't be made or its disks can't be read.
pub fn run(options: &Options, trace: &Trace) -> Result<Outcome, String> {
    let scale = Scale { tick_ms: options.tick_ms, ..Scale::of(options.seed) };
    let mut world = SimWorld::new(options.seed, &scale, options.lying_disks, trace.clone())?;
    let recorder = Recorder::new(trace.clone());
    let load = load(options.seed, options.job);
    let rhythm = Rhythm { pause_ms: 100..=2_500, quiet_one_in: 0, quiet_ms: 0, at_a_time: usize::MAX, rounds: 1 };
    let schedule = Schedule {
        kinds: options.faults.clone(),
        rhythm,
        seed: options.seed,
        seconds: options.seconds..=2 * options.seconds,
        times: 1,
        skipped: options.skipped.clone(),
    };

    let at_end = play(&mut world, &recorder, (options.job, &load), &schedule, &SIMULATED);
    world.broken_invariants().into_iter().for_each(|broken| recorder.remark("world", Action::Invariant { broken }));
    if at_end {
        world.into_logs()?.iter().for_each(|group| recorder.remark("world", group.compared()));
    }
    let history = recorder.history();
    let verdict = judge(&history);
    Ok(Outcome { history, verdict, took_ms: trace.now_ms() })
}

/// In every third run the log loses its head as it goes: who was away for a few seconds needs a snapshot to come back.
fn load(seed: u64, job: Job) -> Load {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x10ad);
    let (partitions, window) = (rng.u32(1..=5), rng.usize(1..=64));
    let kept = if job == Job::Queue { KEPT_MESSAGES_OF_QUEUE } else { KEPT_MESSAGES };
    let keys = [1, 4, 32][fastrand::Rng::with_seed(seed ^ 0x0be7).usize(..3)];
    // The slower, the more often a leader has been idle for so long that it must ask whether it still leads.
    let tempo = [1, 4, 16][rng.usize(..3)];
    Load {
        partitions,
        keep_messages: seed.is_multiple_of(3).then_some(kept),
        keys: if job == Job::Queue { keys } else { 0 },
        window,
        burst: 1..=4,
        pause_ms: 5 * tempo..80 * tempo,
        attempt_ms: if job == Job::Retries { 5..=30 } else { 3_000..=3_000 },
        snapshot_pause_ms: 200 * tempo..1_500 + 300 * tempo,
    }
}

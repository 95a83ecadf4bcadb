//! A run in the real world.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::{Outcome, REAL, play};
use crate::checker::judge;
use crate::history::Recorder;
use crate::nemesis::{Kind, Rhythm, Schedule};
use crate::trace::Trace;
use crate::workload::Job;
use crate::workload::log::Load;
use crate::world::real::{Host, RealWorld, Scale};

/// What decides a run, as far as anything can: time and the scheduler are nobody's to decide.
#[derive(Clone, Debug)]
pub struct Options {
    /// Faults and load come from it.
    pub seed: u64,
    /// Time with faults.
    pub seconds: u64,
    /// Kinds of faults.
    pub faults: Vec<Kind<RealWorld>>,
    /// What clients do.
    pub job: Job,
    /// A tenth of the load.
    pub light: bool,
    /// Number of nodes.
    pub nodes: u64,
    /// The program that nodes run.
    pub quorate: PathBuf,
    /// Where to keep the nodes' logs.
    pub logs: Option<PathBuf>,
}

/// Silence after which a node is suspected: twice what is usual, because on a machine with few processors, which all nodes
/// share, the loss of one makes the others slow.
const SUSPECT_AFTER_MS: u64 = 1_000;

/// Messages per partition that a run with retention keeps.
const KEPT_MESSAGES: u64 = 5_000;

/// Runs it.
///
/// # Errors
/// If the world can't be made or its disks can't be read.
pub fn run(options: &Options, host: &Host) -> Result<Outcome, String> {
    let trace = Trace::in_real_time();
    let has = |name| options.faults.iter().any(|kind| kind.name == name);
    let scale = Scale {
        nodes: options.nodes,
        quorate: options.quorate.clone(),
        fake_clocks: has("clock"),
        memory_groups: has("memory"),
        suspect_after_ms: SUSPECT_AFTER_MS,
    };
    let mut world = RealWorld::new(&scale, host, trace.clone())?;
    let recorder = Recorder::new(trace.clone());
    let load = load(options.seed, options.job, options.light);
    let rhythm = Rhythm { pause_ms: 500..=4_000, quiet_one_in: 4, quiet_ms: 8_000, at_a_time: 3, rounds: 2 };
    let schedule = Schedule {
        kinds: options.faults.clone(),
        rhythm,
        seed: options.seed,
        seconds: options.seconds,
        skipped: BTreeSet::new(),
    };

    if play(&mut world, &recorder, (options.job, &load), &schedule, &REAL) {
        world.read_logs()?.iter().for_each(|group| recorder.remark("world", group.compared()));
    }
    world.resources().into_iter().for_each(|used| recorder.remark("world", used));
    if let Some(folder) = &options.logs {
        world.keep_logs(folder)?;
    }
    drop(world);
    let history = recorder.history();
    let verdict = judge(&history);
    Ok(Outcome { history, verdict, took_ms: trace.now_ms() })
}

/// Some thousands of messages per second. In every third run the log loses its head as it goes.
fn load(seed: u64, job: Job, light: bool) -> Load {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x10ad);
    Load {
        partitions: rng.u32(2..=6),
        keep_messages: seed.is_multiple_of(3).then_some(if light { KEPT_MESSAGES / 10 } else { KEPT_MESSAGES }),
        window: rng.usize(200..=1_000),
        burst: if light { 2..=6 } else { 12..=36 },
        pause_ms: 15..45,
        attempt_ms: if job == Job::Retries { 1..=20 } else { 3_000..=3_000 },
        // Each reads everything, and all of it is kept for the checkers.
        snapshot_pause_ms: if light { 1_000..3_000 } else { 10_000..20_000 },
    }
}

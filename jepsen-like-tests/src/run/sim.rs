//! A run in the simulated world.

use super::{Faults, Outcome, SIMULATED, expected, follow_course};
use crate::checker::judge;
use crate::history::{Action, Recorder};
use crate::nemesis::{Kind, Rhythm};
use crate::trace::Trace;
use crate::workload::Course;
use crate::workload::log::{self, Load};
use crate::world::World as _;
use crate::world::sim::{Scale, SimWorld};

/// What decides a run. Equal options give equal runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Everything random comes from it.
    pub seed: u64,
    /// Simulated time with faults.
    pub seconds: u64,
    /// Kinds of faults.
    pub faults: Vec<Kind<SimWorld>>,
    /// The disks acknowledge before they sync: a run with this must fail.
    pub lying_disks: bool,
}

/// Messages per partition that a run with retention keeps: what comes in within a second.
const KEPT_MESSAGES: u64 = 50;

/// Runs a simulation. At most one per process, on one thread.
///
/// # Errors
/// If the world can't be made or its disks can't be read.
pub fn run(options: &Options, trace: &Trace) -> Result<Outcome, String> {
    let mut world = SimWorld::new(options.seed, &Scale::of(options.seed), options.lying_disks, trace.clone())?;
    let recorder = Recorder::new(trace.clone());
    let course = Course::new(recorder.clone(), world.access());
    let load = load(options.seed);
    log::start(&mut world, &course, &load);
    let rhythm = Rhythm { pause_ms: 100..=2_500, quiet_one_in: 0, quiet_ms: 0 };
    let faults = Faults { kinds: options.faults.clone(), rhythm, seed: options.seed, seconds: options.seconds };

    let mut logs = Vec::new();
    if let Err(what) = follow_course(&mut world, &course, &faults, &SIMULATED) {
        recorder.remark("world", Action::Broken { what });
    } else {
        logs = world.into_logs()?;
    }
    let history = recorder.history();
    let verdict = judge(&history, &logs, &expected(&options.faults, &load));
    Ok(Outcome { history, verdict, took_ms: trace.now_ms() })
}

/// In every third run the log loses its head as it goes: who was away for a few seconds needs a snapshot to come back.
fn load(seed: u64) -> Load {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x10ad);
    Load {
        partitions: rng.u32(1..=5),
        keep_messages: seed.is_multiple_of(3).then_some(KEPT_MESSAGES),
        window: rng.usize(1..=64),
        burst: 1..=4,
        pause_ms: 5..80,
        snapshot_pause_ms: 200..1_500,
    }
}

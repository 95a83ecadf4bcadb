//! A run in the real world.

use std::path::PathBuf;

use super::{Outcome, REAL, play};
use crate::checker::judge;
use crate::history::Recorder;
use crate::nemesis::Schedule;
use crate::trace::Trace;
use crate::workload::Job;
use crate::workload::log::Load;
use crate::world::real::{Host, RealWorld, Scale};

/// What decides a run, as far as anything can: time and the scheduler are nobody's to decide.
pub struct Options {
    /// What clients do.
    pub job: Job,
    /// How much, and how fast.
    pub load: Load,
    /// Kinds of faults, and when they come.
    pub schedule: Schedule<RealWorld>,
    /// Silence after which a node is suspected.
    pub suspect_after_ms: u64,
    /// Number of nodes.
    pub nodes: u64,
    /// The program that nodes run.
    pub quorate: PathBuf,
    /// Where to keep the nodes' logs.
    pub logs: Option<PathBuf>,
}

/// Runs it.
///
/// # Errors
/// If the world can't be made or its disks can't be read.
pub fn run(options: &Options, host: &Host) -> Result<Outcome, String> {
    let trace = Trace::in_real_time();
    let has = |name| options.schedule.kinds.iter().any(|kind| kind.name == name);
    let scale = Scale {
        nodes: options.nodes,
        quorate: options.quorate.clone(),
        fake_clocks: has("clock"),
        memory_groups: has("memory"),
        suspect_after_ms: options.suspect_after_ms,
    };
    let mut world = RealWorld::new(&scale, host, trace.clone())?;
    let recorder = Recorder::new(trace.clone());

    if play(&mut world, &recorder, (options.job, &options.load), &options.schedule, &REAL) {
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

/// The `quorate` that was built with this program.
///
/// # Errors
/// If it isn't there.
pub fn quorate_beside_this_program() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let quorate = own.with_file_name("quorate");
    let advice = "build it with `cargo build --workspace --bins`, or name one with --quorate";
    if quorate.exists() { Ok(quorate) } else { Err(format!("{} isn't there: {advice}", quorate.display())) }
}

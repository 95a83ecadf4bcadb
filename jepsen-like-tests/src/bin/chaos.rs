//! Runs real nodes with faults. Exit code 0: pass; 1: a property doesn't hold, or too little happened to tell.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use quorate_jepsen::checker::Verdict;
use quorate_jepsen::history::{Action, Phase};
use quorate_jepsen::nemesis::{self, Kind, Rhythm, Schedule};
use quorate_jepsen::plot;
use quorate_jepsen::report::Report;
use quorate_jepsen::run::real::{Options, quorate_beside_this_program, run};
use quorate_jepsen::workload::Job;
use quorate_jepsen::workload::log::Load;
use quorate_jepsen::world::real::{Host, RealWorld};

/// Real nodes, each a process with its own network and disk, and their clients, with faults.
#[derive(Clone, Debug, Parser)]
struct Arguments {
    /// What clients do.
    #[arg(long, value_enum, default_value_t = Job::Log)]
    workload: Job,
    /// `some`: a choice that the seed makes; `all`, `none`, or kinds of faults separated by commas.
    #[arg(long, default_value = "some")]
    faults: String,
    /// Time with faults, such as `90s` or `10m`.
    #[arg(long, default_value = "90s", value_parser = seconds)]
    duration: u64,
    /// Where faults and load come from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Number of nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(3..=5))]
    nodes: u64,
    /// Writes the history to this file, as JSON lines.
    #[arg(long)]
    history: Option<PathBuf>,
    /// Draws acknowledged messages per second and the faults into this file, as SVG.
    #[arg(long)]
    plot: Option<PathBuf>,
    /// Keeps the nodes' logs in this folder.
    #[arg(long)]
    logs: Option<PathBuf>,
    /// The program that nodes run [default: the one next to this program].
    #[arg(long)]
    quorate: Option<PathBuf>,
    /// `light` leaves the machine time for other things.
    #[arg(long, value_enum, default_value_t = Weight::Heavy)]
    load: Weight,
    /// Lists the faults that can be had here, and why others can't; runs nothing.
    #[arg(long)]
    list: bool,
    /// Prints every fault with its outcome.
    #[arg(long)]
    verbose: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Weight {
    Heavy,
    Light,
}

/// Time with faults for each kind that a seed chooses: two rounds of its turn, of which there are two side by side.
const SECONDS_PER_KIND: u64 = 15;

/// Names of faults for which the title of a plot has room; the plot itself names all of them that came.
const NAMES_IN_TITLE: usize = 3;

/// When faults come.
const RHYTHM: Rhythm = Rhythm { pause_ms: 500..=4_000, quiet_one_in: 4, quiet_ms: 8_000, at_a_time: 3, rounds: 2 };

/// Silence after which a node is suspected: twice what is usual, because on a machine with few processors, which all nodes
/// share, the loss of one makes the others slow.
const SUSPECT_AFTER_MS: u64 = 1_000;

/// Messages per partition that a run with retention keeps.
const KEPT_MESSAGES: u64 = 5_000;

fn main() -> ExitCode {
    match chaos(&Arguments::parse()) {
        Ok(Verdict::Pass) => ExitCode::SUCCESS,
        Ok(Verdict::Unknown(_) | Verdict::Fail(_)) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error}");
            ExitCode::FAILURE
        }
    }
}

fn chaos(arguments: &Arguments) -> Result<Verdict, String> {
    let Arguments { workload: job, duration, seed, nodes, logs, .. } = arguments.clone();
    let mut out = io::stdout();
    let mut say = |line: String| writeln!(out, "{line}").map_err(|error| error.to_string());
    let host = Host::look();
    let (kinds, missing) = nemesis::real::kinds(&host);
    for (name, why) in &missing {
        say(format!("fault {name} skipped: {why}"))?;
    }
    if arguments.list {
        kinds.iter().try_for_each(|kind| say(format!("fault {}", kind.name)))?;
        return Ok(Verdict::Pass);
    }
    let faults = choose(kinds, &missing, arguments)?;
    let names: Vec<&str> = faults.iter().map(|kind| kind.name).collect();
    say(format!(
        "options: seed {seed}, {nodes} nodes, workload {}, {duration} s with faults [{}]",
        job.name(),
        names.join(", ")
    ))?;
    let shown = match names.len() {
        0 => "none".to_owned(),
        1..=NAMES_IN_TITLE => names.join(", "),
        kinds => format!("{kinds} kinds"),
    };
    let title = format!("seed {seed}, {nodes} nodes, workload {}, faults: {shown}", job.name());
    let quorate = arguments.quorate.clone().map_or_else(quorate_beside_this_program, Ok)?;
    let seconds = duration..=2 * duration;
    let schedule = Schedule { kinds: faults, rhythm: RHYTHM, seed, seconds, times: 1, skipped: BTreeSet::new() };
    let load = load(seed, job, arguments.load);
    let options = Options { job, load, schedule, suspect_after_ms: SUSPECT_AFTER_MS, nodes, quorate, logs };
    let outcome = run(&options, &host)?;
    if let Some(path) = &arguments.history {
        outcome.history.write_file(path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    if let Some(path) = &arguments.plot {
        plot::draw(path, &title, &outcome.history).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    for event in outcome.history.events.iter().filter(|event| event.phase != Phase::Invoke) {
        match &event.action {
            Action::Fault { fault, detail, .. } if arguments.verbose => {
                say(format!("{:>7} ms: {fault} {}: {detail}", event.at_ms, effect(event.phase)))?;
            }
            Action::Resources { node, resident_kib, open_files, panics } => {
                let mib = resident_kib >> 10;
                say(format!("node {node}: {mib} MiB and {open_files} open files at most, {panics} panics"))?;
            }
            _ => {}
        }
    }
    say(Report::of(&outcome.history, outcome.took_ms).to_string())?;
    say(format!("verdict: {}", outcome.verdict))?;
    Ok(outcome.verdict)
}

fn effect(phase: Phase) -> &'static str {
    if phase == Phase::Ok { "took effect" } else { "had no effect" }
}

/// The kinds that were asked for: one that can't be had is an error only if it was asked for by name.
fn choose(
    kinds: Vec<Kind<RealWorld>>,
    missing: &[(&'static str, String)],
    arguments: &Arguments,
) -> Result<Vec<Kind<RealWorld>>, String> {
    if arguments.faults == "some" {
        let mut chosen = kinds;
        fastrand::Rng::with_seed(arguments.seed).shuffle(&mut chosen);
        chosen.truncate(usize::try_from(arguments.duration / SECONDS_PER_KIND).unwrap_or(usize::MAX).max(1));
        return Ok(chosen);
    }
    let mut asked = arguments.faults.split(',');
    if let Some((name, why)) = asked.find_map(|asked| missing.iter().find(|(name, _)| *name == asked)) {
        return Err(format!("fault {name} can't be had here: {why}"));
    }
    nemesis::pick(kinds, &arguments.faults, arguments.seed)
}

/// Ordering keys where they count.
const KEYS: usize = 50;

/// Some thousands of messages per second, or a tenth of that. In every third run the log loses its head as it goes.
fn load(seed: u64, job: Job, weight: Weight) -> Load {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x10ad);
    let light = weight == Weight::Light;
    Load {
        partitions: rng.u32(2..=6),
        keep_messages: seed.is_multiple_of(3).then_some(if light { KEPT_MESSAGES / 10 } else { KEPT_MESSAGES }),
        keys: if job == Job::Queue { KEYS } else { 0 },
        window: rng.usize(200..=1_000),
        burst: if light { 2..=6 } else { 12..=36 },
        pause_ms: 15..45,
        attempt_ms: if job == Job::Retries { 1..=20 } else { 3_000..=3_000 },
        // Each reads everything, and all of it is kept for the checkers.
        snapshot_pause_ms: if light { 1_000..3_000 } else { 10_000..20_000 },
    }
}

fn seconds(text: &str) -> Result<u64, String> {
    let (number, unit) = text.split_at(text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = number.parse().map_err(|_| format!("{text:?} is no time, such as 90s or 10m"))?;
    match unit {
        "s" | "" => Ok(number),
        "m" => Ok(number * 60),
        "h" => Ok(number * 3_600),
        _ => Err(format!("{unit:?} is none of s, m, h")),
    }
}

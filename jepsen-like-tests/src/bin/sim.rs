//! Runs one seed of the simulation. Exit code 0: pass; 1: a property doesn't hold, or too little happened to tell.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use quorate_jepsen::checker::Verdict;
use quorate_jepsen::nemesis;
use quorate_jepsen::report::Report;
use quorate_jepsen::run::sim::{Options, job_of, run};
use quorate_jepsen::trace::Trace;
use quorate_jepsen::workload::Job;
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

/// Three nodes and their clients in a simulated world, with faults, from one seed.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where everything random comes from.
    #[arg(long)]
    seed: u64,
    /// What clients do [default: what the seed says]
    #[arg(long, value_enum)]
    workload: Option<Job>,
    /// Simulated time with faults; up to twice as long until each kind took effect.
    #[arg(long, default_value_t = 40)]
    seconds: u64,
    /// `some`, which the seed picks; `all`, `none`, or kinds of faults separated by commas.
    #[arg(long, default_value = "some")]
    faults: String,
    /// Simulated milliseconds that pass at a time, 1 to 10: what lies within them happens at one moment. A coarser run is
    /// another run, and a faster one.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=10))]
    tick: u64,
    /// Leaves out faults, by their numbers in the history: the others come all the same.
    #[arg(long, value_delimiter = ',')]
    skip: Vec<u32>,
    /// Prints what happened as one JSON object, in a line that begins with `report:`.
    #[arg(long)]
    json: bool,
    /// `lies`: the disks acknowledge before they sync, which the checkers must find out.
    #[arg(long, value_enum, default_value_t = Disk::Honest)]
    disk: Disk,
    /// Writes every line of the trace to this file.
    #[arg(long)]
    trace: Option<PathBuf>,
    /// Writes the history to this file, as JSON lines.
    #[arg(long)]
    history: Option<PathBuf>,
    /// Prints logs of the nodes and clients to the error output, such as `quorate_server=debug`.
    #[arg(long)]
    log: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Disk {
    Honest,
    Lies,
}

pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(warning) = quorate_model::sabotage::warning() {
        eprintln!("sim: {warning}");
    }
    match simulate(&arguments) {
        Ok(Verdict::Pass) => ExitCode::SUCCESS,
        Ok(Verdict::Unknown(_) | Verdict::Fail(_)) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("sim: {error}");
            ExitCode::FAILURE
        }
    }
}

fn simulate(arguments: &Arguments) -> Result<Verdict, String> {
    let options = options(arguments)?;
    let replay = replay(arguments);
    let trace = Trace::new();
    if let Some(path) = &arguments.trace {
        trace.dump_to(path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    install_logs(arguments, &trace)?;
    tell_seed_on_panic(arguments.seed, replay.clone(), trace.clone());

    let names: Vec<&str> = options.faults.iter().map(|kind| kind.name).collect();
    let mut out = io::stdout();
    let mut say = |line: String| writeln!(out, "{line}").map_err(|error| error.to_string());
    say(format!("seed: {}", options.seed))?;
    say(format!(
        "options: workload {}, {} s with faults [{}], disks {:?}",
        options.job.name(),
        options.seconds,
        names.join(", "),
        arguments.disk
    ))?;
    let outcome = run(&options, &trace)?;
    let flushed = trace.flush();
    flushed.map_err(|error| format!("the trace can't be written: {error}"))?;
    if let Some(path) = &arguments.history {
        outcome.history.write_file(path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let report = Report::of(&outcome.history, outcome.took_ms);
    say(report.to_string())?;
    if arguments.json {
        say(format!("report: {}", serde_json::to_string(&report).map_err(|error| error.to_string())?))?;
    }
    let (hash, lines) = trace.sum();
    say(format!("trace: {hash:016x} over {lines} lines"))?;
    say(format!("verdict: {}", outcome.verdict))?;
    say(format!("replay: {replay}"))?;
    Ok(outcome.verdict)
}

fn options(arguments: &Arguments) -> Result<Options, String> {
    let faults = nemesis::pick(nemesis::sim::kinds(), &arguments.faults, arguments.seed)?;
    let lying_disks = arguments.disk == Disk::Lies;
    let job = arguments.workload.unwrap_or_else(|| job_of(arguments.seed));
    Ok(Options {
        seed: arguments.seed,
        job,
        seconds: arguments.seconds,
        faults,
        skipped: arguments.skip.iter().copied().collect(),
        lying_disks,
        tick_ms: arguments.tick,
    })
}

fn replay(arguments: &Arguments) -> String {
    let Arguments { seed, seconds, faults, disk, tick, .. } = arguments;
    let workload = arguments.workload.map(|job| format!(" --workload {}", job.name())).unwrap_or_default();
    let numbers: Vec<String> = arguments.skip.iter().map(u32::to_string).collect();
    let skip = if numbers.is_empty() { String::new() } else { format!(" --skip {}", numbers.join(",")) };
    let tick = if *tick == 1 { String::new() } else { format!(" --tick {tick}") };
    let disk = if *disk == Disk::Lies { " --disk lies" } else { "" };
    format!(
        "cargo run --package quorate-jepsen --bin sim -- --seed {seed}{workload} --seconds {seconds} --faults {faults}{tick}{skip}{disk}"
    )
}

fn install_logs(arguments: &Arguments, trace: &Trace) -> Result<(), String> {
    let packets =
        trace.clone().with_filter(filter_fn(|metadata| metadata.target() == "turmoil" && metadata.is_event()));
    let everything = tracing_subscriber::registry().with(packets);
    let installed = match &arguments.log {
        // Not a layer that is `None`: it would enable every span of every library.
        None => everything.try_init(),
        Some(directives) => {
            let filter = EnvFilter::builder().parse(directives).map_err(|error| format!("--log: {error}"))?;
            let logs = fmt::layer().with_writer(io::stderr).with_ansi(false).with_timer(SimulatedTime(trace.clone()));
            everything.with(logs.with_filter(filter)).try_init()
        }
    };
    installed.map_err(|error| error.to_string())
}

struct SimulatedTime(Trace);

impl fmt::time::FormatTime for SimulatedTime {
    fn format_time(&self, out: &mut fmt::format::Writer<'_>) -> std::fmt::Result {
        write!(out, "{:>7}", self.0.now_ms())
    }
}

/// A panic within a simulated host ends the process; then only this says how to see it again.
fn tell_seed_on_panic(seed: u64, replay: String, trace: Trace) {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        before(panic);
        eprintln!("seed: {seed}, at {} ms\nreplay: {replay}", trace.now_ms());
        let _ = trace.flush();
    }));
}

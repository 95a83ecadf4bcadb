//! Runs one seed of the simulation. Exit code 0: pass; 1: a property doesn't hold, or too little happened to tell.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use quorate_jepsen::checker::Verdict;
use quorate_jepsen::nemesis;
use quorate_jepsen::run::sim::{Options, run};
use quorate_jepsen::run::{report, write_history};
use quorate_jepsen::trace::Trace;
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
    /// Simulated time with faults.
    #[arg(long, default_value_t = 40)]
    seconds: u64,
    /// `all`, `none`, or kinds of faults separated by commas.
    #[arg(long, default_value = "all")]
    faults: String,
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

fn main() -> ExitCode {
    let arguments = Arguments::parse();
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
    say(format!("options: {} s with faults [{}], disks {:?}", options.seconds, names.join(", "), arguments.disk))?;
    let outcome = run(&options, &trace)?;
    let flushed = trace.flush();
    flushed.map_err(|error| format!("the trace can't be written: {error}"))?;
    if let Some(path) = &arguments.history {
        write_history(&outcome.history, path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    say(format!("simulated: {} ms", outcome.took_ms))?;
    report(&outcome.history).into_iter().try_for_each(&mut say)?;
    let (hash, lines) = trace.sum();
    say(format!("trace: {hash:016x} over {lines} lines"))?;
    say(format!("verdict: {}", outcome.verdict))?;
    say(format!("replay: {replay}"))?;
    Ok(outcome.verdict)
}

fn options(arguments: &Arguments) -> Result<Options, String> {
    let faults = nemesis::pick(nemesis::sim::kinds(), &arguments.faults)?;
    let lying_disks = arguments.disk == Disk::Lies;
    Ok(Options { seed: arguments.seed, seconds: arguments.seconds, faults, lying_disks })
}

fn replay(arguments: &Arguments) -> String {
    let Arguments { seed, seconds, faults, disk, .. } = arguments;
    let disk = if *disk == Disk::Lies { " --disk lies" } else { "" };
    format!("cargo run --package quorate-jepsen --bin sim -- --seed {seed} --seconds {seconds} --faults {faults}{disk}")
}

fn install_logs(arguments: &Arguments, trace: &Trace) -> Result<(), String> {
    let packets =
        trace.clone().with_filter(filter_fn(|metadata| metadata.target() == "turmoil" && metadata.is_event()));
    let logs = match &arguments.log {
        None => None,
        Some(directives) => {
            let filter = EnvFilter::builder().parse(directives).map_err(|error| format!("--log: {error}"))?;
            let clock = trace.clone();
            let timer = SimulatedTime(clock);
            Some(fmt::layer().with_writer(io::stderr).with_ansi(false).with_timer(timer).with_filter(filter))
        }
    };
    tracing_subscriber::registry().with(packets).with(logs).try_init().map_err(|error| error.to_string())
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

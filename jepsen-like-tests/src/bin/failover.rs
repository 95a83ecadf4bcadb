//! Hits the leader of a loaded partition again and again, and prints how long nothing was acknowledged each time. Exit code 0:
//! as often as was asked for, and every history passes; 1: not so.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use comfy_table::{Table, presets};
use hdrhistogram::Histogram;
use quorate_jepsen::checker::Verdict;
use quorate_jepsen::gap::gaps;
use quorate_jepsen::nemesis::{self, Kind, Rhythm, Schedule};
use quorate_jepsen::report::Report;
use quorate_jepsen::run::Outcome;
use quorate_jepsen::run::real::{Options, quorate_beside_this_program, run};
use quorate_jepsen::workload::Job;
use quorate_jepsen::workload::log::Load;
use quorate_jepsen::world::real::{Host, RealWorld};

/// How long publishing to a partition stops when its leader is killed, stands still, or is cut off.
#[derive(Debug, Parser)]
struct Arguments {
    /// Faults of each kind that must take effect.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    kills: u32,
    /// These kinds alone.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Hit>,
    /// Number of nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(3..=5))]
    nodes: u64,
    /// Where the length of the faults comes from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keeps the histories in this folder, as JSON lines.
    #[arg(long)]
    histories: Option<PathBuf>,
    /// The program that nodes run [default: the one next to this program]
    #[arg(long)]
    quorate: Option<PathBuf>,
}

/// What is done to a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Hit {
    Kill,
    Pause,
    Isolate,
}

/// Whoever was hit comes back and catches up before the next is, and no fault begins in what is measured of the one before.
const RHYTHM: Rhythm = Rhythm { pause_ms: 6_000..=9_000, quiet_one_in: 0, quiet_ms: 0, at_a_time: 1, rounds: 1 };

/// Longest time for a fault to come and take effect; it needs about a quarter of it.
const SECONDS_PER_FAULT: u64 = 60;

/// Silence after which a node is suspected: what is usual.
const SUSPECT_AFTER_MS: u64 = 500;

const HEADER: [&str; 6] = ["fault", "took effect", "gap p50 ms", "gap p99 ms", "gap max ms", "verdict"];

/// The longest gap told apart; a longer one counts as this. An hour.
const GAP_MAX_MS: u64 = 3_600_000;

/// Digits to which gaps are told apart: up to 20 s every millisecond.
const DIGITS: u8 = 4;

fn main() -> ExitCode {
    match failover(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("failover: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all that was asked for could be measured, and nothing is wrong with it.
fn failover(arguments: &Arguments) -> Result<bool, String> {
    let host = Host::look();
    let (kinds, missing) = nemesis::real::kinds(&host);
    let hits: &[Hit] = if arguments.only.is_empty() { Hit::value_variants() } else { &arguments.only };
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(HEADER);
    let mut is_sound = true;
    for hit in hits {
        let name = hit.fault();
        if let Some((_, why)) = missing.iter().find(|(missing, _)| *missing == name) {
            if !arguments.only.is_empty() {
                return Err(format!("fault {name} can't be had here: {why}"));
            }
            say(&format!("fault {name} skipped: {why}"))?;
            continue;
        }
        let kind = nemesis::pick(kinds.clone(), name, arguments.seed)?;
        let outcome = run(&options(arguments, kind)?, &host)?;
        if let Some(folder) = &arguments.histories {
            let path = folder.join(format!("{name}.jsonl"));
            let kept = std::fs::create_dir_all(folder).and_then(|()| outcome.history.write_file(&path));
            kept.map_err(|error| format!("{}: {error}", path.display()))?;
        }
        let gaps: Vec<u64> = gaps(&outcome.history).iter().map(|gap| gap.ms).collect();
        say(&format!("{name}: {gaps:?} ms without an acknowledgement"))?;
        say(&format!("{}\nverdict: {}\n", Report::of(&outcome.history, outcome.took_ms), outcome.verdict))?;
        is_sound &= outcome.verdict == Verdict::Pass && gaps.len() >= arguments.kills as usize;
        table.add_row(row(name, &gaps, &outcome)?);
    }
    if !table.is_empty() {
        say(&table.to_string())?;
    }
    Ok(is_sound)
}

/// One partition with a steady pulse: its gaps can't be shorter than the time between two messages.
fn options(arguments: &Arguments, kinds: Vec<Kind<RealWorld>>) -> Result<Options, String> {
    let Arguments { kills, nodes, seed, .. } = *arguments;
    let load = Load {
        partitions: 1,
        keep_messages: None,
        keys: 0,
        // More than a publisher sends while its messages may be without an outcome, so that nothing else holds it up.
        window: 10_000,
        burst: 1..=1,
        pause_ms: 2..6,
        // As it is if nobody says otherwise: what is given up by then is a client's own affair.
        attempt_ms: 10_000..=10_000,
        snapshot_pause_ms: 20_000..30_000,
    };
    let seconds = 0..=SECONDS_PER_FAULT * u64::from(kills);
    let schedule = Schedule { kinds, rhythm: RHYTHM, seed, seconds, times: kills, skipped: BTreeSet::new() };
    let quorate = arguments.quorate.clone().map_or_else(quorate_beside_this_program, Ok)?;
    Ok(Options { job: Job::Log, load, schedule, suspect_after_ms: SUSPECT_AFTER_MS, nodes, quorate, logs: None })
}

fn row(name: &str, gaps: &[u64], outcome: &Outcome) -> Result<Vec<String>, String> {
    let mut histogram = Histogram::<u64>::new_with_bounds(1, GAP_MAX_MS, DIGITS).map_err(|error| error.to_string())?;
    gaps.iter().for_each(|gap| histogram.saturating_record(*gap));
    let figures = [histogram.value_at_quantile(0.5), histogram.value_at_quantile(0.99), histogram.max()];
    let verdict = match outcome.verdict {
        Verdict::Pass => "pass",
        Verdict::Unknown(_) => "unknown",
        Verdict::Fail(_) => "fail",
    };
    let [p50, p99, max] = figures.map(|ms| ms.to_string());
    Ok(vec![name.to_owned(), gaps.len().to_string(), p50, p99, max, verdict.to_owned()])
}

fn say(line: &str) -> Result<(), String> {
    writeln!(io::stdout(), "{line}").map_err(|error| error.to_string())
}

impl Hit {
    fn fault(self) -> &'static str {
        match self {
            Self::Kill => "kill-leader",
            Self::Pause => "pause-leader",
            Self::Isolate => "isolate-leader",
        }
    }
}

//! Runs many seeds of the simulation, one process each, as many at a time as there are processors; says what they covered,
//! and shrinks the schedule of each one that fails. Exit code 0: every seed passed.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use quorate_jepsen::report::Report;
use quorate_jepsen::shrink;

/// Many seeds of the simulation.
#[derive(Debug, Parser)]
struct Arguments {
    /// Seeds to run.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them; the others follow it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Begins no seed after so many minutes.
    #[arg(long)]
    minutes: Option<u64>,
    /// Seeds at a time [default: as many as there are processors]
    #[arg(long)]
    jobs: Option<usize>,
    /// Of so many seeds one is run twice, and both runs must give the same trace; 0: none.
    #[arg(long, default_value_t = 20)]
    twice_one_in: u64,
    /// Fails are told and not shrunk.
    #[arg(long)]
    no_shrinking: bool,
    /// Passed on to `sim`, such as `--seconds 120 --workload log`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// What a sweep has seen so far.
#[derive(Default)]
struct Sum {
    report: Report,
    passed: u64,
    twice: u64,
    unknown: Vec<u64>,
    failed: Vec<u64>,
}

/// What one process said.
struct Run {
    output: String,
}

impl Run {
    fn line(&self, name: &str) -> Option<&str> {
        self.output.lines().find_map(|line| line.strip_prefix(name))
    }

    fn verdict(&self) -> &str {
        // A process that ended without a verdict has panicked: a node or the simulation has a bug.
        self.line("verdict: ").unwrap_or("fail")
    }

    fn report(&self) -> Option<Report> {
        serde_json::from_str(self.line("report: ")?).ok()
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.sweep() {
        Ok(sum) if sum.failed.is_empty() && sum.unknown.is_empty() && sum.passed > 0 => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("sweep: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Sum {
    fn seeds(&self) -> u64 {
        self.passed + (self.unknown.len() + self.failed.len()) as u64
    }
}

impl Arguments {
    fn sweep(&self) -> io::Result<Sum> {
        let began = Instant::now();
        let until = self.minutes.map(|minutes| began + Duration::from_secs(60 * minutes));
        let jobs = self.jobs.map_or_else(thread::available_parallelism, |jobs| Ok(jobs.try_into().unwrap_or(ONE)))?;
        let next = AtomicU64::new(0);
        let sum = Mutex::new(Sum::default());
        thread::scope(|scope| {
            let workers: Vec<_> =
                (0..jobs.get()).map(|_| scope.spawn(|| self.work(&next, (began, until), &sum))).collect();
            workers.into_iter().try_for_each(|worker| match worker.join() {
                Ok(outcome) => outcome,
                Err(_) => Err(io::Error::other("a worker of the sweep panicked")),
            })
        })?;
        let sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.tell(&sum, began.elapsed())?;
        Ok(sum)
    }

    fn work(&self, next: &AtomicU64, (began, until): (Instant, Option<Instant>), sum: &Mutex<Sum>) -> io::Result<()> {
        loop {
            let position = next.fetch_add(1, Ordering::Relaxed);
            if position >= self.seeds || until.is_some_and(|until| Instant::now() >= until) {
                return Ok(());
            }
            self.judge(self.seed.wrapping_add(position), position, sum)?;
            // A long sweep that is ended early has told what it found so far.
            let sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
            if sum.seeds().is_multiple_of(TELL_EVERY) {
                self.tell(&sum, began.elapsed())?;
            }
        }
    }

    fn judge(&self, seed: u64, position: u64, sum: &Mutex<Sum>) -> io::Result<()> {
        let run = self.simulate(seed, &BTreeSet::new())?;
        let mut verdict = run.verdict().to_owned();
        let twice = self.twice_one_in > 0 && position.is_multiple_of(self.twice_one_in);
        if twice && verdict == "pass" {
            let again = self.simulate(seed, &BTreeSet::new())?;
            // A server's connections forget calls after a second of the system's clock, which is out of reach (ADR 0003):
            // on a machine that has too much to do one run may see that, and not the next one.
            if run.line("trace: ") != again.line("trace: ") && again.line("trace: ") != self.trace(seed)?.as_deref() {
                "fail: two runs of this seed differ, and a third".clone_into(&mut verdict);
            }
        }
        {
            let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
            sum.twice += u64::from(twice);
            if let Some(report) = run.report() {
                sum.report.add(&report);
            }
            match verdict.as_str() {
                "pass" => sum.passed += 1,
                "unknown" => sum.unknown.push(seed),
                _ => sum.failed.push(seed),
            }
        }
        if verdict != "pass" {
            let mut out = io::stdout().lock();
            writeln!(out, "seed {seed}: {verdict}")?;
            out.write_all(run.output.as_bytes())?;
        }
        if verdict == "fail" && !self.no_shrinking {
            self.shrink(seed, &run)?;
        }
        Ok(())
    }

    fn trace(&self, seed: u64) -> io::Result<Option<String>> {
        Ok(self.simulate(seed, &BTreeSet::new())?.line("trace: ").map(str::to_owned))
    }

    /// Finds the faults without which this seed doesn't fail.
    fn shrink(&self, seed: u64, run: &Run) -> io::Result<()> {
        let happened: Option<BTreeSet<u32>> = run.report().map(|report| report.schedule.keys().copied().collect());
        let Some(happened) = happened else {
            return writeln!(io::stdout(), "seed {seed} ended before it could report: it can't be shrunk");
        };
        let mut failed = Ok(());
        let needed = shrink::minimal(&happened, |kept| {
            let skipped = happened.difference(kept).copied().collect();
            match self.simulate(seed, &skipped) {
                Ok(run) => run.verdict() == "fail",
                Err(error) => {
                    failed = Err(error);
                    false
                }
            }
        });
        failed?;
        let skipped: BTreeSet<u32> = happened.difference(&needed).copied().collect();
        let run = self.simulate(seed, &skipped)?;
        let schedule = run.report().map(|report| report.schedule).unwrap_or_default();
        let mut out = io::stdout().lock();
        writeln!(out, "seed {seed} needs {} of {} faults to fail:", needed.len(), happened.len())?;
        for (number, fault) in &schedule {
            writeln!(out, "  {number}: {fault}")?;
        }
        writeln!(out, "replay: {}", run.line("replay: ").unwrap_or("the run said nothing"))
    }

    fn simulate(&self, seed: u64, skipped: &BTreeSet<u32>) -> io::Result<Run> {
        let mut command = Command::new(simulator()?);
        command.arg("--json").arg("--seed").arg(seed.to_string()).args(&self.rest);
        if !skipped.is_empty() {
            let numbers: Vec<String> = skipped.iter().map(u32::to_string).collect();
            command.arg("--skip").arg(numbers.join(","));
        }
        let output = command.output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Run { output: text(&output.stdout) + &text(&output.stderr) })
    }

    fn tell(&self, sum: &Sum, took: Duration) -> io::Result<()> {
        let Sum { report, passed, twice, unknown, failed } = sum;
        let seeds = sum.seeds();
        let mut out = io::stdout().lock();
        let hours = report.took_ms as f64 / 3_600_000.0;
        writeln!(out, "{seeds} seeds from {} on, {hours:.2} simulated hours in {} s", self.seed, took.as_secs())?;
        writeln!(out, "{report}")?;
        writeln!(out, "{twice} seeds were run twice, to the same trace unless one is named above")?;
        writeln!(out, "passed {passed}, unknown {} {unknown:?}, failed {} {failed:?}", unknown.len(), failed.len())?;
        if failed.is_empty() && seeds > 0 {
            let bound = 300.0 / seeds as f64;
            writeln!(out, "0 of {seeds} seeds failed; 95 % upper bound {bound:.2} %")?;
        }
        Ok(())
    }
}

/// After so many seeds the sum so far is told.
const TELL_EVERY: u64 = 100;

const ONE: std::num::NonZeroUsize = std::num::NonZeroUsize::MIN;

/// The program that runs one seed, which is built together with this one.
fn simulator() -> io::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("sim"))
}

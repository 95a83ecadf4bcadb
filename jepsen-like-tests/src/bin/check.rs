//! Judges histories that were written down. Exit code 0: all of them pass.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use quorate_jepsen::checker::{Verdict, judge};
use quorate_jepsen::history::History;
use quorate_jepsen::plot;
use quorate_jepsen::report::Report;

/// Judges histories again.
#[derive(Debug, Parser)]
struct Arguments {
    /// JSON lines, as `--history` of `sim` and `chaos` writes them.
    #[arg(required = true)]
    histories: Vec<PathBuf>,
    /// Draws acknowledged messages per second and the faults of one history into this file, as SVG.
    #[arg(long)]
    plot: Option<PathBuf>,
}

fn main() -> ExitCode {
    let Arguments { histories, plot } = Arguments::parse();
    if plot.is_some() && histories.len() > 1 {
        eprintln!("check: one plot shows one history, not {}", histories.len());
        return ExitCode::FAILURE;
    }
    let mut all_pass = true;
    for path in &histories {
        match check(path, plot.as_deref()) {
            Ok(verdict) => all_pass &= verdict == Verdict::Pass,
            Err(error) => {
                eprintln!("check: {}: {error}", path.display());
                all_pass = false;
            }
        }
    }
    if all_pass { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn check(path: &Path, plot: Option<&Path>) -> Result<Verdict, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let history = History::parse(&text).map_err(|error| format!("not a history: {error}"))?;
    let took_ms = history.events.last().map_or(0, |event| event.at_ms);
    if let Some(plot) = plot {
        plot::draw(plot, &path.display().to_string(), &history)
            .map_err(|error| format!("{}: {error}", plot.display()))?;
    }
    let verdict = judge(&history);
    println!("{}\n{}\nverdict: {verdict}", path.display(), Report::of(&history, took_ms));
    Ok(verdict)
}

//! Measurements of whole clusters that take more than one load: run by `cargo xtask bench`.

use clap::{Parser, Subcommand};
use quorate_benches::failover::Failover;
use quorate_benches::failure::Failure;
use quorate_benches::idle::Idle;
use quorate_benches::sweep::Sweep;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
#[command(name = "measure", about = "Measures clusters of processes on this machine")]
struct Arguments {
    /// The `quorate` binary to measure
    #[arg(long, value_name = "FILE")]
    quorate: PathBuf,
    #[command(subcommand)]
    measurement: Measurement,
}

#[derive(Subcommand)]
enum Measurement {
    /// How long publishing stops when nodes die, freeze, or are restarted
    Failover(Failover),
    /// What an unused cluster costs
    Idle(Idle),
    /// Throughput and latency against partitions, message size, messages in flight, and backlog
    Sweep(Sweep),
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match stoppable(run(&arguments)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Dropped when the program is told to stop, a measurement takes its cluster along.
async fn stoppable(measurement: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        outcome = measurement => outcome,
        _ = tokio::signal::ctrl_c() => Err(Failure::new("stopped before the end")),
        _ = terminate.recv() => Err(Failure::new("stopped before the end")),
    }
}

async fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.measurement {
        Measurement::Failover(failover) => failover.run(&arguments.quorate).await,
        Measurement::Idle(idle) => idle.run(&arguments.quorate).await,
        Measurement::Sweep(sweep) => sweep.run(&arguments.quorate).await,
    }
}

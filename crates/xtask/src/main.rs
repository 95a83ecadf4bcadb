//! All automation of the repository, in Rust: `cargo xtask <task>`.
//!
//! - [`bench`]: measurements of whole clusters
//! - [`jepsen`]: clusters under faults, simulated and real
//! - [`sabotage`]: planted bugs that the tests must catch
//! - [`setup`]: what the machine must have, and the environment in which cargo runs
//! - [`tasks`]: the tasks themselves, as lists of steps
//! - [`steps`]: how a step is announced, timed and reported
//! - [`tidy`]: checks of the repository's own rules that no other tool knows

use clap::{Parser, Subcommand};
use std::process::ExitCode;

mod bench;
mod jepsen;
mod sabotage;
mod setup;
mod steps;
mod tasks;
mod tidy;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Set-up, development cluster, tests and checks")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install the system packages that the build needs (Debian: through apt-get)
    Setup,
    /// Set up, build, and run a three-node cluster of processes until Ctrl-C
    Dev {
        /// Passed on to `quorate dev`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Set up, build, and run every test of the workspace
    Test,
    /// Measure clusters of processes on this machine
    Bench(bench::Bench),
    /// Run clusters of processes under faults, and judge what clients were told
    Chaos(jepsen::Rest),
    /// Hit the leader of a loaded partition again and again, and measure how long publishing stops
    Failover(jepsen::Rest),
    /// Run many seeds of the simulation, and shrink what fails
    Sim(jepsen::Rest),
    /// Plant bugs, one after another, and see that the test that is named for each catches it; prints the table
    ///
    /// Builds the tests and the simulation once more, with the feature `sabotage`; the honest programs stay as they are. For
    /// each bug the test that is named for it must fail within its time, by what the table says; without the bug it
    /// must pass. Every output is kept in the folder `sabotage` of the target folder.
    Sabotage(sabotage::Sabotage),
    /// Check everything that can be checked without running tests; writes nothing
    Verify,
    /// Write what `verify` would complain about and a machine can mend
    Fix,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Setup => tasks::set_up(),
        Task::Dev { arguments } => tasks::dev(&arguments),
        Task::Test => tasks::test(),
        Task::Bench(bench) => bench.run(),
        Task::Chaos(rest) => jepsen::hand_over("chaos", &rest),
        Task::Failover(rest) => jepsen::hand_over("failover", &rest),
        Task::Sim(rest) => jepsen::hand_over("sweep", &rest),
        Task::Sabotage(sabotage) => sabotage.run(),
        Task::Verify => tasks::verify(),
        Task::Fix => tasks::fix(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("\nxtask: {failure}");
            ExitCode::FAILURE
        }
    }
}

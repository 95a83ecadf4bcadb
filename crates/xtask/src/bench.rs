//! `cargo xtask bench`: builds what is measured and what measures it, and hands over to the latter.

use crate::setup::Workshop;
use crate::steps::{Done, Failure, Steps, run};
use crate::tasks::BUILD_ADVICE;
use clap::{Args, Subcommand};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The clients of other brokers have a workspace and a lock file of their own.
const PEERS: &str = "benches/peers/Cargo.toml";

#[derive(Args)]
pub(crate) struct Bench {
    /// Build and measure with all optimisations [default: if such a build was made before]
    #[arg(long)]
    release: bool,
    /// Measure the build that tests use: only ratios mean anything then
    #[arg(long, conflicts_with = "release")]
    dev: bool,
    #[command(subcommand)]
    measurement: Measurement,
}

#[derive(Subcommand)]
enum Measurement {
    /// The same load on NATS JetStream, RabbitMQ and Kafka, as far as they are installed, in one run
    Peers(Rest),
    /// Throughput and latency against partitions, message size, messages in flight, backlog; with plots
    Sweep(Rest),
    /// How long publishing stops when nodes are killed, frozen, restarted
    Failover(Rest),
    /// Processor and memory of a cluster that nobody uses
    Idle(Rest),
}

/// Passed on; `--help` lists what there is.
#[derive(Args)]
#[command(disable_help_flag = true)]
struct Rest {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

impl Bench {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let workshop = Workshop::find()?;
        let profile = self.profile(&workshop);
        let release = (profile == "release").then_some("--release");
        let build = |arguments: &[&str]| {
            let arguments: Vec<&str> = ["build", "--locked"].into_iter().chain(arguments.iter().copied()).collect();
            run(&mut workshop.cargo(&[arguments, release.into_iter().collect()].concat()), BUILD_ADVICE)
        };
        let mut steps = Steps::new(2);
        steps.run(&format!("build, {profile} profile (RocksDB takes several minutes the first time)"), || {
            // The whole workspace, because another choice of packages would build half of it twice.
            build(&["--workspace", "--bin", "quorate", "--bin", "measure"])?;
            match self.measurement {
                Measurement::Peers(_) => build(&["--manifest-path", PEERS]),
                _ => Ok(Done::Passed),
            }
        })?;
        let (program, name, rest) = match &self.measurement {
            Measurement::Peers(rest) => ("quorate-peers", None, rest),
            Measurement::Sweep(rest) => ("measure", Some("sweep"), rest),
            Measurement::Failover(rest) => ("measure", Some("failover"), rest),
            Measurement::Idle(rest) => ("measure", Some("idle"), rest),
        };
        let mut command = Command::new(workshop.built(profile, program));
        command.arg("--quorate").arg(workshop.built(profile, "quorate"));
        command.args(name).args(&rest.arguments).current_dir(&workshop.root);
        steps.run(name.unwrap_or("peers"), || {
            // It takes this process's place, so that Ctrl-C reaches it and it can stop what it started.
            let error = command.exec();
            Err(Failure::new(format!("`{program}` could not be started: {error}."), BUILD_ADVICE))
        })
    }

    fn profile(&self, workshop: &Workshop) -> &'static str {
        if self.release {
            return "release";
        }
        if !self.dev && workshop.built("release", "quorate").exists() {
            return "release";
        }
        if !self.dev {
            println!(
                "no release build is there: measuring the one that tests use; `cargo xtask bench --release` makes one"
            );
        }
        "debug"
    }
}

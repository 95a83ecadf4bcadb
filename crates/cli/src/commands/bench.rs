//! `quorate bench`: loads a cluster and says what it did. Written on the SDK alone: what it measures is what
//! a program with the SDK would see.
//!
//! - [`options`]: what is asked for, and its bounds
//! - [`topic`]: the topic that is measured, made for the purpose and removed afterwards
//! - [`schedule`]: when each message is due, so that a slow answer can't hide the wait of the next ones
//! - [`load`]: the publishers
//! - [`tally`]: what happened, in counts and histograms
//! - [`report`]: tables, JSON, files for plots
//! - [`consume`]: subscribers that share a subscription
//! - [`publish`], [`drain`], [`delivery`]: the three benchmarks

use crate::connect::Connect;
use crate::failure::Failure;
use crate::output::Output;
use clap::Subcommand;

mod consume;
mod delivery;
mod drain;
mod load;
mod options;
mod publish;
mod report;
mod schedule;
mod tally;
mod topic;

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Publish, and measure how long acknowledgements take and how many there are
    Pub(publish::PubBench),
    /// Read a topic from its beginning to its end, or take its messages by a subscription, and measure how fast
    Sub(drain::SubBench),
    /// Publish and read or take at once, and measure the time from sending a message to having it
    E2e(delivery::E2eBench),
}

impl BenchCommand {
    pub(crate) async fn run(&self, connect: &Connect, output: Output) -> Result<(), Failure> {
        match self {
            BenchCommand::Pub(bench) => bench.run(connect, output).await,
            BenchCommand::Sub(bench) => bench.run(connect, output).await,
            BenchCommand::E2e(bench) => bench.run(connect, output).await,
        }
    }
}

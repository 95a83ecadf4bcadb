//! The command line as a whole: options that every command has, and the commands.

use crate::commands::bench::BenchCommand;
use crate::commands::cluster::ClusterCommand;
use crate::commands::completion::Completion;
use crate::commands::context::ContextCommand;
use crate::commands::dev::Dev;
use crate::commands::dlq::DlqCommand;
use crate::commands::explain::Explain;
use crate::commands::message::MessageCommand;
use crate::commands::publish::Publish;
use crate::commands::read::Read;
use crate::commands::server::Server;
use crate::commands::subscribe::Subscribe;
use crate::commands::subscription::SubscriptionCommand;
use crate::commands::topic::TopicCommand;
use crate::connect::Connect;
use crate::output::Format;
use clap::{Parser, Subcommand};

/// A replicated message broker: server and client in one binary.
#[derive(Debug, Parser)]
#[command(name = "quorate", version, propagate_version = true, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) connect: Connect,

    /// How results are printed
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,

    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage, 10 the cluster is unhealthy.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// A cluster on this machine, for development: real processes, three nodes unless told otherwise
    Dev(Dev),
    /// One node of a cluster
    Server(Server),
    /// Topics: named, partitioned, replicated logs
    #[command(subcommand)]
    Topic(TopicCommand),
    /// Subscriptions: durable groups of consumers, each of which gets every message of its topic
    #[command(subcommand)]
    Subscription(SubscriptionCommand),
    /// Publish messages
    #[command(name = "pub", visible_alias = "publish")]
    Publish(Publish),
    /// Take messages of a subscription, and acknowledge them
    #[command(name = "sub", visible_alias = "subscribe")]
    Subscribe(Subscribe),
    /// Dead letters: what they are, where they came from, and publishing them again
    #[command(subcommand)]
    Dlq(DlqCommand),
    /// Look up, list and delete single messages
    #[command(subcommand)]
    Message(MessageCommand),
    /// Read messages; leaves no trace on the server
    Read(Read),
    /// The cluster: its nodes, its partitions, its health
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Load a cluster and measure it: throughput, latency, errors
    #[command(subcommand)]
    Bench(BenchCommand),
    /// What a reason in an error means, and what to do about it
    Explain(Explain),
    /// Contexts: which cluster commands talk to
    #[command(subcommand)]
    Context(ContextCommand),
    /// Completions for a shell
    Completion(Completion),
}

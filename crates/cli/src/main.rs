//! The `quorate` binary: a node, and everything a person does with a cluster.
//!
//! The client commands use `quorate-client` alone: they can do nothing that a stranger with it could not.
//!
//! - [`arguments`]: the command line as a whole
//! - [`commands`]: one file per noun
//! - [`dev`]: the local cluster of processes behind `quorate dev`
//! - [`connect`], [`context`], [`folders`]: which cluster is meant, and where this user's files are
//! - [`lines`]: input for `pub`; [`messages`]: how messages are printed
//! - [`output`], [`failure`]: how commands end well and badly

mod arguments;
mod commands;
mod connect;
mod context;
mod dev;
mod failure;
mod folders;
mod lines;
mod messages;
mod output;

use arguments::{Arguments, Command};
use clap::Parser;
use failure::Failure;
use output::{Format, Output};
use std::process::ExitCode;
use tokio::runtime::Builder;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        // Help and version come as errors too; the library knows where each goes and with which code.
        Err(error) => {
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            return error.print().map_or(ExitCode::FAILURE, |()| ExitCode::from(code));
        }
    };
    run(&arguments).map_or_else(|failure| failure.report(), |()| ExitCode::SUCCESS)
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let output = Output { format: arguments.output };
    if output.format == Format::Raw && !matches!(arguments.command, Command::Read(_) | Command::Subscribe(_)) {
        return Err(Failure::usage("only `quorate read` and `quorate sub` print raw messages")
            .advise("choose -o text or -o json"));
    }
    match &arguments.command {
        // A node brings runtimes of its own.
        Command::Server(server) => server.run(),
        Command::Explain(explain) => explain.run(output),
        Command::Context(context) => context.run(output),
        Command::Completion(completion) => completion.run(),
        Command::Dev(dev) => block_on(dev.run(output)),
        Command::Topic(topic) => block_on(topic.run(&arguments.connect, output)),
        Command::Subscription(subscription) => block_on(subscription.run(&arguments.connect, output)),
        Command::Publish(publish) => block_on(publish.run(&arguments.connect, output)),
        Command::Subscribe(subscribe) => block_on(subscribe.run(&arguments.connect, output)),
        Command::Message(message) => block_on(message.run(&arguments.connect, output)),
        Command::Dlq(dlq) => block_on(dlq.run(&arguments.connect, output)),
        Command::Read(read) => block_on(read.run(&arguments.connect, output)),
        Command::Cluster(cluster) => block_on(cluster.run(&arguments.connect, output)),
        Command::Bench(bench) => block_on(bench.run(&arguments.connect, output)),
    }
}

fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(command)
}

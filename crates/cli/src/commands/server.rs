//! `quorate server`: one node, in this process.

use crate::failure::Failure;
use crate::output::print_line;
use clap::{Args, Subcommand};
use quorate_server::Config;
use std::env;
use std::path::PathBuf;

/// Run one node until it is told to stop (SIGTERM or Ctrl-C).
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Server {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Option<ServerCommand>,
}

#[derive(Debug, Subcommand)]
enum ServerCommand {
    /// Read the configuration, print every setting with its origin, and start nothing
    Check(Settings),
    /// Print a configuration file with every setting, its meaning and its default
    Template,
}

#[derive(Debug, Args)]
struct Settings {
    /// Configuration, as TOML
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One setting; wins over QUORATE_SECTION_KEY in the environment, which wins over the file
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

impl Server {
    /// Blocks until the node has stopped: it brings runtimes of its own.
    pub(crate) fn run(&self) -> Result<(), Failure> {
        match &self.command {
            None => {
                let ended = quorate_server::run(self.settings.load()?);
                if let Err(error) = &ended {
                    Failure::new(error.to_string()).report();
                }
                // A node that couldn't go on, or was told twice to stop, leaves its database open. An exit in order
                // would take the library's objects from under its threads, and could end in a crash.
                signal_hook::low_level::exit(ended.is_err().into())
            }
            Some(ServerCommand::Check(settings)) => {
                let report =
                    quorate_server::check(&settings.load()?).map_err(|error| Failure::new(error.to_string()))?;
                print_line(report.trim_end())
            }
            Some(ServerCommand::Template) => print_line(Config::template().trim_end()),
        }
    }
}

impl Settings {
    fn load(&self) -> Result<Config, Failure> {
        // A name or value that isn't UTF-8 can't be one of ours.
        let environment =
            env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Config::load(self.config.as_deref(), environment, &self.set).map_err(|error| {
            Failure::new(error.to_string()).advise("`quorate server template` prints every setting with its meaning")
        })
    }
}

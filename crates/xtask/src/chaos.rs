//! `cargo xtask chaos`: builds the broker and the program that harms it, and hands over to the latter.

use crate::setup::Workshop;
use crate::steps::{Failure, Steps, run};
use clap::Args;
use std::os::unix::process::CommandExt;
use std::process::Command;

const BUILD_ADVICE: &str = "Mend the first error above; if a system library is missing, run `cargo xtask setup`.";

/// Passed on to the program; `--help` lists what there is.
#[derive(Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Chaos {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

impl Chaos {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let workshop = Workshop::find()?;
        let mut steps = Steps::new(2);
        steps.run("build (RocksDB takes several minutes the first time)", || {
            // The whole workspace, because another choice of packages would build half of it twice.
            run(&mut workshop.cargo(&["build", "--locked", "--workspace", "--bins"]), BUILD_ADVICE)
        })?;
        let mut command = Command::new(workshop.built("debug", "chaos"));
        command.args(&self.arguments);
        steps.run("chaos", || {
            // It takes this process's place, so that Ctrl-C reaches it.
            let error = command.exec();
            Err(Failure::new(format!("`chaos` could not be started: {error}."), BUILD_ADVICE))
        })
    }
}

//! `cargo xtask sim`, `cargo xtask chaos` and `cargo xtask failover`: build the programs of `jepsen-like-tests`, and hand over to one of them.

use crate::setup::Workshop;
use crate::steps::{Failure, Steps, run};
use crate::tasks::BUILD_ADVICE;
use clap::Args;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Passed on to the program; `--help` lists what there is.
#[derive(Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Rest {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub(crate) fn hand_over(program: &str, rest: &Rest) -> Result<(), Failure> {
    let workshop = Workshop::find()?;
    let mut steps = Steps::new(2);
    steps.run("build (RocksDB takes several minutes the first time)", || {
        // The whole workspace, because another choice of packages would build half of it twice.
        run(&mut workshop.cargo(&["build", "--locked", "--workspace", "--bins"]), BUILD_ADVICE)
    })?;
    let mut command = Command::new(workshop.built("debug", program));
    command.args(&rest.arguments);
    steps.run(program, || {
        // It takes this process's place, so that Ctrl-C reaches it and what it started.
        let error = command.exec();
        Err(Failure::new(format!("`{program}` could not be started: {error}."), BUILD_ADVICE))
    })
}

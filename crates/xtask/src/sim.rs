//! `cargo xtask sim`: builds the simulation and hands over to the program that runs many seeds.

use crate::setup::Workshop;
use crate::steps::{Failure, Steps, run};
use crate::tasks::BUILD_ADVICE;
use std::os::unix::process::CommandExt;
use std::process::Command;

pub(crate) fn run_seeds(arguments: &[String]) -> Result<(), Failure> {
    let workshop = Workshop::find()?;
    let mut steps = Steps::new(2);
    steps.run("build (RocksDB takes several minutes the first time)", || {
        // The whole workspace, because another choice of packages would build half of it twice.
        run(&mut workshop.cargo(&["build", "--locked", "--workspace", "--bins"]), BUILD_ADVICE)
    })?;
    let mut command = Command::new(workshop.built("debug", "sweep"));
    command.args(arguments).current_dir(&workshop.root);
    steps.run("seeds", || {
        // It takes this process's place, so that Ctrl-C reaches it and the seeds that it runs.
        let error = command.exec();
        Err(Failure::new(format!("`sweep` could not be started: {error}."), BUILD_ADVICE))
    })
}

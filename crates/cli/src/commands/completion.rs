//! `quorate completion`: what a shell needs to complete our command lines.

use crate::arguments::Arguments;
use crate::failure::Failure;
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use std::io::Write;

/// Completions for a shell, to be sourced: `source <(quorate completion bash)`.
#[derive(Debug, Args)]
pub(crate) struct Completion {
    shell: Shell,
}

impl Completion {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Arguments::command(), "quorate", &mut script);
        std::io::stdout().lock().write_all(&script)?;
        Ok(())
    }
}

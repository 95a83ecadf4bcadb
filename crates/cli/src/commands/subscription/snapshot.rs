//! Where a subscription stands, in a file.

use crate::failure::Failure;
use crate::output::Output;
use clap::Args;
use quorate_client::Subscriptions;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What it has settled, with everything that was confirmed before. It doesn't keep retention from removing messages.
#[derive(Debug, Args)]
pub(crate) struct Take {
    name: String,
    /// Where to write it; a file that is there is replaced
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
}

/// A snapshot that was written, as JSON.
#[derive(Serialize)]
struct Taken<'a> {
    name: &'a str,
    file: &'a Path,
    bytes: usize,
}

impl Take {
    pub(super) async fn run(&self, subscriptions: &Subscriptions, output: Output) -> Result<(), Failure> {
        let snapshot = subscriptions.snapshot(&self.name).await?;
        std::fs::write(&self.file, &snapshot).map_err(|error| unusable(&self.file, &error))?;
        let taken = Taken { name: &self.name, file: &self.file, bytes: snapshot.len() };
        output.result(&taken, || {
            format!("where subscription {} stands is in {} ({} bytes)", self.name, self.file.display(), taken.bytes)
        })
    }
}

pub(super) fn read(file: &Path) -> Result<bytes::Bytes, Failure> {
    std::fs::read(file).map(Into::into).map_err(|error| unusable(file, &error))
}

fn unusable(file: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("{}: {error}", file.display()))
}

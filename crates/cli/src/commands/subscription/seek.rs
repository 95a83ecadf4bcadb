//! Moves a subscription.

use super::snapshot;
use crate::commands::read::position;
use crate::failure::Failure;
use crate::output::Output;
use clap::Args;
use quorate_client::{ClientError, Start, Subscriptions};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Nothing before the position is delivered any more, and everything behind it is, once more. Subscribers go on.
#[derive(Debug, Args)]
pub(crate) struct Seek {
    name: String,
    /// Where to: `earliest`, `latest`, an offset, or a time such as 2026-01-31T12:00:00Z or `2h ago`
    #[arg(long, value_name = "POSITION", value_parser = position, allow_hyphen_values = true,
          required_unless_present = "to_snapshot")]
    to: Option<Start>,
    /// Back to where it stood, or another subscription of the topic: a file that `subscription snapshot` wrote
    #[arg(long, value_name = "FILE", conflicts_with_all = ["to", "partition"])]
    to_snapshot: Option<PathBuf>,
    /// Only these partitions; may be repeated [default: all]
    #[arg(short, long)]
    partition: Vec<u32>,
}

/// A moved subscription as JSON.
#[derive(Serialize)]
struct Moved<'a> {
    name: &'a str,
    partitions: Vec<Place>,
}

#[derive(Serialize)]
struct Place {
    partition: u32,
    offset: u64,
}

impl Seek {
    pub(super) async fn run(&self, subscriptions: &Subscriptions, output: Output) -> Result<(), Failure> {
        let moved = match (&self.to_snapshot, self.to) {
            (Some(file), _) => subscriptions.restore(&self.name, snapshot::read(file)?).await,
            (None, Some(to)) if self.partition.is_empty() => subscriptions.seek(&self.name, to).await,
            (None, to) => {
                let to: BTreeMap<u32, Start> =
                    self.partition.iter().filter_map(|partition| Some((*partition, to?))).collect();
                subscriptions.seek_partitions(&self.name, &to).await
            }
        };
        let partitions: Vec<Place> =
            moved.map_err(failed)?.into_iter().map(|(partition, offset)| Place { partition, offset }).collect();
        let shown = Moved { name: &self.name, partitions };
        output.result(&shown, || {
            let places =
                shown.partitions.iter().map(|it| format!("partition {} to offset {}", it.partition, it.offset));
            format!("subscription {} moved: {}", self.name, places.collect::<Vec<_>>().join(", "))
        })
    }
}

/// A part that was moved isn't put back: whoever asks again moves the rest.
fn failed(error: ClientError) -> Failure {
    let partly = error.metadata().get("moved_partitions").is_some_and(|moved| !moved.is_empty());
    let failure = Failure::from(error);
    if partly { failure.advise("seek again, and the other partitions are moved too") } else { failure }
}

//! Moves a subscription.

use crate::commands::read::position;
use crate::failure::Failure;
use crate::output::Output;
use clap::Args;
use quorate_client::{ClientError, Start, Subscriptions};
use serde::Serialize;
use std::collections::BTreeMap;

/// Nothing before the position is delivered any more, and everything behind it is, once more. Subscribers go on.
#[derive(Debug, Args)]
pub(crate) struct Seek {
    name: String,
    /// Where to: `earliest`, `latest`, an offset, or a time such as 2026-01-31T12:00:00Z or `2h ago`
    #[arg(long, value_name = "POSITION", value_parser = position, allow_hyphen_values = true)]
    to: Start,
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
        let moved = if self.partition.is_empty() {
            subscriptions.seek(&self.name, self.to).await
        } else {
            let to: BTreeMap<u32, Start> = self.partition.iter().map(|partition| (*partition, self.to)).collect();
            subscriptions.seek_partitions(&self.name, &to).await
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

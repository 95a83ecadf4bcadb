//! `quorate bench pub`: how long acknowledgements take, and how many there are.

use super::load::{self, Ended};
use super::options::{Files, Load, LoadRow, Target};
use super::report::{self, ErrorRow, LatencyRow, Observer, ThroughputRow, cpu_seconds};
use super::tally::{SharedTally, Tally};
use super::topic::BenchTopic;
use crate::connect::Connect;
use crate::failure::Failure;
use crate::output::Output;
use clap::Args;
use quorate_client::Topic;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Latency counts from when a message is due to its acknowledgement: with --rate from its place in the
/// schedule, so that a stall counts for every message that it held up. Ctrl-C ends early, with results.
#[derive(Debug, Args)]
pub(crate) struct PubBench {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    files: Files,
}

/// What became of the messages that were published.
#[derive(Serialize)]
pub(super) struct PublishedRow {
    published: u64,
    warm_up_published: u64,
    /// Due, but never sent: the cluster did not keep up.
    unsent: u64,
    failed: u64,
    unknown: u64,
    errors: Vec<ErrorRow>,
    /// Sent again by the SDK.
    repeated_batches: u64,
    /// Of the published, those that the broker recognised as repeats.
    duplicates_recognised: u64,
    #[serde(flatten)]
    throughput: ThroughputRow,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<LatencyRow>,
}

#[derive(Serialize)]
struct Summary {
    bench: &'static str,
    #[serde(flatten)]
    topic: TopicRow,
    #[serde(flatten)]
    load: LoadRow,
    #[serde(flatten)]
    published: PublishedRow,
    client_cpu_seconds: f64,
}

/// The topic as results name it.
#[derive(Serialize)]
pub(super) struct TopicRow {
    pub(super) topic: String,
    partitions: u32,
    replication_factor: u32,
}

impl PubBench {
    pub(crate) async fn run(&self, connect: &Connect, output: Output) -> Result<(), Failure> {
        report::check_files(&self.files)?;
        let client = connect.client()?;
        let topic = BenchTopic::prepare(&client, &self.target, &self.load).await?;
        let measured = self.measure(connect, output, &topic.topic).await;
        // Whatever happened, what was made is removed; but the first failure is the one to tell.
        let removed = topic.remove(&client).await;
        measured.and(removed)
    }

    async fn measure(&self, connect: &Connect, output: Output, topic: &Topic) -> Result<(), Failure> {
        let tally = SharedTally::new();
        let stop = stop_on_ctrl_c();
        let cpu = cpu_seconds();
        let running = load::start(connect, &topic.name, &self.load, &tally, &stop, None).await?;
        let from = running.measured_from;
        let observer = Observer::start(&tally, from, "publishing")?;
        let ended = running.end().await?;
        let seconds = observer.end().await?;
        let cpu = cpu_seconds() - cpu;

        let tally = tally.lock();
        let summary = Summary {
            bench: "pub",
            topic: TopicRow::of(topic),
            load: self.load.row(),
            published: PublishedRow::of(&tally, ended, from),
            client_cpu_seconds: cpu,
        };
        report::write_files(&self.files, &seconds, &tally.latency)?;
        output.result(&summary, || {
            let table = report::outcomes(&[("published", &tally, from)], summary.published.errors());
            let head = format!("{}\n{}", summary.topic.text(), summary.load.text());
            format!("{head}\n\n{table}\n\n{}", summary.published.remarks(summary.client_cpu_seconds))
        })?;
        something_happened(&tally)
    }
}

impl PublishedRow {
    pub(super) fn of(tally: &Tally, ended: Ended, from: Instant) -> PublishedRow {
        PublishedRow {
            published: tally.messages,
            warm_up_published: tally.warm_up,
            unsent: ended.unsent,
            failed: tally.failed.values().sum(),
            unknown: tally.unknown.values().sum(),
            errors: ErrorRow::of(tally),
            repeated_batches: ended.repeated_batches,
            duplicates_recognised: tally.duplicates,
            throughput: ThroughputRow::of(tally, from),
            latency_ms: LatencyRow::of(&tally.latency),
        }
    }

    pub(super) fn errors(&self) -> &[ErrorRow] {
        &self.errors
    }

    pub(super) fn remarks(&self, cpu: f64) -> String {
        let mut lines = vec![format!(
            "{} published in the warm-up; {} batches sent again, {} messages recognised as repeats; client CPU {cpu:.2} s",
            self.warm_up_published, self.repeated_batches, self.duplicates_recognised
        )];
        if self.unsent > 0 {
            lines.push(format!(
                "the cluster did not keep up with --rate: {} due messages were never sent, so latencies are lower bounds",
                self.unsent
            ));
        }
        lines.join("\n")
    }
}

impl TopicRow {
    pub(super) fn of(topic: &Topic) -> TopicRow {
        TopicRow {
            topic: topic.name.clone(),
            partitions: topic.partitions,
            replication_factor: topic.replication_factor,
        }
    }

    pub(super) fn text(&self) -> String {
        format!("{}: {} partitions, {} replicas each", self.topic, self.partitions, self.replication_factor)
    }
}

/// A flag that Ctrl-C sets. A second Ctrl-C ends the program as usual.
pub(super) fn stop_on_ctrl_c() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    tokio::spawn(async move {
        // Without signals the run still ends by itself.
        while tokio::signal::ctrl_c().await.is_ok() {
            if flag.swap(true, Ordering::Relaxed) {
                // The handler stays installed, so the usual end has to be made here.
                _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
            }
        }
    });
    stop
}

/// A run without a single message measured nothing.
pub(super) fn something_happened(tally: &Tally) -> Result<(), Failure> {
    match tally.messages {
        0 => Err(Failure::new(format!("nothing was measured: no message made it, {} did not", tally.problems()))
            .advise("see the reasons above with `quorate explain REASON`, and `quorate cluster health`")),
        _ => Ok(()),
    }
}

//! `quorate bench sub`: how fast a topic is read from its beginning to its end.

use super::load;
use super::options::{Files, Load, Target};
use super::publish::{TopicRow, something_happened, stop_on_ctrl_c};
use super::report::{self, Observer, ThroughputRow, cpu_seconds};
use super::tally::SharedTally;
use super::topic::BenchTopic;
use crate::commands::publish::Codec;
use crate::connect::Connect;
use crate::failure::Failure;
use crate::output::Output;
use clap::Args;
use futures::StreamExt;
use quorate_client::{ClientError, Reader, Start, Topic};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio::task::JoinSet;

/// Messages counted at once, if they are there at once.
const CHUNK: usize = 1024;

/// Without --topic, a topic is made and filled first. Reading stops at the end that the topic has when
/// reading begins. Every reader reads everything, over connections of its own.
#[derive(Debug, Args)]
pub(crate) struct SubBench {
    #[command(flatten)]
    target: Target,
    /// Readers at once
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    readers: u32,
    /// Messages that the new topic is filled with
    #[arg(long, value_name = "COUNT", default_value_t = 100_000, conflicts_with = "topic",
          value_parser = clap::value_parser!(u64).range(1..))]
    messages: u64,
    /// Payload of each of those
    #[arg(long, value_name = "BYTES", default_value_t = 1024, conflicts_with = "topic",
          value_parser = clap::value_parser!(u32).range(1..=16 << 20))]
    size: u32,
    /// How they are compressed; payloads are random hexadecimal digits, which shrink to about a half
    #[arg(long, value_enum, default_value_t = Codec::None, conflicts_with = "topic")]
    compression: Codec,
    #[command(flatten)]
    files: CsvFile,
}

/// There is no latency to speak of, and so no distribution of it.
#[derive(Debug, Args)]
struct CsvFile {
    /// A row per second: counts and throughput of that second
    #[arg(long, value_name = "FILE")]
    csv: Option<std::path::PathBuf>,
}

#[derive(Serialize)]
struct Summary {
    bench: &'static str,
    #[serde(flatten)]
    topic: TopicRow,
    readers: u32,
    /// By all readers together.
    read: u64,
    payload_bytes: u64,
    #[serde(flatten)]
    throughput: ThroughputRow,
    /// From the start of reading to the first message of any reader.
    first_message_ms: f64,
    client_cpu_seconds: f64,
}

impl SubBench {
    pub(crate) async fn run(&self, connect: &Connect, output: Output) -> Result<(), Failure> {
        let files = Files { csv: self.files.csv.clone(), hdr: None };
        report::check_files(&files)?;
        let client = connect.client()?;
        let load = Load::filling(self.messages, self.size, self.compression);
        let topic = BenchTopic::prepare(&client, &self.target, &load).await?;
        let measured = self.measure(connect, output, &topic.topic, &load, &files).await;
        let removed = topic.remove(&client).await;
        measured.and(removed)
    }

    async fn measure(
        &self,
        connect: &Connect,
        output: Output,
        topic: &Topic,
        load: &Load,
        files: &Files,
    ) -> Result<(), Failure> {
        let stop = stop_on_ctrl_c();
        if self.target.topic.is_none() {
            fill(connect, topic, load, &stop).await?;
        }
        let mut readers = Vec::new();
        for _ in 0..self.readers {
            readers.push(connect.client()?.reader(&topic.name).from(Start::Earliest).stop_at_end());
        }
        let (tally, cpu, from) = (SharedTally::new(), cpu_seconds(), Instant::now());
        let observer = Observer::start(&tally, from, "reading")?;
        let mut running = JoinSet::new();
        for reader in readers {
            let reader = reader.patience(connect.timeout()).build().await?;
            running.spawn(drain(reader, tally.clone(), Arc::clone(&stop)));
        }
        let mut first = None;
        while let Some(ended) = running.join_next().await {
            let begun = ended.map_err(|error| Failure::new(error.to_string()))??;
            first = [first, begun].into_iter().flatten().min();
        }
        let seconds = observer.end().await?;
        let tally = tally.lock();
        let summary = Summary {
            bench: "sub",
            topic: TopicRow::of(topic),
            readers: self.readers,
            read: tally.messages,
            payload_bytes: tally.bytes,
            throughput: ThroughputRow::of(&tally, from),
            first_message_ms: first.map_or(0.0, |first| first.saturating_duration_since(from).as_secs_f64() * 1000.0),
            client_cpu_seconds: cpu_seconds() - cpu,
        };
        report::write_files(files, &seconds, &tally.latency)?;
        output.result(&summary, || {
            let table = report::outcomes(&[("read", &tally, from)], &[]);
            let (readers, cpu) = (summary.readers, summary.client_cpu_seconds);
            let first = summary.first_message_ms;
            let remarks = format!(
                "{readers} readers, each of everything; first message after {first:.1} ms; client CPU {cpu:.2} s"
            );
            format!("{}\n\n{table}\n\n{remarks}", summary.topic.text())
        })?;
        something_happened(&tally)
    }
}

async fn fill(connect: &Connect, topic: &Topic, load: &Load, stop: &Arc<AtomicBool>) -> Result<(), Failure> {
    let tally = SharedTally::new();
    let running = load::start(connect, &topic.name, load, &tally, stop, None).await?;
    let observer = Observer::start(&tally, running.measured_from, "filling the topic")?;
    running.end().await?;
    observer.end().await?;
    let tally = tally.lock();
    match tally.problems() {
        0 => Ok(()),
        problems => {
            Err(Failure::new(format!("{problems} of {} messages could not be published", load.messages.unwrap_or(0)))
                .advise("see `quorate cluster health`, then try again"))
        }
    }
}

/// Reads to the end; when the first message came.
async fn drain(reader: Reader, tally: SharedTally, stop: Arc<AtomicBool>) -> Result<Option<Instant>, ClientError> {
    let mut chunks = reader.ready_chunks(CHUNK);
    let mut first = None;
    while let Some(chunk) = chunks.next().await {
        let now = Instant::now();
        first.get_or_insert(now);
        let (mut messages, mut bytes) = (0, 0);
        for message in chunk {
            messages += 1;
            bytes += message?.data.len() as u64;
        }
        tally.lock().counted(messages, bytes, now);
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    Ok(first)
}

//! `quorate bench sub`: how fast a topic is read, or taken by a subscription, from its beginning to its end.

use super::consume::{Account, Consumers, consume};
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
use quorate_client::{ClientError, Reader, ReceivedMessage, Start, Topic};
use serde::Serialize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// How often it is looked whether everything is acknowledged.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Messages counted at once, if they are there at once.
const CHUNK: usize = 1024;

/// Without --topic, a topic is made and filled first. Reading stops at the end that the topic has when
/// reading begins. Every reader reads everything, over connections of its own; subscribers share one subscription, made for
/// the run, and acknowledge each message by itself: what is counted then are acknowledgements that are certain.
#[derive(Debug, Args)]
pub(crate) struct SubBench {
    #[command(flatten)]
    target: Target,
    /// Readers at once
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    readers: u32,
    /// Instead of readers, so many subscribers at once
    #[arg(long, value_name = "COUNT", conflicts_with = "readers", value_parser = clap::value_parser!(u32).range(1..=1000))]
    subscribers: Option<u32>,
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
    /// 0 if there are subscribers.
    readers: u32,
    /// They share one subscription, and acknowledge each message.
    subscribers: u32,
    /// By all readers together, or acknowledged.
    read: u64,
    /// Acknowledgements that came to nothing: these messages were delivered again.
    acknowledgements_lost: u64,
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
        let (tally, cpu, from) = (SharedTally::new(), cpu_seconds(), Instant::now());
        let observer = Observer::start(&tally, from, "reading")?;
        let (first, lost) = match self.subscribers {
            None => (self.read_all(connect, topic, &tally, &stop).await?, 0),
            Some(count) => take_all(connect, topic, &tally, &stop, count).await?,
        };
        let seconds = observer.end().await?;
        let tally = tally.lock();
        let readers = if self.subscribers.is_some() { 0 } else { self.readers };
        let summary = Summary {
            bench: "sub",
            topic: TopicRow::of(topic),
            readers,
            subscribers: self.subscribers.unwrap_or(0),
            read: tally.messages,
            acknowledgements_lost: lost,
            payload_bytes: tally.bytes,
            throughput: ThroughputRow::of(&tally, from),
            first_message_ms: first.map_or(0.0, |first| first.saturating_duration_since(from).as_secs_f64() * 1000.0),
            client_cpu_seconds: cpu_seconds() - cpu,
        };
        report::write_files(files, &seconds, &tally.latency)?;
        output.result(&summary, || {
            let what = if self.subscribers.is_some() { "acknowledged" } else { "read" };
            let table = report::outcomes(&[(what, &tally, from)], &[]);
            let (first, cpu) = (summary.first_message_ms, summary.client_cpu_seconds);
            let who = match self.subscribers {
                None => format!("{readers} readers, each of everything"),
                Some(count) => format!("{count} subscribers of one subscription, {lost} acknowledgements lost"),
            };
            let remarks = format!("{who}; first message after {first:.1} ms; client CPU {cpu:.2} s");
            format!("{}\n\n{table}\n\n{remarks}", summary.topic.text())
        })?;
        something_happened(&tally)
    }

    /// When the first message came.
    async fn read_all(
        &self,
        connect: &Connect,
        topic: &Topic,
        tally: &SharedTally,
        stop: &Arc<AtomicBool>,
    ) -> Result<Option<Instant>, Failure> {
        let mut running = JoinSet::new();
        for _ in 0..self.readers {
            let reader = connect.client()?.reader(&topic.name).from(Start::Earliest).stop_at_end();
            let reader = reader.patience(connect.timeout()).build().await?;
            running.spawn(drain(reader, tally.clone(), Arc::clone(stop)));
        }
        let mut first = None;
        while let Some(ended) = running.join_next().await {
            let begun = ended.map_err(|error| Failure::new(error.to_string()))??;
            first = [first, begun].into_iter().flatten().min();
        }
        Ok(first)
    }
}

/// When the first message came, and how many acknowledgements were lost.
async fn take_all(
    connect: &Connect,
    topic: &Topic,
    tally: &SharedTally,
    stop: &Arc<AtomicBool>,
    count: u32,
) -> Result<(Option<Instant>, u64), Failure> {
    let client = connect.client()?;
    let consumers = Consumers::prepare(connect, &topic.name, Start::Earliest, count).await?;
    let subscription = consumers.name();
    let backlog = client.subscriptions().get(&subscription).await?.numbers().backlog_messages;
    let account = Taken { tally: tally.clone(), first: Arc::default(), lost: Arc::default() };
    let mut running = JoinSet::new();
    for subscriber in consumers.subscribers {
        running.spawn(consume(subscriber, account.clone()));
    }
    while tally.lock().messages < backlog && !stop.load(Ordering::Relaxed) {
        tokio::select! {
            ended = running.join_next() => {
                if let Some(Ok(Err(error))) = ended {
                    return Err(error.into());
                }
            }
            () = sleep(LOOK_EVERY) => {}
        }
    }
    running.shutdown().await;
    Consumers::remove(subscription, &client).await?;
    Ok((account.first.get().copied(), account.lost.load(Ordering::Relaxed)))
}

/// The account of all subscribers.
#[derive(Clone)]
struct Taken {
    tally: SharedTally,
    first: Arc<OnceLock<Instant>>,
    lost: Arc<AtomicU64>,
}

impl Account for Taken {
    fn delivered(&self, _: &ReceivedMessage, now: Instant) {
        self.first.get_or_init(|| now);
    }

    fn settled(&self, bytes: u64, now: Instant) {
        self.tally.lock().counted(1, bytes, now);
    }

    fn lost(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
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

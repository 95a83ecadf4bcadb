//! `quorate bench e2e`: the time from sending a message to having it.

use super::consume::{Account, Consumers, consume};
use super::load;
use super::options::{Files, Load, LoadRow, Target};
use super::publish::{PublishedRow, TopicRow, something_happened, stop_on_ctrl_c};
use super::report::{self, LatencyRow, Observer, cpu_seconds};
use super::tally::{Sent, SharedTally};
use super::topic::BenchTopic;
use crate::connect::Connect;
use crate::failure::Failure;
use crate::output::Output;
use bytes::{BufMut, Bytes, BytesMut};
use clap::Args;
use futures::StreamExt;
use quorate_client::{ClientError, Reader, ReceivedMessage, Start, Topic};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// What the payload begins with: which run it belongs to, and when it was due.
const STAMP_BYTES: u32 = 16;

/// What was acknowledged must reach the readers within this time after the last acknowledgement.
const ARRIVAL_PATIENCE: Duration = Duration::from_secs(15);

/// How often it is looked whether everything has arrived.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Times in payloads count from here.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Tells messages of this run from whatever else is in the topic.
static RUN: LazyLock<u64> = LazyLock::new(|| fastrand::u64(..));

/// Publishers and readers are in this one process, so that one clock measures both ends. Latency counts
/// from when a message is due, as in `bench pub`. Every reader reads everything; subscribers share one subscription, made for
/// the run, and acknowledge each message by itself.
#[derive(Debug, Args)]
pub(crate) struct E2eBench {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    load: Load,
    /// Readers, each of everything
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    readers: u32,
    /// Instead of readers, so many subscribers
    #[arg(long, value_name = "COUNT", conflicts_with = "readers", value_parser = clap::value_parser!(u32).range(1..=1000))]
    subscribers: Option<u32>,
    #[command(flatten)]
    files: Files,
}

#[derive(Serialize)]
struct Summary {
    bench: &'static str,
    #[serde(flatten)]
    topic: TopicRow,
    #[serde(flatten)]
    load: LoadRow,
    /// 0 if there are subscribers.
    readers: u32,
    /// They share one subscription, and acknowledge each message.
    subscribers: u32,
    #[serde(flatten)]
    published: PublishedRow,
    /// By all readers or subscribers together, those of the warm-up not counted.
    read: u64,
    /// Published, but not read, or taken and acknowledged, in time, over all readers.
    missing: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_to_end_ms: Option<LatencyRow>,
    client_cpu_seconds: f64,
}

impl E2eBench {
    pub(crate) async fn run(&self, connect: &Connect, output: Output) -> Result<(), Failure> {
        if let Some(size) = self.load.size.iter().find(|size| **size < STAMP_BYTES) {
            let what = format!("--size {size} has no room for the time of sending, which takes {STAMP_BYTES} bytes");
            return Err(Failure::usage(what).advise(format!("choose at least {STAMP_BYTES}")));
        }
        report::check_files(&self.files)?;
        let client = connect.client()?;
        let topic = BenchTopic::prepare(&client, &self.target, &self.load).await?;
        let measured = match topic.ends(&client).await {
            Ok(starts) => self.measure(connect, output, &topic.topic, &starts).await,
            Err(failure) => Err(failure),
        };
        let removed = topic.remove(&client).await;
        measured.and(removed)
    }

    async fn measure(
        &self,
        connect: &Connect,
        output: Output,
        topic: &Topic,
        starts: &BTreeMap<u32, Start>,
    ) -> Result<(), Failure> {
        LazyLock::force(&EPOCH);
        let (acknowledged, delivered) = (SharedTally::new(), SharedTally::new());
        let mut reading = JoinSet::new();
        let cpu = cpu_seconds();
        let (mut readers, mut subscribers, mut subscription) = (Vec::new(), Vec::new(), None);
        if let Some(count) = self.subscribers {
            let consumers = Consumers::prepare(connect, &topic.name, Start::Latest, count).await?;
            subscription = Some(consumers.name());
            subscribers = consumers.subscribers;
        }
        for _ in 0..self.readers() {
            let builder = connect.client()?.reader(&topic.name).patience(connect.timeout());
            let builder =
                starts.iter().fold(builder, |builder, (partition, start)| builder.partition(*partition, *start));
            readers.push(builder.build().await?);
        }
        let stop = stop_on_ctrl_c();
        let running = load::start(connect, &topic.name, &self.load, &acknowledged, &stop, Some(stamped)).await?;
        let from = running.measured_from;
        for reader in readers {
            reading.spawn(receive(reader, delivered.clone(), from));
        }
        let settled = Arc::new(AtomicU64::new(0));
        for subscriber in subscribers {
            let account = Taken { tally: delivered.clone(), settled: Arc::clone(&settled), measured_from: from };
            reading.spawn(consume(subscriber, account));
        }
        let observer = Observer::start(&delivered, from, "publishing and reading")?;
        let ended = running.end().await?;
        let expected = {
            let tally = acknowledged.lock();
            (tally.messages + tally.warm_up) * u64::from(self.readers().max(1))
        };
        let arrived = || match subscription {
            Some(_) => settled.load(Ordering::Relaxed),
            None => {
                let tally = delivered.lock();
                tally.messages + tally.warm_up
            }
        };
        let all = async {
            while arrived() < expected && !reading.is_empty() {
                sleep(LOOK_EVERY).await;
            }
        };
        // Too late is told below, as what is missing.
        _ = timeout(ARRIVAL_PATIENCE, all).await;
        let seconds = observer.end().await?;
        reading.abort_all();
        while let Some(reader) = reading.join_next().await {
            // A reader that was ended here is no failure; one that ended by itself is.
            if let Ok(Err(error)) = reader {
                return Err(Failure::from(error).during(format!("reading {}", topic.name)));
            }
        }
        let missing = expected.saturating_sub(arrived());
        if let Some(subscription) = subscription {
            Consumers::remove(subscription, &connect.client()?).await?;
        }

        let (acknowledged, delivered) = (acknowledged.lock(), delivered.lock());
        let summary = Summary {
            bench: "e2e",
            topic: TopicRow::of(topic),
            load: self.load.row(),
            readers: self.readers(),
            subscribers: self.subscribers.unwrap_or(0),
            published: PublishedRow::of(&acknowledged, ended, from),
            read: delivered.messages,
            missing,
            end_to_end_ms: LatencyRow::of(&delivered.latency),
            client_cpu_seconds: cpu_seconds() - cpu,
        };
        report::write_files(&self.files, &seconds, &delivered.latency)?;
        output.result(&summary, || {
            let good = [("published", &*acknowledged, from), ("read", &*delivered, from)];
            let table = report::outcomes(&good, summary.published.errors());
            let who = match self.subscribers {
                Some(count) => format!("{count} subscribers"),
                None => format!("{} readers", self.readers),
            };
            let head = format!("{}\n{}, {who}", summary.topic.text(), summary.load.text());
            format!("{head}\n\n{table}\n\n{}", summary.published.remarks(summary.client_cpu_seconds))
        })?;
        if missing > 0 {
            let patience = ARRIVAL_PATIENCE.as_secs();
            return Err(Failure::new(format!("{missing} acknowledged messages were not read within {patience} s"))
                .advise("see `quorate cluster health`"));
        }
        something_happened(&delivered)
    }
}

impl E2eBench {
    fn readers(&self) -> u32 {
        if self.subscribers.is_some() { 0 } else { self.readers }
    }
}

/// The account of one subscriber.
struct Taken {
    tally: SharedTally,
    settled: Arc<AtomicU64>,
    measured_from: Instant,
}

impl Account for Taken {
    fn delivered(&self, message: &ReceivedMessage, now: Instant) {
        count(&self.tally, message, self.measured_from, now);
    }

    fn settled(&self, _: u64, _: Instant) {
        self.settled.fetch_add(1, Ordering::Relaxed);
    }

    /// It is delivered again, and counted then.
    fn lost(&self) {}
}

/// The first bytes of the text replaced by the run and by when the message was due.
fn stamped(due: Instant, text: &Bytes) -> Bytes {
    let nanos = due.saturating_duration_since(*EPOCH).as_nanos();
    let mut payload = BytesMut::with_capacity(text.len());
    payload.put_u64(*RUN);
    payload.put_u64(u64::try_from(nanos).unwrap_or(u64::MAX));
    payload.put_slice(&text[STAMP_BYTES as usize..]);
    payload.freeze()
}

/// When a message of this run was due; `None` for any other message.
fn due(payload: &[u8]) -> Option<Instant> {
    let (run, rest) = payload.split_first_chunk()?;
    let (nanos, _) = rest.split_first_chunk()?;
    (u64::from_be_bytes(*run) == *RUN).then(|| *EPOCH + Duration::from_nanos(u64::from_be_bytes(*nanos)))
}

/// Reads until it is stopped, or can't.
async fn receive(mut reader: Reader, tally: SharedTally, measured_from: Instant) -> Result<(), ClientError> {
    while let Some(message) = reader.next().await {
        count(&tally, &message?, measured_from, Instant::now());
    }
    Ok(())
}

/// A message of this run has arrived.
fn count(tally: &SharedTally, message: &ReceivedMessage, measured_from: Instant, now: Instant) {
    if let Some(since) = due(&message.data) {
        let sent = Sent { since, bytes: message.data.len() as u64, measured: since >= measured_from };
        tally.lock().arrived(sent, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_in_a_payload_is_read_back_and_foreign_messages_are_told_apart() {
        LazyLock::force(&EPOCH);
        let now = Instant::now();
        let payload = stamped(now, &Bytes::from(vec![b'x'; 20]));
        assert_eq!(payload.len(), 20);
        assert_eq!(due(&payload), Some(now));
        let mut foreign = payload.to_vec();
        foreign[0] ^= 1;
        assert_eq!(due(&foreign), None);
        assert_eq!(due(b"short"), None);
    }
}

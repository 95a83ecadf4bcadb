//! `quorate pub`: publishes arguments, or the lines of a file or of standard input.

use crate::connect::Connect;
use crate::failure::Failure;
use crate::lines::{self, Line};
use crate::output::{Output, shows_progress};
use clap::{Args, ValueEnum, value_parser};
use indicatif::{ProgressBar, ProgressStyle};
use quorate_client::{Compression, Message, PublishError, Publisher, Receipt};
use serde::Serialize;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Problems that are shown one by one; the others are only counted.
const SHOWN_MAX: usize = 5;

/// Messages under way whose outcome hasn't been counted yet; the publisher bounds them by bytes.
const RECEIPTS_MAX: usize = 100_000;

/// Publish messages: the arguments, the lines of a file, or the lines of standard input. Returns when
/// every message has its outcome; an acknowledged one is on disk on a majority of nodes.
#[derive(Debug, Args)]
pub(crate) struct Publish {
    topic: String,
    /// Messages, one per argument [default: the lines of standard input]
    #[arg(conflicts_with = "file")]
    data: Vec<String>,
    /// One message per line, byte for byte
    #[arg(short, long)]
    file: Option<PathBuf>,
    /// Ordering key: messages with the same key stay in order, in one partition
    #[arg(short, long)]
    key: Option<String>,
    /// An attribute of every message; may be repeated
    #[arg(short = 'H', long = "attribute", value_name = "KEY=VALUE", value_parser = attribute)]
    attributes: Vec<(String, String)>,
    /// Publish each argument this many times
    #[arg(long, requires = "data", default_value_t = 1)]
    count: u64,
    /// Partition to publish to [default: by key, else by turns]
    #[arg(long)]
    partition: Option<u32>,
    /// 0 to 9: of what is ready in a partition, subscriptions deliver higher priorities first
    #[arg(long, default_value_t = 0, value_parser = value_parser!(u8).range(..=9))]
    priority: u8,
    /// Subscriptions deliver it only after this time, such as `30s` or `2h`
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    delay: Option<Duration>,
    /// Subscriptions deliver it only from then on, such as `2030-01-31T08:00:00Z`
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_rfc3339_weak, conflicts_with = "delay")]
    deliver_at: Option<SystemTime>,
    /// Subscriptions don't deliver it any more after this time, such as `10m`
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    expire_after: Option<Duration>,
    /// How batches are compressed, on the way and on disk
    #[arg(long, value_enum, default_value_t = Codec::None)]
    compression: Codec,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Codec {
    None,
    Lz4,
    Zstd,
}

impl Codec {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }
}

impl From<Codec> for Compression {
    fn from(codec: Codec) -> Compression {
        match codec {
            Codec::None => Compression::None,
            Codec::Lz4 => Compression::Lz4,
            Codec::Zstd => Compression::Zstd,
        }
    }
}

#[derive(Debug, Serialize)]
struct Summary {
    topic: String,
    published: u64,
    /// Of those, retries that the broker recognised.
    duplicates_recognised: u64,
    failed: u64,
    unknown: u64,
    seconds: f64,
}

/// How the messages ended so far.
#[derive(Debug, Default)]
struct Tally {
    published: u64,
    duplicates: u64,
    failed: u64,
    unknown: u64,
    shown: Vec<String>,
}

impl Publish {
    pub(crate) async fn run(&self, connect: &Connect, output: Output) -> Result<(), Failure> {
        let client = connect.client()?;
        let publisher = client.publisher(&self.topic).compression(self.compression.into()).build().await?;
        let progress = self.progress()?;
        let started = Instant::now();
        let (receipts, tally) = count_outcomes(progress.clone());
        let read = self.feed(&publisher, &receipts, &progress).await;
        drop(receipts);
        publisher.close().await;
        let tally = tally.await.map_err(|error| Failure::new(error.to_string()))?;
        progress.finish_and_clear();

        let seconds = started.elapsed().as_secs_f64();
        let summary = tally.summary(&self.topic, seconds);
        output.result(&summary, || summary.text())?;
        for problem in &tally.shown {
            eprintln!("{problem}");
        }
        read?;
        tally.into_result()
    }

    /// Hands every message over. Fails if the input can't be read to its end.
    async fn feed(
        &self,
        publisher: &Publisher,
        receipts: &mpsc::Sender<Sent>,
        progress: &ProgressBar,
    ) -> Result<(), Failure> {
        if !self.data.is_empty() {
            for _ in 0..self.count {
                for data in &self.data {
                    send(publisher, receipts, self.message(data.clone().into_bytes()), data_name(data)).await;
                }
            }
            return Ok(());
        }
        let mut lines = match &self.file {
            Some(path) => lines::of(File::open(path).map_err(|error| self.unreadable(&error))?),
            None => lines::of(io::stdin()),
        };
        while let Some(line) = lines.recv().await {
            let Line { number, bytes } = line.map_err(|error| self.unreadable(&error))?;
            progress.inc(bytes.len() as u64 + 1);
            send(publisher, receipts, self.message(bytes), format!("line {number}")).await;
        }
        Ok(())
    }

    fn message(&self, data: Vec<u8>) -> Message {
        let mut message = Message::new(data);
        if let Some(key) = &self.key {
            message = message.ordering_key(key);
        }
        if let Some(partition) = self.partition {
            message = message.partition(partition);
        }
        message = message.priority(self.priority);
        if let Some(delay) = self.delay {
            message = message.deliver_after(delay);
        }
        if let Some(time) = self.deliver_at {
            message = message.deliver_at(time);
        }
        if let Some(time) = self.expire_after {
            message = message.expire_after(time);
        }
        self.attributes.iter().fold(message, |message, (key, value)| message.attribute(key, value))
    }

    fn unreadable(&self, error: &io::Error) -> Failure {
        let source = self.file.as_ref().map_or_else(|| "standard input".to_owned(), |path| path.display().to_string());
        Failure::new(format!("{source} can't be read: {error}"))
            .advise("what came before is published or counted above")
    }

    /// Drawn for a person at a terminal; for anybody else it does nothing.
    fn progress(&self) -> Result<ProgressBar, Failure> {
        if !shows_progress() || !self.data.is_empty() {
            return Ok(ProgressBar::hidden());
        }
        let (bar, template) = match &self.file {
            Some(path) => {
                let length = path.metadata().map_err(|error| self.unreadable(&error))?.len();
                (ProgressBar::new(length), "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left")
            }
            None => (ProgressBar::new_spinner(), "{spinner} {msg} {bytes} {bytes_per_sec}"),
        };
        let style = ProgressStyle::with_template(template).map_err(|error| Failure::new(error.to_string()))?;
        Ok(bar.with_style(style).with_message("publishing"))
    }
}

/// A message that was handed over: what to call it, and how it ended or will.
struct Sent {
    name: String,
    outcome: Result<Receipt, PublishError>,
}

async fn send(publisher: &Publisher, receipts: &mpsc::Sender<Sent>, message: Message, name: String) {
    let outcome = publisher.send(message).await;
    // The counting task listens until this sender is dropped.
    _ = receipts.send(Sent { name, outcome }).await;
}

/// Counts outcomes beside the sending, so that waiting for one never holds up the other.
fn count_outcomes(progress: ProgressBar) -> (mpsc::Sender<Sent>, JoinHandle<Tally>) {
    let (sender, mut receiver) = mpsc::channel::<Sent>(RECEIPTS_MAX);
    let counting = async move {
        let mut tally = Tally::default();
        while let Some(Sent { name, outcome }) = receiver.recv().await {
            let outcome = match outcome {
                Ok(receipt) => receipt.await,
                Err(error) => Err(error),
            };
            match outcome {
                Ok(published) => tally.acknowledged(published.duplicate),
                Err(error) => tally.problem(&name, &error),
            }
            progress.tick();
        }
        tally
    };
    (sender, tokio::spawn(counting))
}

impl Tally {
    fn acknowledged(&mut self, duplicate: bool) {
        self.published += 1;
        self.duplicates += u64::from(duplicate);
    }

    fn problem(&mut self, name: &str, error: &PublishError) {
        if error.is_unknown() {
            self.unknown += 1;
        } else {
            self.failed += 1;
        }
        if self.shown.len() < SHOWN_MAX {
            self.shown.push(format!("{name}: {error}"));
        }
    }

    fn summary(&self, topic: &str, seconds: f64) -> Summary {
        Summary {
            topic: topic.to_owned(),
            published: self.published,
            duplicates_recognised: self.duplicates,
            failed: self.failed,
            unknown: self.unknown,
            seconds,
        }
    }

    fn into_result(self) -> Result<(), Failure> {
        let advice = match (self.failed, self.unknown) {
            (0, 0) => return Ok(()),
            (_, 0) => "failed messages are not in the log: mend the cause, and publish them again",
            _ => "unknown messages may be in the log: look with `quorate read` before publishing them again",
        };
        Err(Failure::new(format!("{} failed, {} unknown, {} published", self.failed, self.unknown, self.published))
            .advise(advice))
    }
}

impl Summary {
    fn text(&self) -> String {
        let noun = if self.published == 1 { "message" } else { "messages" };
        let mut text = format!("published {} {noun} to {} in {:.2} s", self.published, self.topic, self.seconds);
        for (count, words) in [
            (self.duplicates_recognised, "of them had arrived by an earlier attempt"),
            (self.failed, "failed"),
            (self.unknown, "unknown"),
        ] {
            if count > 0 {
                text.push_str(&format!("; {count} {words}"));
            }
        }
        text
    }
}

fn data_name(data: &str) -> String {
    let start: String = data.chars().take(20).collect();
    if start == data { format!("{start:?}") } else { format!("{start:?}…") }
}

fn attribute(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clean_tally_is_a_success_and_unknown_is_told_from_failed() {
        assert!(Tally { published: 3, ..Tally::default() }.into_result().is_ok());
        let failed = Tally { published: 3, failed: 2, ..Tally::default() }.into_result().expect_err("two failed");
        assert!(failed.to_string().contains("publish them again"), "{failed}");
        let unknown = Tally { failed: 2, unknown: 1, ..Tally::default() }.into_result().expect_err("one is unknown");
        assert!(unknown.to_string().contains("2 failed, 1 unknown, 0 published"), "{unknown}");
        assert!(unknown.to_string().contains("before publishing them again"), "{unknown}");
    }

    #[test]
    fn an_attribute_may_hold_further_equals_signs() {
        assert_eq!(attribute("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(attribute("a").is_err());
    }
}

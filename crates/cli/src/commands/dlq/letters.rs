//! A dead letter: a message, and the attributes that say where it came from and why.

use crate::failure::Failure;
use crate::messages;
use crate::output::{Format, Output};
use clap::Args;
use futures::StreamExt;
use quorate_client::{Client, ReceivedMessage, Start};
use std::io::{self, BufWriter, Write};
use std::time::Duration;

/// What the broker adds to a message that becomes a dead letter begins so.
const PREFIX: &str = "quorate.";

/// Show dead letters, the newest first; leaves no trace on the server.
#[derive(Debug, Args)]
pub(crate) struct Peek {
    /// The dead-letter topic
    topic: String,
    /// How many
    #[arg(short, long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    count: u64,
    /// The oldest ones, oldest first
    #[arg(long)]
    oldest: bool,
}

impl Peek {
    pub(super) async fn run(&self, client: &Client, patience: Duration, output: Output) -> Result<(), Failure> {
        let mut letters = if self.oldest {
            let partitions = client.topics().get(&self.topic).await?.partitions;
            let mut letters = Vec::new();
            for partition in 0..partitions {
                // Ends as soon as it has as many, however long the partition is.
                let reader = client.reader(&self.topic).partition(partition, Start::Earliest);
                let reader = reader.patience(patience).stop_at_end().build().await?;
                let wanted = usize::try_from(self.count).unwrap_or(usize::MAX);
                letters.extend(reader.take(wanted).collect::<Vec<_>>().await);
            }
            letters
        } else {
            let reader = client.reader(&self.topic).from(Start::Last(self.count));
            reader.patience(patience).stop_at_end().build().await?.collect::<Vec<_>>().await
        };
        let mut letters = letters.drain(..).collect::<Result<Vec<ReceivedMessage>, _>>()?;
        letters.sort_by_key(|letter| (buried_ms(letter), letter.partition, letter.offset));
        if !self.oldest {
            letters.reverse();
        }
        letters.truncate(usize::try_from(self.count).unwrap_or(usize::MAX));
        let mut out = BufWriter::new(io::stdout());
        for letter in &letters {
            if output.format == Format::Text {
                writeln!(out, "{}", story(&letter.attributes))?;
            }
            messages::write(&mut out, letter, None, output.format)?;
        }
        Ok(out.flush()?)
    }
}

/// Attributes of a message.
type Attributes = [(String, String)];

/// An attribute that the broker added.
pub(super) fn provenance<'a>(attributes: &'a Attributes, name: &str) -> Option<&'a str> {
    let is_it = |key: &str| key.strip_prefix(PREFIX) == Some(name);
    attributes.iter().find(|(key, _)| is_it(key)).map(|(_, value)| value.as_str())
}

/// The message as it was before it became a dead letter.
pub(super) fn original(letter: &ReceivedMessage) -> ReceivedMessage {
    ReceivedMessage { attributes: without_provenance(&letter.attributes), ..letter.clone() }
}

fn without_provenance(attributes: &Attributes) -> Vec<(String, String)> {
    attributes.iter().filter(|(key, _)| !key.starts_with(PREFIX)).cloned().collect()
}

/// When it was given up.
fn buried_ms(letter: &ReceivedMessage) -> u64 {
    let returned = provenance(&letter.attributes, "last_returned_ms").and_then(|ms| ms.parse().ok());
    returned.unwrap_or(letter.publish_time_ms)
}

/// Where it came from and why, in a line.
fn story(attributes: &Attributes) -> String {
    let of = |name| provenance(attributes, name);
    let Some(topic) = of("source_topic") else { return "# not from a subscription".to_owned() };
    let place = format!("{topic} {}@{}", of("source_partition").unwrap_or("?"), of("source_offset").unwrap_or("?"));
    let subscription = of("subscription").unwrap_or("?");
    let attempts = of("attempts").unwrap_or("?");
    let error = of("last_error").filter(|error| !error.is_empty()).map(|error| format!(": {error}"));
    format!("# {place}, given up by {subscription} after {attempts} attempts{}", error.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_tells_its_story_and_loses_it_when_it_is_published_again() {
        let attributes = [
            ("kind", "green"),
            ("quorate.attempts", "3"),
            ("quorate.last_error", "no cup"),
            ("quorate.source_offset", "17"),
            ("quorate.source_partition", "2"),
            ("quorate.source_topic", "orders"),
            ("quorate.subscription", "billing"),
        ];
        let attributes = attributes.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(story(&attributes), "# orders 2@17, given up by billing after 3 attempts: no cup");
        assert_eq!(without_provenance(&attributes), [("kind".to_owned(), "green".to_owned())]);
        assert_eq!(provenance(&attributes, "kind"), None);
        assert_eq!(story(&[]), "# not from a subscription");
    }
}

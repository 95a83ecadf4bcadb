//! `quorate message`: looks up, lists and deletes single messages.

use crate::commands::read::position;
use crate::connect::Connect;
use crate::failure::Failure;
use crate::messages;
use crate::output::Output;
use clap::{Args, Subcommand};
use quorate_client::{Client, MessageQuery, Messages, Start};
use serde::Serialize;
use std::io::{self, BufWriter, Write};

#[derive(Debug, Subcommand)]
pub(crate) enum MessageCommand {
    /// Show a message
    Get {
        /// As `read -o json`, `pub -o json` and `message ls` show it
        message_id: String,
    },
    /// List messages that have something in common, partition by partition
    Ls(List),
    /// Delete messages, or cancel those that are not due yet: nobody gets them any more. There is no way back
    Delete {
        #[arg(required = true)]
        message_ids: Vec<String>,
    },
    /// Delete everything before a position. There is no way back
    Purge(Purge),
}

#[derive(Debug, Args)]
pub(crate) struct List {
    topic: String,
    /// Only these partitions; may be repeated [default: all]
    #[arg(short, long)]
    partition: Vec<u32>,
    /// Where to begin: `earliest`, an offset, or a time such as 2026-01-31T12:00:00Z or `2h ago`
    #[arg(long, value_name = "POSITION", default_value = "earliest", value_parser = position, allow_hyphen_values = true)]
    from: Start,
    /// Only messages that were published before this time
    #[arg(long, value_name = "TIME", value_parser = time_ms)]
    before: Option<u64>,
    /// Only messages with this ordering key
    #[arg(short, long, default_value = "")]
    key: String,
    /// Only messages that match, such as `attributes["region"] == "eu"`
    #[arg(long, value_name = "CEL", default_value = "")]
    filter: String,
    /// At most so many
    #[arg(short, long, default_value_t = 100)]
    count: usize,
}

#[derive(Debug, Args)]
pub(crate) struct Purge {
    topic: String,
    /// What lies before it is deleted: `latest` is everything, or an offset, or a time such as 2026-01-31T12:00:00Z or
    /// `2h ago`
    #[arg(long, value_name = "POSITION", value_parser = position, allow_hyphen_values = true)]
    before: Start,
    /// Only these partitions; may be repeated [default: all]
    #[arg(short, long)]
    partition: Vec<u32>,
}

/// What became of a deletion, as JSON.
#[derive(Serialize)]
struct Deleted {
    deleted: u64,
    absent: u64,
}

/// What became of a purge, as JSON.
#[derive(Serialize)]
struct Purged<'a> {
    topic: &'a str,
    deleted: u64,
}

impl MessageCommand {
    pub(crate) async fn run(&self, connect: &Connect, output: Output) -> Result<(), Failure> {
        let client = connect.client()?.messages();
        match self {
            MessageCommand::Get { message_id } => {
                let message = client.get(message_id).await?;
                Ok(messages::write(&mut io::stdout(), &message, None, output.format)?)
            }
            MessageCommand::Ls(list) => list.run(&client, output).await,
            MessageCommand::Delete { message_ids } => {
                let done = client.delete(message_ids).await?;
                let done = Deleted { deleted: done.deleted, absent: done.absent };
                output.result(&done, || format!("{} deleted, {} were not there", done.deleted, done.absent))
            }
            MessageCommand::Purge(purge) => {
                let deleted = client.purge(&purge.topic, purge.before, &purge.partition).await?;
                purged(&purge.topic, deleted, output)
            }
        }
    }
}

impl List {
    async fn run(&self, client: &Messages, output: Output) -> Result<(), Failure> {
        let query = MessageQuery {
            topic: self.topic.clone(),
            partitions: self.partition.clone(),
            start: Some(self.from),
            before_ms: self.before,
            ordering_key: self.key.clone(),
            filter: self.filter.clone(),
            without_data: false,
        };
        let mut out = BufWriter::new(io::stdout());
        for message in client.list(&query, self.count).await? {
            messages::write(&mut out, &message, None, output.format)?;
        }
        Ok(out.flush()?)
    }
}

/// Deletes all that a topic holds.
pub(super) async fn purge_all(client: &Client, topic: &str, output: Output) -> Result<(), Failure> {
    purged(topic, client.messages().purge(topic, Start::Latest, &[]).await?, output)
}

fn purged(topic: &str, deleted: u64, output: Output) -> Result<(), Failure> {
    output.result(&Purged { topic, deleted }, || format!("{deleted} messages of {topic} deleted"))
}

fn time_ms(text: &str) -> Result<u64, String> {
    match position(text) {
        Ok(Start::Time(ms)) => Ok(ms),
        _ => Err("write a time such as 2026-01-31T12:00:00Z, or `2h ago`".to_owned()),
    }
}

//! `quorate topic`: creates, lists, shows, changes and deletes topics.

use crate::connect::Connect;
use crate::failure::Failure;
use crate::output::{Output, print_line, table};
use clap::{Args, Subcommand};
use quorate_client::{PartitionStatus, Retention, Topic, TopicSpec, TopicUpdate};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Debug, Subcommand)]
pub(crate) enum TopicCommand {
    /// Create a topic
    Create(Create),
    /// List topics
    Ls,
    /// Show a topic with its partitions: leaders, replicas, offsets
    Get { name: String },
    /// Change a topic; what isn't named stays as it is
    Update(Update),
    /// Delete a topic with all its messages and subscriptions
    Delete { name: String },
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// A letter, then letters, digits, `.`, `_` and `-`; at most 249 characters
    name: String,
    /// Messages are in order within a partition; partitions share the load [default: 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    partitions: Option<u32>,
    /// Nodes that hold each partition [default: 3 where there are 3 nodes, else 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    replication_factor: Option<u32>,
    #[command(flatten)]
    changeable: Changeable,
}

#[derive(Debug, Args)]
pub(crate) struct Update {
    name: String,
    #[command(flatten)]
    changeable: Changeable,
    /// Change nothing if the topic was changed since it had this etag
    #[arg(long)]
    etag: Option<String>,
}

/// What can be chosen at creation and changed later.
#[derive(Debug, Args)]
struct Changeable {
    /// Age after which messages may go, such as 7d, or `forever` [default: 7d]
    #[arg(long, value_name = "AGE", value_parser = age)]
    retention: Option<Age>,
    /// Bytes per partition beyond which the oldest messages may go
    #[arg(long, value_name = "BYTES")]
    retention_bytes: Option<u64>,
    /// Messages per partition beyond which the oldest may go
    #[arg(long, value_name = "COUNT")]
    retention_messages: Option<u64>,
    /// Largest message; at most 16777216 [default: 1048576]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    max_message_bytes: Option<u64>,
    /// A label; may be repeated. On update the given ones replace all
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Age {
    Forever,
    AtMost(Duration),
}

impl TopicCommand {
    pub(crate) async fn run(&self, connect: &Connect, output: Output) -> Result<(), Failure> {
        let topics = connect.client()?.topics();
        match self {
            TopicCommand::Create(create) => {
                let created = topics.create(create.spec()).await?;
                for warning in &created.warnings {
                    eprintln!("warning: {warning}");
                }
                report(&created.topic, "created", output)
            }
            TopicCommand::Ls => {
                let rows: Vec<TopicRow> = topics.list().await?.iter().map(TopicRow::of).collect();
                output.list(&["name", "partitions", "replicas", "retention", "max message"], &rows, TopicRow::cells)
            }
            TopicCommand::Get { name } => {
                let topic = topics.get(name).await?;
                output.result(&TopicRow::of(&topic), || describe(&topic))
            }
            TopicCommand::Update(update) => {
                // Retention is replaced as a whole, so a change of one bound needs the others.
                let present = topics.get(&update.name).await?;
                let changed = topics.update(&update.name, update.change(present.retention)?).await?;
                report(&changed, "changed", output)
            }
            TopicCommand::Delete { name } => {
                topics.delete(name).await?;
                if output.is_json() { Ok(()) } else { print_line(&format!("topic {name} deleted")) }
            }
        }
    }
}

impl Create {
    fn spec(&self) -> TopicSpec {
        let chosen = &self.changeable;
        // A retention that is given replaces the default as a whole; an age left out keeps the default's.
        let week = Retention { age: Some(Duration::from_secs(7 * 24 * 60 * 60)), ..Retention::default() };
        TopicSpec {
            partitions: self.partitions,
            replication_factor: self.replication_factor,
            retention: chosen.retention_over(week),
            max_message_bytes: chosen.max_message_bytes,
            labels: chosen.labels.iter().cloned().collect(),
            ..TopicSpec::named(&self.name)
        }
    }
}

impl Update {
    fn change(&self, present: Retention) -> Result<TopicUpdate, Failure> {
        let chosen = &self.changeable;
        let labels: BTreeMap<String, String> = chosen.labels.iter().cloned().collect();
        let update = TopicUpdate {
            retention: chosen.retention_over(present),
            max_message_bytes: chosen.max_message_bytes,
            labels: (!labels.is_empty()).then_some(labels),
            etag: self.etag.clone(),
        };
        if update.retention.is_none() && update.max_message_bytes.is_none() && update.labels.is_none() {
            return Err(Failure::usage("nothing to change").advise("`quorate topic update --help` lists what can be"));
        }
        Ok(update)
    }
}

impl Changeable {
    /// The bounds asked for laid over others; `None` if none was asked for.
    fn retention_over(&self, present: Retention) -> Option<Retention> {
        if self.retention.is_none() && self.retention_bytes.is_none() && self.retention_messages.is_none() {
            return None;
        }
        let age = match self.retention {
            None => present.age,
            Some(Age::Forever) => None,
            Some(Age::AtMost(age)) => Some(age),
        };
        let bytes = self.retention_bytes.or(present.bytes);
        let messages = self.retention_messages.or(present.messages);
        Some(Retention { age, bytes, messages })
    }
}

/// A topic as JSON.
#[derive(Serialize)]
struct TopicRow {
    name: String,
    topic_id: u64,
    partitions: u32,
    replication_factor: u32,
    retention: RetentionRow,
    max_message_bytes: u64,
    labels: BTreeMap<String, String>,
    etag: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    partition_status: Vec<PartitionRow>,
}

#[derive(Serialize)]
struct RetentionRow {
    #[serde(skip_serializing_if = "Option::is_none")]
    age: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<u64>,
}

#[derive(Serialize)]
struct PartitionRow {
    partition: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    leader_node_id: Option<u64>,
    replica_node_ids: Vec<u64>,
    /// Absent while the leader doesn't answer: unknown is not 0.
    #[serde(flatten)]
    log: Option<LogRow>,
}

#[derive(Serialize)]
struct LogRow {
    log_start_offset: u64,
    end_offset: u64,
    bytes: u64,
    deleted_messages: u64,
}

impl TopicRow {
    fn of(topic: &Topic) -> TopicRow {
        TopicRow {
            name: topic.name.clone(),
            topic_id: topic.topic_id,
            partitions: topic.partitions,
            replication_factor: topic.replication_factor,
            retention: RetentionRow {
                age: topic.retention.age.map(|age| humantime::format_duration(age).to_string()),
                bytes: topic.retention.bytes,
                messages: topic.retention.messages,
            },
            max_message_bytes: topic.max_message_bytes,
            labels: topic.labels.clone(),
            etag: topic.etag.clone(),
            partition_status: topic.partition_status.iter().map(PartitionRow::of).collect(),
        }
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.partitions.to_string(),
            self.replication_factor.to_string(),
            self.retention.text(),
            self.max_message_bytes.to_string(),
        ]
    }
}

impl RetentionRow {
    fn text(&self) -> String {
        let age = self.age.clone();
        let bytes = self.bytes.map(|bytes| format!("{bytes} bytes"));
        let messages = self.messages.map(|messages| format!("{messages} messages"));
        let bounds: Vec<String> = [age, bytes, messages].into_iter().flatten().collect();
        if bounds.is_empty() { "forever".to_owned() } else { bounds.join(", ") }
    }
}

impl PartitionRow {
    fn of(status: &PartitionStatus) -> PartitionRow {
        let log = LogRow {
            log_start_offset: status.log_start_offset,
            end_offset: status.end_offset,
            bytes: status.bytes,
            deleted_messages: status.deleted_messages,
        };
        PartitionRow {
            partition: status.partition,
            leader_node_id: status.leader,
            replica_node_ids: status.replicas.clone(),
            log: (!status.unavailable).then_some(log),
        }
    }

    fn cells(&self) -> Vec<String> {
        let unknown = || "–".to_owned();
        let of_log = |value: fn(&LogRow) -> u64| self.log.as_ref().map_or_else(unknown, |log| value(log).to_string());
        let replicas: Vec<String> = self.replica_node_ids.iter().map(u64::to_string).collect();
        vec![
            self.partition.to_string(),
            self.leader_node_id.map_or_else(unknown, |leader| leader.to_string()),
            replicas.join(","),
            of_log(|log| log.log_start_offset),
            of_log(|log| log.end_offset),
            of_log(|log| log.bytes),
            of_log(|log| log.deleted_messages),
        ]
    }
}

fn report(topic: &Topic, done: &str, output: Output) -> Result<(), Failure> {
    output.result(&TopicRow::of(topic), || {
        let plural = |count: u32| if count == 1 { "" } else { "s" };
        let (partitions, replicas) = (topic.partitions, topic.replication_factor);
        let (some, each) = (plural(partitions), plural(replicas));
        format!("topic {} {done}: {partitions} partition{some}, {replicas} replica{each} each", topic.name)
    })
}

fn describe(topic: &Topic) -> String {
    let row = TopicRow::of(topic);
    let labels: Vec<String> = row.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let facts = [
        format!("topic        {} (id {})", row.name, row.topic_id),
        format!("retention    {}", row.retention.text()),
        format!("max message  {} bytes", row.max_message_bytes),
        format!("labels       {}", if labels.is_empty() { "none".to_owned() } else { labels.join(" ") }),
        format!("etag         {}", row.etag),
    ];
    let header = ["partition", "leader", "replicas", "start", "end", "bytes", "deleted"];
    format!("{}\n\n{}", facts.join("\n"), table(&header, row.partition_status.iter().map(PartitionRow::cells)))
}

fn age(text: &str) -> Result<Age, String> {
    if text == "forever" {
        return Ok(Age::Forever);
    }
    let age = humantime::parse_duration(text).map_err(|error| format!("{error}; write 7d, 12h or `forever`"))?;
    Ok(Age::AtMost(age))
}

pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bound_of_retention_can_be_changed_alone() {
        let present = Retention { age: Some(Duration::from_secs(60)), bytes: Some(5), messages: None };
        let none = Changeable {
            retention: None,
            retention_bytes: None,
            retention_messages: None,
            max_message_bytes: None,
            labels: Vec::new(),
        };
        assert_eq!(none.retention_over(present), None);
        let forever = Changeable { retention: Some(Age::Forever), ..none };
        assert_eq!(forever.retention_over(present), Some(Retention { age: None, ..present }));
    }

    #[test]
    fn an_age_is_a_duration_or_forever() {
        assert_eq!(age("7d"), Ok(Age::AtMost(Duration::from_secs(604_800))));
        assert_eq!(age("forever"), Ok(Age::Forever));
        assert!(age("soon").is_err());
    }
}

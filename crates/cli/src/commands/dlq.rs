//! `quorate dlq`: dead letters, which are messages of ordinary topics with attributes that say where they came from.

mod letters;
mod redrive;

use crate::commands::message::purge_all;
use crate::connect::Connect;
use crate::failure::Failure;
use crate::output::Output;
use clap::Subcommand;
use futures::stream::{self, StreamExt, TryStreamExt};
use quorate_client::{Client, ClientError, Reason, Subscription};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Topics that are asked at the same time.
const ASKED_AT_ONCE: usize = 8;

#[derive(Debug, Subcommand)]
pub(crate) enum DlqCommand {
    /// List subscriptions that send dead letters, and the topics where those are
    Ls,
    /// Show dead letters, where they came from and why; changes nothing
    Peek(letters::Peek),
    /// Publish dead letters again, to the topics that they came from
    Redrive(redrive::Redrive),
    /// Delete all dead letters of a topic. There is no way back
    Purge {
        /// The dead-letter topic
        topic: String,
    },
}

impl DlqCommand {
    pub(crate) async fn run(&self, connect: &Connect, output: Output) -> Result<(), Failure> {
        let client = connect.client()?;
        match self {
            DlqCommand::Ls => list(&client, output).await,
            DlqCommand::Peek(peek) => peek.run(&client, connect.timeout(), output).await,
            DlqCommand::Purge { topic } => purge(&client, topic, output).await,
            DlqCommand::Redrive(redrive) => redrive.run(&client, connect.timeout(), output).await,
        }
    }
}

/// A subscription that sends dead letters, as JSON.
#[derive(Serialize)]
struct Row {
    subscription: String,
    topic: String,
    dead_letter_topic: String,
    /// Ever sent there by this subscription, and those of them that aren't there yet.
    dead_lettered_total: u64,
    dead_letters_waiting: u64,
    /// In the dead-letter topic now, of all subscriptions that send there.
    dead_letters: u64,
    /// Of those, not published again by `redrive`.
    not_redriven: u64,
    /// Partitions whose leaders didn't answer: the numbers lack theirs.
    unavailable_partitions: usize,
}

/// What a dead-letter topic holds.
#[derive(Clone, Copy, Default)]
struct Held {
    messages: u64,
    not_redriven: u64,
    unavailable: usize,
}

async fn list(client: &Client, output: Output) -> Result<(), Failure> {
    let subscriptions = client.subscriptions();
    let listed = subscriptions.list().await?;
    let topics: BTreeSet<String> =
        listed.iter().filter_map(|it| Some(it.dead_letter_policy.as_ref()?.topic.clone())).collect();
    let held = stream::iter(topics).map(|topic| async move {
        let held = held(client, &topic).await?;
        Ok::<_, ClientError>((topic, held))
    });
    let held: BTreeMap<String, Held> = held.buffered(ASKED_AT_ONCE).try_collect().await?;
    let senders = listed.iter().filter(|it| it.dead_letter_policy.is_some());
    let rows = stream::iter(senders).map(|sender| present(client, sender)).buffered(ASKED_AT_ONCE);
    let rows: Vec<Option<Subscription>> = rows.try_collect().await?;
    let rows: Vec<Row> = rows.iter().flatten().filter_map(|it| Row::of(it, &held)).collect();
    let header = ["subscription", "topic", "dead-letter topic", "sent", "waiting", "in topic", "not redriven"];
    output.list(&header, &rows, Row::cells)
}

/// Somebody may have the topic of the messages in mind, and not the one of the dead letters.
async fn purge(client: &Client, topic: &str, output: Output) -> Result<(), Failure> {
    let listed = client.subscriptions().list().await?;
    let is_it = |it: &Subscription| it.dead_letter_policy.as_ref().is_some_and(|policy| policy.topic == topic);
    if !listed.iter().any(is_it) {
        let failure = Failure::new(format!("no subscription sends its dead letters to {topic}"));
        return Err(
            failure.advise("`quorate dlq ls` shows where they go, and `quorate message purge` empties any topic")
        );
    }
    purge_all(client, topic, output).await
}

/// A subscription with its numbers; `None` if it was deleted since it was listed.
async fn present(client: &Client, listed: &Subscription) -> Result<Option<Subscription>, ClientError> {
    missing_is_none(client.subscriptions().get(&listed.name).await, Reason::SubscriptionNotFound)
}

async fn held(client: &Client, topic: &str) -> Result<Held, ClientError> {
    let found = missing_is_none(client.topics().get(topic).await, Reason::TopicNotFound)?;
    let Some(found) = found else { return Ok(Held::default()) };
    let sizes = found
        .partition_status
        .iter()
        .map(|it| it.end_offset.saturating_sub(it.log_start_offset).saturating_sub(it.deleted_messages));
    let messages = sizes.sum();
    let unavailable = found.partition_status.iter().filter(|it| it.unavailable).count();
    let redrive = client.subscriptions().get(redrive::subscription(topic)).await;
    let redrive = missing_is_none(redrive, Reason::SubscriptionNotFound)?;
    let not_redriven = redrive.map_or(messages, |it| it.numbers().backlog_messages);
    Ok(Held { messages, not_redriven, unavailable })
}

fn missing_is_none<T>(found: Result<T, ClientError>, reason: Reason) -> Result<Option<T>, ClientError> {
    match found {
        Err(error) if error.is(reason) => Ok(None),
        other => other.map(Some),
    }
}

impl Row {
    fn of(subscription: &Subscription, held: &BTreeMap<String, Held>) -> Option<Self> {
        let dead_letter_topic = subscription.dead_letter_policy.as_ref()?.topic.clone();
        let held = held.get(&dead_letter_topic).copied().unwrap_or_default();
        let numbers = subscription.numbers();
        let silent = subscription.partition_status.iter().filter(|status| status.numbers.is_none()).count();
        Some(Self {
            subscription: subscription.name.clone(),
            topic: subscription.topic.clone(),
            dead_letter_topic,
            dead_lettered_total: numbers.dead_lettered_total,
            dead_letters_waiting: numbers.dead_letters_waiting,
            dead_letters: held.messages,
            not_redriven: held.not_redriven,
            unavailable_partitions: silent + held.unavailable,
        })
    }

    /// A sum that lacks a partition is at least as large as it says.
    fn cells(&self) -> Vec<String> {
        let mark = if self.unavailable_partitions == 0 { "" } else { "≥" };
        let numbers = [self.dead_lettered_total, self.dead_letters_waiting, self.dead_letters, self.not_redriven];
        let names = [self.subscription.clone(), self.topic.clone(), self.dead_letter_topic.clone()];
        names.into_iter().chain(numbers.map(|number| format!("{mark}{number}"))).collect()
    }
}

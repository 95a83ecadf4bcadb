//! `quorate subscription`: creates, lists, shows, changes and deletes subscriptions.

mod retry;
mod seek;
mod snapshot;
mod status;
mod test_filter;

use crate::commands::read::position;
use crate::commands::topic::label;
use crate::connect::Connect;
use crate::failure::Failure;
use crate::output::{Output, print_line};
use clap::{Args, Subcommand};
use quorate_client::{DeadLetterPolicy, RetryPolicy, Start, Subscription, SubscriptionSpec, SubscriptionUpdate};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;
use test_filter::TestFilter;

#[derive(Debug, Subcommand)]
pub(crate) enum SubscriptionCommand {
    /// Create a subscription
    Create(Create),
    /// List subscriptions
    Ls {
        /// Only those of this topic
        #[arg(short, long)]
        topic: Option<String>,
        /// What each has and hasn't done, as the leaders of its partitions say
        #[arg(short, long)]
        status: bool,
    },
    /// Show a subscription, and what it has and hasn't done
    Get {
        name: String,
        /// Look twice, a second apart, and show how many messages were acknowledged
        #[arg(long)]
        rate: bool,
    },
    /// Change a subscription; what isn't named stays as it is
    Update(Update),
    /// Move a subscription to another place in its topic
    Seek(seek::Seek),
    /// Write down where a subscription stands, for `seek --to-snapshot`
    Snapshot(snapshot::Take),
    /// Delete a subscription; the messages stay
    Delete { name: String },
    /// Try a filter on the newest messages of a topic; changes nothing
    TestFilter(TestFilter),
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// A letter, then letters, digits, `.`, `_` and `-`; at most 249 characters
    name: String,
    /// The topic whose messages it gets
    #[arg(short, long)]
    topic: String,
    /// Where it begins, in every partition: `earliest`, `latest`, an offset, or a time such as 2026-01-31T12:00:00Z or
    /// `2h ago`
    #[arg(long, value_name = "POSITION", default_value = "latest", value_parser = position, allow_hyphen_values = true)]
    from: Start,
    /// Deliver messages with the same ordering key one after another
    #[arg(long)]
    ordered: bool,
    #[command(flatten)]
    changeable: Changeable,
}

#[derive(Debug, Args)]
pub(crate) struct Update {
    name: String,
    #[command(flatten)]
    changeable: Changeable,
    /// Send no dead letters any more
    #[arg(long, conflicts_with_all = ["dead_letter_topic", "max_attempts"])]
    no_dead_letters: bool,
    /// Deliver all messages from now on
    #[arg(long, conflicts_with = "filter")]
    no_filter: bool,
    /// Change nothing if the subscription was changed since it had this etag
    #[arg(long)]
    etag: Option<String>,
}

/// What can be chosen at creation and changed later.
#[derive(Debug, Args)]
struct Changeable {
    /// How long a subscriber may keep a message before it is delivered again: 1s to 12h [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    ack_deadline: Option<Duration>,
    /// The pause before the next attempt: immediate, fixed:5s, linear:1s+2s..1m, exponential:1s..10m or list:1s,5s,30s
    /// [default: exponential:1s..10m]
    #[arg(long, value_name = "POLICY", value_parser = retry::policy)]
    retry: Option<RetryPolicy>,
    /// Where messages go that were tried often enough [default: they are tried until they are acknowledged]
    #[arg(long, value_name = "TOPIC")]
    dead_letter_topic: Option<String>,
    /// How often a message is tried before it goes there, at most 1000 [default: 5]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    max_attempts: Option<u32>,
    /// Which messages it gets, as a CEL expression such as 'attributes["region"] == "eu" && size < 1000' [default: all].
    /// A change counts for the messages that the subscription hasn't come to
    #[arg(long, value_name = "EXPRESSION", allow_hyphen_values = true)]
    filter: Option<String>,
    /// A label; may be repeated. On update the given ones replace all
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
}

impl SubscriptionCommand {
    pub(crate) async fn run(&self, connect: &Connect, output: Output) -> Result<(), Failure> {
        let subscriptions = connect.client()?.subscriptions();
        match self {
            SubscriptionCommand::Create(create) => {
                let created = subscriptions.create(create.spec()?).await?;
                report(&created, "created", output)
            }
            SubscriptionCommand::Ls { topic, status } => {
                let listed = match topic {
                    Some(topic) => subscriptions.list_of(topic).await?,
                    None => subscriptions.list().await?,
                };
                if *status {
                    return status::list(&subscriptions, &listed, output).await;
                }
                let rows: Vec<Row> = listed.iter().map(Row::of).collect();
                output.list(&["name", "topic", "ack deadline", "retry", "dead letters", "filter"], &rows, Row::cells)
            }
            SubscriptionCommand::Get { name, rate } => {
                let (subscription, rate) = status::look(&subscriptions, name, *rate).await?;
                let shown = Shown { row: Row::of(&subscription), status: status::Status::of(&subscription, rate) };
                output.result(&shown, || format!("{}\n{}", describe(&subscription), shown.status.text()))
            }
            SubscriptionCommand::Update(update) => {
                update.check()?;
                // A dead-letter policy is replaced as a whole, so a change of one part needs the other.
                let present = if update.changeable.names_dead_letters() {
                    subscriptions.get(&update.name).await?.dead_letter_policy
                } else {
                    None
                };
                let changed = subscriptions.update(&update.name, update.change(present)?).await?;
                report(&changed, "changed", output)
            }
            SubscriptionCommand::Seek(seek) => seek.run(&subscriptions, output).await,
            SubscriptionCommand::Snapshot(take) => take.run(&subscriptions, output).await,
            SubscriptionCommand::TestFilter(test) => test.run(&subscriptions, output).await,
            SubscriptionCommand::Delete { name } => {
                subscriptions.delete(name).await?;
                if output.is_json() { Ok(()) } else { print_line(&format!("subscription {name} deleted")) }
            }
        }
    }
}

impl Create {
    fn spec(&self) -> Result<SubscriptionSpec, Failure> {
        let chosen = &self.changeable;
        Ok(SubscriptionSpec {
            start: Some(self.from),
            ack_deadline: chosen.ack_deadline,
            retry_policy: chosen.retry.clone(),
            dead_letter_policy: chosen.dead_letters_over(None)?,
            ordered: self.ordered,
            filter: chosen.filter.clone().unwrap_or_default(),
            labels: chosen.labels.iter().cloned().collect(),
            ..SubscriptionSpec::named(&self.name, &self.topic)
        })
    }
}

impl Update {
    /// Whether there is anything to do.
    fn check(&self) -> Result<(), Failure> {
        let chosen = &self.changeable;
        let something = chosen.ack_deadline.is_some()
            || chosen.retry.is_some()
            || chosen.names_dead_letters()
            || self.no_dead_letters
            || chosen.filter.is_some()
            || self.no_filter
            || !chosen.labels.is_empty();
        if something {
            return Ok(());
        }
        Err(Failure::usage("nothing to change").advise("`quorate subscription update --help` lists what can be"))
    }

    fn change(&self, present: Option<DeadLetterPolicy>) -> Result<SubscriptionUpdate, Failure> {
        let chosen = &self.changeable;
        let labels: BTreeMap<String, String> = chosen.labels.iter().cloned().collect();
        let dead_letter_policy =
            if self.no_dead_letters { Some(None) } else { chosen.dead_letters_over(present)?.map(Some) };
        Ok(SubscriptionUpdate {
            ack_deadline: chosen.ack_deadline,
            retry_policy: chosen.retry.clone(),
            dead_letter_policy,
            filter: if self.no_filter { Some(String::new()) } else { chosen.filter.clone() },
            labels: (!labels.is_empty()).then_some(labels),
            etag: self.etag.clone(),
        })
    }
}

impl Changeable {
    fn names_dead_letters(&self) -> bool {
        self.dead_letter_topic.is_some() || self.max_attempts.is_some()
    }

    /// The policy asked for laid over another; `None` if none was asked for.
    fn dead_letters_over(&self, present: Option<DeadLetterPolicy>) -> Result<Option<DeadLetterPolicy>, Failure> {
        if !self.names_dead_letters() {
            return Ok(None);
        }
        let (present_topic, present_attempts) =
            present.map(|policy| (policy.topic, policy.max_delivery_attempts)).unzip();
        let Some(topic) = self.dead_letter_topic.clone().or(present_topic) else {
            return Err(Failure::usage(
                "--max-attempts says when a message becomes a dead letter, but not where it goes",
            )
            .advise("name a topic with --dead-letter-topic"));
        };
        let max_delivery_attempts = self.max_attempts.or(present_attempts.flatten());
        Ok(Some(DeadLetterPolicy { topic, max_delivery_attempts }))
    }
}

/// A subscription with its numbers as JSON.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    row: Row,
    #[serde(flatten)]
    status: status::Status,
}

/// A subscription as JSON.
#[derive(Serialize)]
struct Row {
    name: String,
    subscription_id: u64,
    topic: String,
    ack_deadline: String,
    /// As `--retry` takes it; absent if this program is too old to know it.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letter_topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_attempts: Option<u32>,
    ordered: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    filter: String,
    labels: BTreeMap<String, String>,
    etag: String,
}

impl Row {
    fn of(subscription: &Subscription) -> Row {
        let dead_letters = subscription.dead_letter_policy.as_ref();
        Row {
            name: subscription.name.clone(),
            subscription_id: subscription.subscription_id,
            topic: subscription.topic.clone(),
            ack_deadline: retry::written(subscription.ack_deadline),
            retry: subscription.retry_policy.as_ref().map(retry::text),
            dead_letter_topic: dead_letters.map(|policy| policy.topic.clone()),
            max_attempts: dead_letters.and_then(|policy| policy.max_delivery_attempts),
            ordered: subscription.ordered,
            filter: subscription.filter.clone(),
            labels: subscription.labels.clone(),
            etag: subscription.etag.clone(),
        }
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.topic.clone(),
            self.ack_deadline.clone(),
            self.retry_text().to_owned(),
            self.dead_letter_topic.clone().unwrap_or_else(|| "–".to_owned()),
            if self.filter.is_empty() { "–".to_owned() } else { self.filter.clone() },
        ]
    }

    fn retry_text(&self) -> &str {
        self.retry.as_deref().unwrap_or("unknown to this version")
    }

    fn dead_letter_text(&self) -> String {
        match (&self.dead_letter_topic, self.max_attempts) {
            (Some(topic), Some(attempts)) => format!("to {topic} after {attempts} attempts"),
            (Some(topic), None) => format!("to {topic}"),
            (None, _) => "none: messages are tried until they are acknowledged".to_owned(),
        }
    }
}

fn report(subscription: &Subscription, done: &str, output: Output) -> Result<(), Failure> {
    output.result(&Row::of(subscription), || {
        format!("subscription {} of topic {} {done}", subscription.name, subscription.topic)
    })
}

fn describe(subscription: &Subscription) -> String {
    let row = Row::of(subscription);
    let labels: Vec<String> = row.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let facts = [
        format!("subscription  {} (id {})", row.name, row.subscription_id),
        format!("topic         {}", row.topic),
        format!("ack deadline  {}", row.ack_deadline),
        format!("retry         {}", row.retry_text()),
        format!("dead letters  {}", row.dead_letter_text()),
        format!("order         {}", if row.ordered { "by ordering key" } else { "none" }),
        format!("filter        {}", if row.filter.is_empty() { "none" } else { row.filter.as_str() }),
        format!("labels        {}", if labels.is_empty() { "none".to_owned() } else { labels.join(" ") }),
        format!("etag          {}", row.etag),
    ];
    facts.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing() -> Changeable {
        Changeable {
            ack_deadline: None,
            retry: None,
            dead_letter_topic: None,
            max_attempts: None,
            filter: None,
            labels: Vec::new(),
        }
    }

    #[test]
    fn one_part_of_a_dead_letter_policy_can_be_changed_alone() {
        let policy = |topic: &str, attempts| {
            let topic = topic.to_owned();
            Some(DeadLetterPolicy { topic, max_delivery_attempts: Some(attempts) })
        };
        assert_eq!(nothing().dead_letters_over(policy("dead", 7)).ok(), Some(None));
        let attempts = Changeable { max_attempts: Some(9), ..nothing() };
        assert_eq!(attempts.dead_letters_over(policy("dead", 7)).ok(), Some(policy("dead", 9)));
        let topic = Changeable { dead_letter_topic: Some("morgue".to_owned()), ..nothing() };
        assert_eq!(topic.dead_letters_over(policy("dead", 7)).ok(), Some(policy("morgue", 7)));
        assert!(attempts.dead_letters_over(None).is_err());
    }
}

//! `quorate subscription test-filter`: what a filter makes of the newest messages.

use std::fmt::Write as _;

use crate::failure::Failure;
use crate::output::{Output, table};
use clap::{ArgGroup, Args};
use quorate_client::{FilterTest, FilterTested, ReceivedMessage, Subscriptions};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("source").required(true).args(["topic", "subscription"])))]
pub(crate) struct TestFilter {
    /// Try it on messages of this topic
    #[arg(short, long, requires = "filter")]
    topic: Option<String>,
    /// Try it on messages of this subscription's topic
    #[arg(short, long)]
    subscription: Option<String>,
    /// The filter, as `quorate subscription create` takes it [default: the one that the subscription has]
    #[arg(long, value_name = "EXPRESSION", allow_hyphen_values = true)]
    filter: Option<String>,
    /// On how many messages: the newest of each partition, and of each as many
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    last: u32,
}

/// What came of it as JSON.
#[derive(Serialize)]
struct Row<'a> {
    tested: u32,
    matched: u32,
    failed: u32,
    matches: Vec<Match<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<FailureRow<'a>>,
}

#[derive(Serialize)]
struct Match<'a> {
    message_id: String,
    partition: u32,
    offset: u64,
    ordering_key: String,
    attributes: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
struct FailureRow<'a> {
    message_id: &'a str,
    error: &'a str,
}

impl TestFilter {
    pub(crate) async fn run(&self, subscriptions: &Subscriptions, output: Output) -> Result<(), Failure> {
        let tested = subscriptions.test_filter(self.test().last(self.last)).await?;
        output.result(&Row::of(&tested), || describe(&tested))
    }

    fn test(&self) -> FilterTest {
        let filter = self.filter.clone().unwrap_or_default();
        match (&self.topic, &self.subscription) {
            (Some(topic), _) => FilterTest::on_topic(topic, filter),
            (None, subscription) => {
                FilterTest::on_subscription(subscription.clone().unwrap_or_default()).filter(filter)
            }
        }
    }
}

impl<'a> Row<'a> {
    fn of(tested: &'a FilterTested) -> Self {
        let failure = tested.failure.as_ref();
        Self {
            tested: tested.tested,
            matched: tested.matched,
            failed: tested.failed,
            matches: tested.matches.iter().map(Match::of).collect(),
            failure: failure.map(|failure| FailureRow { message_id: &failure.message_id, error: &failure.error }),
        }
    }
}

impl<'a> Match<'a> {
    fn of(message: &'a ReceivedMessage) -> Self {
        Self {
            message_id: message.message_id.to_string(),
            partition: message.partition,
            offset: message.offset,
            ordering_key: String::from_utf8_lossy(&message.ordering_key).into_owned(),
            attributes: message.attributes.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
        }
    }

    fn cells(&self) -> Vec<String> {
        let attributes: Vec<String> = self.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
        vec![format!("{}@{}", self.partition, self.offset), self.ordering_key.clone(), attributes.join(" ")]
    }
}

fn describe(tested: &FilterTested) -> String {
    let FilterTested { tested: count, matched, failed, .. } = tested;
    let mut text = format!("{matched} of {count} messages match; the filter fails for {failed}");
    if let Some(failure) = &tested.failure {
        let _ = write!(text, "\nfor message {}: {}", failure.message_id, failure.error);
    }
    if !tested.matches.is_empty() {
        let rows = tested.matches.iter().map(|message| Match::of(message).cells());
        let _ = write!(text, "\n{}", table(&["message", "key", "attributes"], rows));
    }
    text
}

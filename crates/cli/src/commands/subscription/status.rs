//! The numbers of subscriptions, for people and programs.

use crate::failure::Failure;
use crate::output::{Output, table};
use futures::stream::{self, StreamExt, TryStreamExt};
use quorate_client::{Reason, Subscription, SubscriptionNumbers, Subscriptions};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Subscriptions whose partitions are asked at the same time.
const ASKED_AT_ONCE: usize = 8;

/// Between the two looks that make a rate.
const RATE_PERIOD: Duration = Duration::from_secs(1);

/// What a subscription has and hasn't done, as JSON.
#[derive(Serialize)]
pub(super) struct Status {
    #[serde(flatten)]
    numbers: Numbers,
    #[serde(skip_serializing_if = "Option::is_none")]
    acknowledged_per_second: Option<f64>,
    /// Partitions whose leaders didn't answer: their numbers are missing.
    unavailable_partitions: Vec<u32>,
    partitions: Vec<PartitionRow>,
}

#[derive(Serialize)]
struct PartitionRow {
    partition: u32,
    #[serde(flatten)]
    numbers: Numbers,
}

#[derive(Serialize)]
struct Numbers {
    backlog_messages: u64,
    oldest_unacknowledged_seconds: Option<f64>,
    in_flight_messages: u64,
    delayed_messages: u64,
    acknowledged_total: u64,
    redelivered_total: u64,
    dead_lettered_total: u64,
    lost_total: u64,
    dead_letters_waiting: u64,
    subscribers: u32,
    attempts: BTreeMap<String, u64>,
    /// The highest first.
    priorities: Vec<PriorityRow>,
    /// There are more messages with a priority or a time of their own than were counted.
    priorities_partial: bool,
}

#[derive(Serialize)]
struct PriorityRow {
    priority: u32,
    ready: u64,
    /// For their time.
    waiting: u64,
}

/// The status of one subscription in a list, as JSON.
#[derive(Serialize)]
struct Listed {
    name: String,
    topic: String,
    #[serde(flatten)]
    status: Status,
}

/// A subscription; with `rate`, also how many messages are acknowledged in a second.
pub(super) async fn look(
    subscriptions: &Subscriptions,
    name: &str,
    rate: bool,
) -> Result<(Subscription, Option<f64>), Failure> {
    let (first, since) = (subscriptions.get(name).await?, Instant::now());
    if !rate {
        return Ok((first, None));
    }
    tokio::time::sleep(RATE_PERIOD).await;
    let second = subscriptions.get(name).await?;
    let took = since.elapsed().as_secs_f64();
    Ok((second.clone(), Some(acknowledged_between(&first, &second) / took)))
}

/// Only of partitions that answered both times: one that answers late would count with all it ever did.
#[allow(clippy::cast_precision_loss)]
fn acknowledged_between(first: &Subscription, second: &Subscription) -> f64 {
    let totals = |subscription: &Subscription| -> BTreeMap<u32, u64> {
        let known = subscription.partition_status.iter();
        known.filter_map(|status| Some((status.partition, status.numbers.as_ref()?.acknowledged_total))).collect()
    };
    let before = totals(first);
    let more = totals(second).into_iter().filter_map(|(partition, now)| now.checked_sub(*before.get(&partition)?));
    more.sum::<u64>() as f64
}

/// Asks the partitions of all, and prints a line for each.
pub(super) async fn list(
    subscriptions: &Subscriptions,
    listed: &[Subscription],
    output: Output,
) -> Result<(), Failure> {
    let asked = stream::iter(listed).map(|subscription| async {
        match subscriptions.get(&subscription.name).await {
            // Deleted since it was listed.
            Err(error) if error.is(Reason::SubscriptionNotFound) => Ok(None),
            other => other.map(Some),
        }
    });
    let all: Vec<Option<Subscription>> = asked.buffered(ASKED_AT_ONCE).try_collect().await?;
    let rows: Vec<Listed> = all.iter().flatten().map(Listed::of).collect();
    let header =
        ["name", "topic", "backlog", "oldest", "in flight", "delayed", "acknowledged", "redelivered", "dead", "lost"];
    output.list(&header, &rows, Listed::cells)
}

impl Listed {
    fn of(subscription: &Subscription) -> Self {
        let status = Status::of(subscription, None);
        Self { name: subscription.name.clone(), topic: subscription.topic.clone(), status }
    }

    /// A sum that lacks a partition is at least as large as it says.
    fn cells(&self) -> Vec<String> {
        let mark = if self.status.unavailable_partitions.is_empty() { "" } else { "≥" };
        let numbers = self.status.numbers.cells().into_iter().map(|cell| format!("{mark}{cell}"));
        [self.name.clone(), self.topic.clone()].into_iter().chain(numbers).collect()
    }
}

impl Status {
    pub(super) fn of(subscription: &Subscription, rate: Option<f64>) -> Self {
        let (known, unknown): (Vec<_>, Vec<_>) =
            subscription.partition_status.iter().partition(|status| status.numbers.is_some());
        let partitions = known.into_iter().filter_map(|status| {
            Some(PartitionRow { partition: status.partition, numbers: Numbers::of(status.numbers.as_ref()?) })
        });
        Self {
            numbers: Numbers::of(&subscription.numbers()),
            acknowledged_per_second: rate,
            unavailable_partitions: unknown.into_iter().map(|status| status.partition).collect(),
            partitions: partitions.collect(),
        }
    }

    pub(super) fn text(&self) -> String {
        let Numbers { acknowledged_total, dead_letters_waiting, subscribers, attempts, .. } = &self.numbers;
        let priorities: Vec<String> = self.numbers.priorities.iter().map(PriorityRow::text).collect();
        let at_least = if self.numbers.priorities_partial { "at least " } else { "" };
        let rate = self.acknowledged_per_second.map(|rate| format!(", {rate:.1} a second")).unwrap_or_default();
        let attempts: Vec<String> = attempts.iter().map(|(bound, count)| format!("{count} up to {bound}")).collect();
        let mut lines = vec![
            format!("acknowledged  {acknowledged_total}{rate}"),
            format!("subscribers   {subscribers}"),
            format!("tried in vain {}", if attempts.is_empty() { "none".to_owned() } else { attempts.join(", ") }),
        ];
        if !priorities.is_empty() {
            lines.push(format!("by priority   {at_least}{}", priorities.join(", ")));
        }
        if *dead_letters_waiting > 0 {
            lines.push(format!("dead letters that wait to be published: {dead_letters_waiting}"));
        }
        let header =
            ["partition", "backlog", "oldest", "in flight", "delayed", "acknowledged", "redelivered", "dead", "lost"];
        let known = self.partitions.iter().map(|row| (row.partition, row.numbers.cells()));
        let unknown = self.unavailable_partitions.iter().map(|partition| (*partition, vec!["no answer".to_owned()]));
        let mut rows: Vec<(u32, Vec<String>)> = known.chain(unknown).collect();
        rows.sort();
        let rows = rows.into_iter().map(|(partition, cells)| [vec![partition.to_string()], cells].concat());
        lines.extend([String::new(), table(&header, rows)]);
        lines.join("\n")
    }
}

impl Numbers {
    fn of(numbers: &SubscriptionNumbers) -> Self {
        let bound = |bound: u32| if bound == u32::MAX { "more".to_owned() } else { bound.to_string() };
        Self {
            backlog_messages: numbers.backlog_messages,
            oldest_unacknowledged_seconds: numbers.oldest_unacknowledged_age.map(|age| age.as_secs_f64()),
            in_flight_messages: numbers.in_flight_messages,
            delayed_messages: numbers.delayed_messages,
            acknowledged_total: numbers.acknowledged_total,
            redelivered_total: numbers.redelivered_total,
            dead_lettered_total: numbers.dead_lettered_total,
            lost_total: numbers.lost_total,
            dead_letters_waiting: numbers.dead_letters_waiting,
            subscribers: numbers.subscribers,
            attempts: numbers.attempts.iter().map(|(most, count)| (bound(*most), *count)).collect(),
            priorities: numbers.depths.iter().rev().map(PriorityRow::of).collect(),
            priorities_partial: numbers.depths_partial,
        }
    }

    fn cells(&self) -> Vec<String> {
        let age = |seconds: f64| {
            let whole = Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs();
            humantime::format_duration(Duration::from_secs(whole)).to_string()
        };
        vec![
            self.backlog_messages.to_string(),
            self.oldest_unacknowledged_seconds.map_or_else(|| "–".to_owned(), age),
            self.in_flight_messages.to_string(),
            self.delayed_messages.to_string(),
            self.acknowledged_total.to_string(),
            self.redelivered_total.to_string(),
            self.dead_lettered_total.to_string(),
            self.lost_total.to_string(),
        ]
    }
}

impl PriorityRow {
    fn of((priority, (ready, waiting)): (&u32, &(u64, u64))) -> Self {
        Self { priority: *priority, ready: *ready, waiting: *waiting }
    }

    fn text(&self) -> String {
        let waiting = if self.waiting > 0 { format!(" and {} not due", self.waiting) } else { String::new() };
        format!("{} of {}{waiting}", self.ready, self.priority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_client::SubscriptionPartitionStatus;

    fn subscription(acknowledged: &[Option<u64>]) -> Subscription {
        let numbers = |total: u64| SubscriptionNumbers { acknowledged_total: total, ..Default::default() };
        let status = acknowledged
            .iter()
            .zip(0..)
            .map(|(total, partition)| SubscriptionPartitionStatus { partition, numbers: total.map(numbers) });
        Subscription { partition_status: status.collect(), ..Default::default() }
    }

    #[test]
    fn a_rate_counts_only_partitions_that_answered_twice() {
        let (first, second) = (subscription(&[Some(5), None, Some(9)]), subscription(&[Some(8), Some(100), None]));
        assert!((acknowledged_between(&first, &second) - 3.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_partition_that_does_not_answer_shows_in_the_text_and_in_the_sum() {
        let subscription = subscription(&[Some(5), None]);
        let status = Status::of(&subscription, Some(2.0));
        let text = status.text();
        assert!(text.contains("acknowledged  5, 2.0 a second"), "{text}");
        assert!(text.lines().last().is_some_and(|line| line.starts_with('1') && line.contains("no answer")), "{text}");
        assert_eq!(Listed::of(&subscription).cells()[6], "≥5");
    }
}

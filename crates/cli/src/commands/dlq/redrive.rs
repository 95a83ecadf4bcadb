//! Publishes dead letters again. A durable subscription of the dead-letter topic remembers which were, so that it can be
//! stopped and started as one likes.

use super::letters::{original, provenance};
use crate::failure::Failure;
use crate::output::Output;
use clap::Args;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use quorate_client::{
    Client, Delivery, PublishError, Publisher, Reason, Receipt, RetryPolicy, Settled, Start, Subscriber, Subscription,
    SubscriptionSpec, Topic,
};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};

/// Dead letters that are published at the same time.
const IN_FLIGHT: usize = 100;

/// Dead letters that are fetched and not acknowledged.
const OUTSTANDING: usize = 1_000;

/// Without a delivery for so long, it is looked whether any is left.
const QUIET: Duration = Duration::from_secs(1);

/// How far a rate may be caught up with after a stall.
const CATCH_UP: Duration = Duration::from_millis(100);

/// Longest wait for what is still to be settled at the end.
const CLOSE: Duration = Duration::from_secs(10);

/// Publish dead letters again, oldest first in each partition, without the attributes that the broker gave them. What is
/// there when the command begins is published, each at least once; what was published by an earlier run isn't again. It
/// may be stopped at any time and goes on when it is started again. The dead letters stay in their topic until its
/// retention removes them.
#[derive(Debug, Args)]
pub(crate) struct Redrive {
    /// The dead-letter topic
    topic: String,
    /// Messages per second at most
    #[arg(long, value_name = "COUNT", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// End after so many
    #[arg(short, long, value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Publish to this topic, instead of the one where each came from
    #[arg(long, value_name = "TOPIC")]
    to: Option<String>,
}

/// What was done, as JSON.
#[derive(Serialize)]
struct Summary<'a> {
    topic: &'a str,
    redriven: u64,
    /// By the topic that they were published to.
    by_topic: &'a BTreeMap<String, u64>,
}

/// The subscription that remembers what was published again.
pub(super) fn subscription(topic: &str) -> String {
    format!("quorate.redrive.{topic}")
}

impl Redrive {
    pub(super) async fn run(&self, client: &Client, patience: Duration, output: Output) -> Result<(), Failure> {
        let source = client.topics().get(&self.topic).await?;
        let memory = self.remember(client).await?;
        let work = Work::of(&source, &memory)?;
        let mut run = Run {
            redrive: self,
            client,
            pace: Pace::new(self.rate),
            publishers: BTreeMap::new(),
            done: BTreeMap::new(),
            beyond: Vec::new(),
        };
        let left = work.backlog.min(self.count.unwrap_or(u64::MAX));
        if left > 0 {
            let builder = client.subscriber(subscription(&self.topic)).patience(patience);
            let outstanding = u32::try_from(OUTSTANDING).unwrap_or(u32::MAX);
            let mut subscriber = builder.outstanding_messages(outstanding).build().await?;
            let ended = run.all(&mut subscriber, &work, left).await;
            run.beyond.drain(..).for_each(Delivery::release);
            subscriber.close(CLOSE).await;
            ended.map_err(|failure| failure.during(format!("after {} were redriven", run.redriven())))?;
        }
        let redriven = run.redriven();
        let summary = Summary { topic: &self.topic, redriven, by_topic: &run.done };
        output.result(&summary, || {
            let to: Vec<String> = run.done.iter().map(|(topic, count)| format!("{count} to {topic}")).collect();
            let to = if to.is_empty() { String::new() } else { format!(": {}", to.join(", ")) };
            format!("{redriven} dead letters of {} redriven{to}", self.topic)
        })
    }

    /// The subscription, made if it isn't there.
    async fn remember(&self, client: &Client) -> Result<Subscription, Failure> {
        let (subscriptions, name) = (client.subscriptions(), subscription(&self.topic));
        let spec = SubscriptionSpec {
            start: Some(Start::Earliest),
            // Whoever takes over from a run that was killed needn't wait for long.
            ack_deadline: Some(Duration::from_secs(10)),
            retry_policy: Some(RetryPolicy::Immediate),
            ordered: true,
            ..SubscriptionSpec::named(&name, &self.topic)
        };
        match subscriptions.create(spec).await {
            Err(error) if !error.is(Reason::SubscriptionExists) => return Err(error.into()),
            _ => {}
        }
        let found = subscriptions.get(&name).await?;
        if found.topic == self.topic {
            return Ok(found);
        }
        Err(Failure::new(format!("subscription {name} belongs to topic {}, not to {}", found.topic, self.topic)))
    }
}

/// What there is to do: what was in the topic when the command began.
struct Work {
    ends: BTreeMap<u32, u64>,
    backlog: u64,
}

impl Work {
    fn of(source: &Topic, memory: &Subscription) -> Result<Self, Failure> {
        let silent = source.partition_status.iter().any(|status| status.unavailable)
            || memory.partition_status.iter().any(|status| status.numbers.is_none());
        if silent {
            return Err(Failure::new(format!(
                "not all partitions of topic {} have a leader that answers",
                source.name
            ))
            .advise("see `quorate cluster status`, and try again when they have"));
        }
        let ends = source.partition_status.iter().map(|status| (status.partition, status.end_offset)).collect();
        Ok(Self { ends, backlog: memory.numbers().backlog_messages })
    }

    fn is_beyond(&self, delivery: &Delivery) -> bool {
        self.ends.get(&delivery.message.partition).is_none_or(|end| delivery.message.offset >= *end)
    }

    /// How many aren't published again yet, as far as it is known now; what came since it began doesn't count.
    fn left(&self, source: &Topic, memory: &Subscription) -> Option<u64> {
        let backlog = memory.partition_status.iter().map(|status| {
            let end = source.partition_status.iter().find(|it| it.partition == status.partition && !it.unavailable)?;
            let since = end.end_offset.saturating_sub(*self.ends.get(&status.partition)?);
            Some(status.numbers.as_ref()?.backlog_messages.saturating_sub(since))
        });
        backlog.sum()
    }
}

struct Run<'a> {
    redrive: &'a Redrive,
    client: &'a Client,
    pace: Pace,
    publishers: BTreeMap<String, Publisher>,
    /// By topic.
    done: BTreeMap<String, u64>,
    /// Dead letters that came since the command began: redriven ones may have failed again. The next run has them.
    beyond: Vec<Delivery>,
}

impl Run<'_> {
    fn redriven(&self) -> u64 {
        self.done.values().sum()
    }

    /// Ends when all is published again that was there, when `count` are, or early. What is under way then is waited for:
    /// if it were left alone it would be published twice.
    async fn all(&mut self, subscriber: &mut Subscriber, work: &Work, count: u64) -> Result<(), Failure> {
        let mut under_way = FuturesUnordered::new();
        let (mut taken, mut ended) = (0, None);
        let mut interrupted = Box::pin(tokio::signal::ctrl_c());
        while ended.is_none() || !under_way.is_empty() {
            let more = ended.is_none() && under_way.len() < IN_FLIGHT;
            if more && taken == count {
                ended = Some(Ok(()));
                continue;
            }
            let turn = self.pace.turn();
            let next = async {
                sleep_until(turn).await;
                timeout(QUIET, subscriber.next()).await
            };
            tokio::select! {
                biased;
                stopped = &mut interrupted, if ended.is_none() => ended = Some(stopped.map_err(Failure::from)),
                Some(published) = under_way.next() => match published {
                    Ok(topic) => *self.done.entry(topic).or_default() += 1,
                    Err(failure) => _ = ended.get_or_insert(Err(failure)),
                },
                next = next, if more => match next {
                    Ok(Some(Ok(delivery))) if work.is_beyond(&delivery) => {
                        self.beyond.push(delivery);
                        // No more can be fetched: the next run has the rest.
                        ended = (self.beyond.len() >= OUTSTANDING).then_some(Ok(()));
                    }
                    Ok(Some(Ok(delivery))) => match self.publish(delivery).await {
                        Ok(publishing) => {
                            under_way.push(publishing);
                            taken += 1;
                        }
                        Err(failure) => ended = Some(Err(failure)),
                    },
                    Ok(Some(Err(error))) => ended = Some(Err(error.into())),
                    Ok(None) => ended = Some(Ok(())),
                    Err(_) if under_way.is_empty() => match self.nothing_left(work).await {
                        Ok(nothing) => ended = nothing.then_some(Ok(())),
                        Err(failure) => ended = Some(Err(failure)),
                    },
                    Err(_) => {}
                },
            }
        }
        ended.unwrap_or(Ok(()))
    }

    /// Another run may have published what this one waits for.
    async fn nothing_left(&self, work: &Work) -> Result<bool, Failure> {
        let topic = &self.redrive.topic;
        // In this order: what comes in between counts as left, and is looked for again.
        let source = self.client.topics().get(topic).await?;
        let memory = self.client.subscriptions().get(subscription(topic)).await?;
        Ok(work.left(&source, &memory) == Some(0))
    }

    /// Hands a dead letter to its publisher: in the order of deliveries, so that messages of a key stay in theirs.
    async fn publish(
        &mut self,
        delivery: Delivery,
    ) -> Result<impl Future<Output = Result<String, Failure>> + use<>, Failure> {
        let place = format!("{} {}@{}", self.redrive.topic, delivery.message.partition, delivery.message.offset);
        let topic = self.redrive.to.as_deref().or_else(|| provenance(&delivery.message.attributes, "source_topic"));
        let Some(topic) = topic.map(str::to_owned) else {
            delivery.release();
            return Err(
                Failure::new(format!("{place} doesn't say which topic it came from")).advise("name a topic with --to")
            );
        };
        self.pace.take();
        match self.send(&topic, &delivery).await {
            Ok(receipt) => Ok(finish(receipt, delivery, topic, place)),
            Err(failure) => {
                delivery.release();
                Err(failure.during(format!("{place}, to topic {topic}")).advise("--to names another topic"))
            }
        }
    }

    async fn send(&mut self, topic: &str, delivery: &Delivery) -> Result<Receipt, Failure> {
        if !self.publishers.contains_key(topic) {
            let publisher = self.client.publisher(topic).build().await?;
            self.publishers.insert(topic.to_owned(), publisher);
        }
        let publisher = self.publishers.get(topic).ok_or_else(|| Failure::new("no publisher"))?;
        publisher.send(original(&delivery.message).to_message()).await.map_err(|error| not_published(&error))
    }
}

/// Only what is published for certain is acknowledged.
async fn finish(receipt: Receipt, delivery: Delivery, topic: String, place: String) -> Result<String, Failure> {
    match receipt.await {
        Ok(_) => {
            // `LeaseLost`: it may be published once more.
            let _: Settled = delivery.ack().await?;
            Ok(topic)
        }
        Err(error) => {
            delivery.release();
            Err(not_published(&error).during(format!("{place}, to topic {topic}")))
        }
    }
}

fn not_published(error: &PublishError) -> Failure {
    let unknown = error.is_unknown();
    let failure = Failure::from(error.error().clone());
    if unknown { failure.during("perhaps published, and published once more by the next run") } else { failure }
}

/// So many a second, evenly.
struct Pace {
    period: Duration,
    next: Instant,
}

impl Pace {
    fn new(per_second: u32) -> Self {
        Self { period: Duration::from_secs(1) / per_second, next: Instant::now() }
    }

    /// When the next one may go.
    fn turn(&self) -> Instant {
        self.next.max(Instant::now() - CATCH_UP)
    }

    /// One goes.
    fn take(&mut self) {
        self.next = self.turn() + self.period;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_client::{PartitionStatus, SubscriptionNumbers, SubscriptionPartitionStatus};

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept_and_a_stall_is_not_made_up_for() {
        let mut pace = Pace::new(10);
        let begun = Instant::now();
        for _ in 0..11 {
            sleep_until(pace.turn()).await;
            pace.take();
        }
        assert_eq!(begun.elapsed().as_millis(), 1_000);
        tokio::time::sleep(Duration::from_secs(10)).await;
        let stalled = Instant::now();
        for _ in 0..11 {
            sleep_until(pace.turn()).await;
            pace.take();
        }
        assert!(stalled.elapsed().as_millis() >= 900, "{:?}", stalled.elapsed());
    }

    fn topic(ends: &[u64]) -> Topic {
        let status = ends.iter().zip(0..).map(|(end, partition)| PartitionStatus {
            partition,
            end_offset: *end,
            ..PartitionStatus::default()
        });
        Topic { partition_status: status.collect(), ..Topic::default() }
    }

    fn memory(backlogs: &[Option<u64>]) -> Subscription {
        let numbers = |backlog_messages| SubscriptionNumbers { backlog_messages, ..Default::default() };
        let status = backlogs
            .iter()
            .zip(0..)
            .map(|(backlog, partition)| SubscriptionPartitionStatus { partition, numbers: backlog.map(numbers) });
        Subscription { partition_status: status.collect(), ..Subscription::default() }
    }

    #[test]
    fn what_comes_while_it_runs_is_left_to_the_next_run() {
        let work = Work::of(&topic(&[5, 7]), &memory(&[Some(2), Some(0)])).expect("all answer");
        assert_eq!(work.backlog, 2);
        assert_eq!(work.left(&topic(&[5, 7]), &memory(&[Some(1), Some(0)])), Some(1));
        assert_eq!(work.left(&topic(&[6, 9]), &memory(&[Some(1), Some(2)])), Some(0));
        assert_eq!(work.left(&topic(&[5, 7]), &memory(&[Some(1), None])), None, "unknown is not nothing");
        assert!(Work::of(&topic(&[5]), &memory(&[None])).is_err());
    }
}

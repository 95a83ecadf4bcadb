//! Numbers of subscriptions in the partitions that this node leads. They are asked for and made anew at every scrape: a
//! subscription that has ended, or a partition that is led elsewhere, leaves no series behind.

use std::sync::Arc;

use futures::stream::{self, StreamExt};
use prometheus::{Encoder, Opts, Registry, TextEncoder};
use quorate_consensus::RaftGroup;
use quorate_model::{PartitionId, SubscriptionInfo};
use quorate_proto::v1;

use super::{Maker, gauge_value};
use crate::front::Front;
use crate::limits::{METRIC_SUBSCRIPTIONS_MAX, PEER_QUESTIONS};

const LABELS: [&str; 3] = ["topic", "subscription", "partition"];

/// One subscription in one partition.
struct Pair {
    group: RaftGroup,
    partition: PartitionId,
    topic: String,
    subscription: Arc<SubscriptionInfo>,
}

/// In the text format of Prometheus.
pub(crate) async fn render(front: &Front) -> String {
    let (pairs, omitted) = pairs(front);
    let status: Vec<_> = stream::iter(pairs)
        .map(|pair| async move {
            let Pair { group, partition, topic, subscription } = pair;
            let start = subscription.start_of(partition.index);
            let status = front.dispatch.status(&group, partition, subscription.id, start).await;
            ([topic, subscription.name.to_string(), partition.index.to_string()], status)
        })
        .buffered(PEER_QUESTIONS)
        .collect()
        .await;
    text(&status, omitted).unwrap_or_else(|error| format!("# metrics of subscriptions can't be encoded: {error}\n"))
}

/// What this node leads, as many as are shown, and how many aren't.
fn pairs(front: &Front) -> (Vec<Pair>, usize) {
    let map = front.map.current();
    let mut pairs = Vec::new();
    let mut omitted = 0;
    for group in front.router.groups().list().into_iter().filter(|group| group.leadership().is_self) {
        let Some((partition, _)) = map.partition(group.id()) else { continue };
        let Some(topic) = map.topic_by_id(partition.topic) else { continue };
        for subscription in map.subscriptions_of(partition.topic) {
            if pairs.len() == METRIC_SUBSCRIPTIONS_MAX {
                omitted += 1;
                continue;
            }
            let (group, topic, subscription) = (group.clone(), topic.name.to_string(), Arc::clone(subscription));
            pairs.push(Pair { group, partition, topic, subscription });
        }
    }
    (pairs, omitted)
}

type Counted = (&'static str, &'static str, fn(&v1::SubscriptionPartitionStatus) -> u64);

const GAUGES: [Counted; 5] = [
    ("backlog_messages", "Messages that aren't settled.", |status| status.backlog_messages),
    ("in_flight_messages", "Messages that subscribers have in hand.", |status| status.in_flight_messages),
    ("delayed_messages", "Messages that wait for their next attempt.", |status| status.delayed_messages),
    ("dead_letters_waiting", "Dead letters that aren't in their topic yet.", |status| status.dead_letters_waiting),
    ("subscribers", "Streams that take messages.", |status| status.subscribers.into()),
];

const COUNTERS: [Counted; 4] = [
    ("acknowledged_total", "Messages acknowledged.", |status| status.acknowledged_total),
    ("redelivered_total", "Attempts in vain that are followed by another.", |status| status.redelivered_total),
    ("dead_lettered_total", "Messages that went to the dead letters.", |status| status.dead_lettered_total),
    ("lost_total", "Messages that retention removed unsettled.", |status| status.lost_total),
];

fn text(all: &[([String; 3], v1::SubscriptionPartitionStatus)], omitted: usize) -> Result<String, prometheus::Error> {
    let registry = Registry::new();
    let make = Maker { registry: &registry };
    for (name, help, number) in GAUGES {
        let gauges = make.gauges(&format!("subscription_{name}"), help, &LABELS)?;
        for (labels, status) in all {
            gauges.with_label_values(labels).set(gauge_value(number(status)));
        }
    }
    for (name, help, number) in COUNTERS {
        let counters = make.counters(&format!("subscription_{name}"), help, &LABELS)?;
        for (labels, status) in all {
            counters.with_label_values(labels).inc_by(number(status));
        }
    }
    let help = "Age of the oldest message that isn't settled, by its publish time; 0 if there is none.";
    let ages =
        prometheus::GaugeVec::new(Opts::new("quorate_subscription_oldest_unacknowledged_seconds", help), &LABELS)?;
    make.register(&ages)?;
    let help = "Messages that were tried in vain and aren't settled, by how often at most.";
    let attempts =
        make.gauges("subscription_tried_messages", help, &["topic", "subscription", "partition", "attempts"])?;
    for (labels, status) in all {
        let age = status.oldest_unacknowledged_age.and_then(|age| std::time::Duration::try_from(age).ok());
        ages.with_label_values(labels).set(age.unwrap_or_default().as_secs_f64());
        let [topic, subscription, partition] = labels;
        for v1::AttemptsBucket { attempts_max, messages } in &status.attempts {
            let bound = if *attempts_max == u32::MAX { "more".to_owned() } else { attempts_max.to_string() };
            attempts.with_label_values(&[topic, subscription, partition, &bound]).set(gauge_value(*messages));
        }
    }
    let help = "Subscriptions in partitions led here that aren't shown, because there are too many.";
    make.gauge("subscriptions_omitted", help)?.set(gauge_value(omitted));
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

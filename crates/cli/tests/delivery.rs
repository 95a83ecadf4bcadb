//! A subscription under fire: subscribers that fail and die, leaders that are killed. Every message is acknowledged, and
//! none comes again once its acknowledgement was confirmed.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use quorate_client::{Client, Message, RetryPolicy, Settled, Start, SubscriptionSpec, TopicSpec};
use support::{Cluster, eventually};
use tokio::runtime::Runtime;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

const MESSAGES: u64 = 20_000;
const SUBSCRIBERS: usize = 5;
const KILLS: usize = 4;

/// Longest time for everything to be acknowledged.
const PATIENCE: Duration = Duration::from_secs(180);

/// What all subscribers together have seen.
#[derive(Default)]
struct Seen {
    confirmed: Mutex<BTreeSet<String>>,
    /// Messages that came although their acknowledgement had been confirmed.
    again: Mutex<Vec<String>>,
    /// Messages whose acknowledgement nobody heard of, because the subscriber died first.
    unheard: Mutex<BTreeSet<String>>,
    returned: AtomicU64,
}

impl Seen {
    /// Messages that were acknowledged, for all that can be known.
    fn acknowledged(&self) -> BTreeSet<String> {
        self.confirmed.lock().unwrap().union(&self.unheard.lock().unwrap()).cloned().collect()
    }
}

#[test]
fn all_is_acknowledged_and_nothing_comes_again_while_leaders_and_subscribers_die() {
    let cluster = Cluster::start(3);
    let runtime = Runtime::new().unwrap();
    let seen = Arc::new(Seen::default());
    let client = Client::builder().servers(cluster.servers());
    let client = runtime.block_on(async { client.build().unwrap() });
    runtime.block_on(prepare(&client));
    let stop = CancellationToken::new();
    for number in 0..SUBSCRIBERS {
        let client = Client::builder().servers(cluster.servers());
        let (seen, stop) = (Arc::clone(&seen), stop.clone());
        // The first one dies early, without a word.
        let dies_after = (number == 0).then_some(500);
        runtime.spawn(async move { subscribe(client.build().unwrap(), &seen, stop, dies_after).await });
    }
    let publishing = runtime.spawn(publish(client));
    for partition in 0..KILLS {
        std::thread::sleep(Duration::from_secs(2));
        let leader = cluster.leader("orders", partition).to_string();
        cluster.run(&["dev", "kill", &leader]).ok();
        cluster.run(&["dev", "restart", &leader]).ok();
    }
    let published: BTreeSet<String> = runtime.block_on(publishing).unwrap();
    assert_eq!(published.len() as u64, MESSAGES);
    let begun = Instant::now();
    eventually_within(PATIENCE, "every message is acknowledged", || seen.acknowledged().len() as u64 >= MESSAGES);
    eprintln!("all acknowledged {:?} after the last was published", begun.elapsed());
    // Whatever would still come has a moment to do so.
    std::thread::sleep(Duration::from_secs(2));
    stop.cancel();
    assert_eq!(seen.acknowledged(), published);
    let again = seen.again.lock().unwrap();
    assert!(again.is_empty(), "{} came again after their acknowledgement was confirmed: {again:?}", again.len());
    assert!(seen.returned.load(Ordering::Relaxed) > 0, "some were returned on purpose");
    eventually("the cluster is whole again", || cluster.run(&["cluster", "health"]).code.filter(|code| *code == 0));
}

async fn prepare(client: &Client) {
    let topic = TopicSpec { name: "orders".to_owned(), partitions: Some(6), ..TopicSpec::default() };
    client.topics().create(topic).await.unwrap();
    let retry_policy = RetryPolicy::Fixed { pause: Duration::from_millis(50) };
    let spec = SubscriptionSpec {
        name: "billing".to_owned(),
        topic: "orders".to_owned(),
        start: Some(Start::Earliest),
        ack_deadline: Some(Duration::from_secs(5)),
        retry_policy: Some(retry_policy),
        ..SubscriptionSpec::default()
    };
    client.subscriptions().create(spec).await.unwrap();
}

/// Publishes everything, and returns the ids of what was acknowledged.
async fn publish(client: Client) -> BTreeSet<String> {
    let publisher = client.publisher("orders").build().await.unwrap();
    let message = |number| Message::new(format!("order {number}")).ordering_key(format!("customer {}", number % 997));
    let mut ids = BTreeSet::new();
    for first in (0..MESSAGES).step_by(100) {
        // Not so fast that all is published before the first leader dies.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let published = (first..first + 100).map(|number| publisher.publish(message(number)));
        ids.extend(join_all(published).await.into_iter().map(|published| published.unwrap().message_id.to_string()));
    }
    ids
}

/// Takes messages, many at a time; returns one in a hundred, and drops another.
async fn subscribe(client: Client, seen: &Seen, stop: CancellationToken, dies_after: Option<u64>) {
    let mut subscriber = client.subscriber("billing").outstanding_messages(200).build().await.unwrap();
    let mut acknowledging = FuturesUnordered::new();
    let mut open = BTreeSet::new();
    let mut taken = 0;
    loop {
        let delivery = tokio::select! {
            next = subscriber.next() => next.expect("a subscriber goes on").unwrap(),
            Some(id) = acknowledging.next() => {
                open.remove(&id);
                continue;
            }
            () = stop.cancelled() => break,
        };
        let id = delivery.message.message_id.to_string();
        if seen.confirmed.lock().unwrap().contains(&id) {
            seen.again.lock().unwrap().push(id.clone());
        }
        taken += 1;
        if dies_after == Some(taken) {
            seen.unheard.lock().unwrap().append(&mut open);
            return;
        }
        match taken % 100 {
            25 => {
                seen.returned.fetch_add(1, Ordering::Relaxed);
                // Whether it came in time doesn't matter: it comes again in any case.
                let _ = delivery.nack("not now").await;
            }
            75 => drop(delivery),
            _ => acknowledging.push({
                open.insert(id.clone());
                async move {
                    let acknowledged = timeout(PATIENCE, delivery.ack()).await.expect("an answer in time");
                    if matches!(acknowledged, Ok(Settled::Done | Settled::Already)) {
                        seen.confirmed.lock().unwrap().insert(id.clone());
                    }
                    id
                }
            }),
        }
    }
    subscriber.close(Duration::from_secs(5)).await;
}

fn eventually_within(patience: Duration, what: &str, look: impl Fn() -> bool) {
    let deadline = Instant::now() + patience;
    while !look() {
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

//! Subscriptions under fire: subscribers that fail, forget and die, leaders that are killed. In each subscription every message
//! is acknowledged once or becomes a dead letter once, and none comes again once its acknowledgement was confirmed.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt, join_all};
use futures::stream::FuturesUnordered;
use quorate_client::{
    Client, ClientError, DeadLetterPolicy, Delivery, Message, RetryPolicy, Settled, Start, SubscriptionSpec, TopicSpec,
};
use support::{Cluster, eventually};
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

const MESSAGES: u64 = 100_000;
const PARTITIONS: u32 = 6;

/// The subscriptions, and how many take their messages.
const SUBSCRIPTIONS: [(&str, u64); 2] = [("billing", 3), ("audit", 2)];

/// Messages that a publisher sends at once, and the shortest time that it takes for them: not all is published before the
/// first leader dies.
const BURST: u64 = 500;
const BURST_TIME: Duration = Duration::from_millis(150);

/// Time between two leaders that are killed.
const KILL_PAUSE: Duration = Duration::from_secs(4);

/// One message in so many is returned by everybody who gets it.
const POISON: u64 = 1_000;
const ATTEMPTS: u32 = 5;

const ACK_DEADLINE: Duration = Duration::from_secs(3);

/// Longest time for everything to be settled after the last publish.
const PATIENCE: Duration = Duration::from_secs(120);

/// What all subscribers of one subscription have seen. Messages go by their numbers.
#[derive(Default)]
struct Seen {
    /// Messages whose acknowledgement was confirmed, and how often somebody was told that it is his that counts.
    confirmed: BTreeMap<u64, u32>,
    /// Messages that came although their acknowledgement had been confirmed.
    again: Vec<u64>,
    /// Messages whose acknowledgement nobody heard of, because the subscriber died first.
    unheard: BTreeSet<u64>,
    returned: u64,
    forgotten: u64,
    /// Deliveries that weren't the first of their message.
    redelivered: u64,
}

type Shared = Arc<Mutex<Seen>>;

fn lock(seen: &Shared) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap()
}

#[test]
fn all_is_acknowledged_and_nothing_comes_again_while_leaders_and_subscribers_die() {
    let cluster = Cluster::start(3);
    let runtime = Runtime::new().unwrap();
    let seen = SUBSCRIPTIONS.map(|(subscription, _)| (subscription, Shared::default()));
    let client = || Client::builder().servers(cluster.servers()).build().unwrap();
    let own = runtime.block_on(async { client() });
    runtime.block_on(prepare(&own));
    let stop = CancellationToken::new();
    for ((subscription, subscribers), (_, seen)) in SUBSCRIPTIONS.into_iter().zip(&seen) {
        for seed in 0..subscribers {
            // The first one dies early, without a word.
            let dies_after = (seed == 0).then_some(5_000);
            let (seen, stop) = (Arc::clone(seen), stop.clone());
            let subscribing = Subscribing { subscription, seed, seen, stop, dies_after };
            let client = runtime.block_on(async { client() });
            runtime.spawn(subscribing.run(client));
        }
    }
    let publishing = runtime.spawn(publish(own.clone()));
    let begun = Instant::now();
    let mut kills = 0;
    while !publishing.is_finished() {
        std::thread::sleep(KILL_PAUSE);
        let leader = cluster.leader("orders", kills % PARTITIONS as usize).to_string();
        cluster.run(&["dev", "kill", &leader]).ok();
        cluster.run(&["dev", "restart", &leader]).ok();
        kills += 1;
    }
    let ids = runtime.block_on(publishing).unwrap();
    assert_eq!(ids.len() as u64, MESSAGES);
    assert!(kills > 3, "all was published before the {kills}th leader was killed");
    let published = Instant::now();
    eventually_within(PATIENCE, || {
        let dead = runtime.block_on(read_dead_letters(&own)).unwrap_or_default();
        seen.iter().flat_map(|(subscription, seen)| unsettled(&lock(seen), &dead.of(subscription))).collect()
    });
    eprintln!(
        "published in {:?} with {kills} leaders killed, settled {:?} later",
        published - begun,
        published.elapsed()
    );
    // Whatever would still come has a moment to do so.
    std::thread::sleep(Duration::from_secs(3));
    stop.cancel();
    eventually("the cluster is whole again", || cluster.run(&["cluster", "health"]).code.filter(|code| *code == 0));
    let dead = runtime.block_on(read_dead_letters(&own)).unwrap();
    for (subscription, seen) in &seen {
        judge(subscription, &lock(seen), &dead.of(subscription));
        let numbers = runtime.block_on(own.subscriptions().get(*subscription)).unwrap().numbers();
        let (acknowledged, dead) = (numbers.acknowledged_total, numbers.dead_lettered_total);
        assert_eq!(acknowledged + dead, MESSAGES, "{acknowledged} acknowledged, {dead} dead letters");
        assert_eq!((numbers.backlog_messages, numbers.in_flight_messages, numbers.lost_total), (0, 0, 0));
    }
}

/// Messages that are neither acknowledged nor a dead letter, for all that can be known.
fn unsettled(seen: &Seen, dead: &[u64]) -> Vec<u64> {
    let dead: BTreeSet<&u64> = dead.iter().collect();
    let is_settled =
        |number: &u64| seen.confirmed.contains_key(number) || seen.unheard.contains(number) || dead.contains(number);
    (0..MESSAGES).filter(|number| !is_settled(number)).collect()
}

fn judge(subscription: &str, seen: &Seen, dead: &[u64]) {
    let Seen { confirmed, again, returned, forgotten, redelivered, .. } = seen;
    eprintln!(
        "{subscription}: {} acknowledged, {} dead letters, {returned} returned, {forgotten} forgotten, {redelivered} redelivered",
        confirmed.len(),
        dead.len()
    );
    assert_eq!(unsettled(seen, dead), [] as [u64; 0], "everything is settled");
    assert_eq!(again, &[] as &[u64], "nothing comes again after its acknowledgement was confirmed");
    let twice: Vec<&u64> = confirmed.iter().filter(|(_, times)| **times > 1).map(|(number, _)| number).collect();
    assert_eq!(twice, [] as [&u64; 0], "one acknowledgement of a message counts");
    let letters: BTreeSet<u64> = dead.iter().copied().collect();
    assert_eq!(letters.len(), dead.len(), "a message is a dead letter once: {dead:?}");
    let both: Vec<&u64> =
        letters.iter().filter(|number| confirmed.get(number).is_some_and(|times| *times > 0)).collect();
    assert_eq!(both, [] as [&u64; 0], "what was acknowledged is no dead letter");
    assert!((0..MESSAGES).step_by(POISON as usize).all(|number| letters.contains(&number)), "poison dies: {letters:?}");
    assert!(*returned > 0 && *forgotten > 0 && *redelivered > 0, "messages came back in all ways");
}

async fn prepare(client: &Client) {
    client.topics().create(TopicSpec { partitions: Some(PARTITIONS), ..TopicSpec::named("orders") }).await.unwrap();
    client.topics().create(TopicSpec { partitions: Some(1), ..TopicSpec::named("refused") }).await.unwrap();
    let dead_letters = DeadLetterPolicy { topic: "refused".to_owned(), max_delivery_attempts: Some(ATTEMPTS) };
    for (subscription, _) in SUBSCRIPTIONS {
        let spec = SubscriptionSpec {
            start: Some(Start::Earliest),
            ack_deadline: Some(ACK_DEADLINE),
            retry_policy: Some(RetryPolicy::Fixed { pause: Duration::from_millis(50) }),
            dead_letter_policy: Some(dead_letters.clone()),
            ..SubscriptionSpec::named(subscription, "orders")
        };
        client.subscriptions().create(spec).await.unwrap();
    }
}

/// Publishes everything, and returns the ids of what was acknowledged.
async fn publish(client: Client) -> BTreeSet<String> {
    let publisher = client.publisher("orders").build().await.unwrap();
    let message = |number| Message::new(format!("{number}")).ordering_key(format!("customer {}", number % 997));
    let mut ids = BTreeSet::new();
    for first in (0..MESSAGES).step_by(BURST as usize) {
        let published = join_all((first..first + BURST).map(|number| publisher.publish(message(number))));
        let (published, ()) = tokio::join!(published, sleep(BURST_TIME));
        ids.extend(published.into_iter().map(|published| published.unwrap().message_id.to_string()));
    }
    ids
}

/// Dead letters: which subscription gave up which message.
#[derive(Default)]
struct DeadLetters(Vec<(String, u64)>);

impl DeadLetters {
    fn of(&self, subscription: &str) -> Vec<u64> {
        self.0.iter().filter(|(of, _)| of == subscription).map(|(_, number)| *number).collect()
    }
}

async fn read_dead_letters(client: &Client) -> Result<DeadLetters, ClientError> {
    let mut reader = client.reader("refused").stop_at_end().build().await?;
    let mut letters = Vec::new();
    while let Some(letter) = reader.next().await {
        let letter = letter?;
        let subscription = letter.attributes.iter().find(|(name, _)| name == "quorate.subscription");
        letters.push((subscription.unwrap().1.clone(), number_of(&letter.data)));
    }
    Ok(DeadLetters(letters))
}

fn number_of(data: &[u8]) -> u64 {
    std::str::from_utf8(data).unwrap().parse().unwrap()
}

/// One who takes messages, many at a time, and acknowledges most of them.
struct Subscribing {
    subscription: &'static str,
    /// Where its choices come from.
    seed: u64,
    seen: Shared,
    stop: CancellationToken,
    /// After so many messages it is gone.
    dies_after: Option<u64>,
}

impl Subscribing {
    async fn run(self, client: Client) {
        let Self { subscription, seed, seen, stop, dies_after } = self;
        // It asks for no more time than a message has.
        let subscriber = client.subscriber(subscription).outstanding_messages(400).extend_for(Duration::ZERO);
        let mut subscriber = subscriber.build().await.unwrap();
        let mut chance = fastrand::Rng::with_seed(seed);
        let mut answers: FuturesUnordered<BoxFuture<'_, u64>> = FuturesUnordered::new();
        let (mut open, mut forgotten, mut taken) = (BTreeSet::new(), Vec::new(), 0);
        loop {
            let delivery = tokio::select! {
                next = subscriber.next() => next.expect("a subscriber goes on").unwrap(),
                Some(number) = answers.next() => {
                    open.remove(&number);
                    continue;
                }
                () = stop.cancelled() => break,
            };
            taken += 1;
            if dies_after == Some(taken) {
                lock(&seen).unheard.append(&mut open);
                return;
            }
            let number = number_of(&delivery.message.data);
            note(&mut lock(&seen), number, delivery.attempt);
            match chance.u32(..1_000) {
                _ if number.is_multiple_of(POISON) => answers.push(give_back(delivery, number).boxed()),
                0..20 => {
                    lock(&seen).returned += 1;
                    answers.push(give_back(delivery, number).boxed());
                }
                20..25 => drop(delivery),
                // Nothing is said of it until its time is over.
                25..27 => {
                    lock(&seen).forgotten += 1;
                    forgotten.push(delivery);
                }
                _ => {
                    open.insert(number);
                    answers.push(acknowledge(delivery, number, &seen).boxed());
                }
            }
        }
        drop(answers);
        subscriber.close(Duration::from_secs(5)).await;
    }
}

fn note(seen: &mut Seen, number: u64, attempt: u32) {
    seen.redelivered += u64::from(attempt > 1);
    if seen.confirmed.contains_key(&number) {
        seen.again.push(number);
    }
}

async fn acknowledge(delivery: Delivery, number: u64, seen: &Shared) -> u64 {
    let answered = timeout(PATIENCE, delivery.ack()).await.expect("an answer in time");
    if let Ok(settled @ (Settled::Done | Settled::Already)) = answered {
        *lock(seen).confirmed.entry(number).or_default() += u32::from(settled == Settled::Done);
    }
    number
}

/// Whether it came in time doesn't matter: the message comes again in any case.
async fn give_back(delivery: Delivery, number: u64) -> u64 {
    let _ = delivery.nack("not now").await;
    number
}

/// Waits until nothing is left.
fn eventually_within(patience: Duration, mut left: impl FnMut() -> Vec<u64>) {
    let deadline = Instant::now() + patience;
    loop {
        let left = left();
        if left.is_empty() {
            return;
        }
        let some: Vec<&u64> = left.iter().take(20).collect();
        assert!(
            Instant::now() < deadline,
            "not settled within {patience:?}: {} messages, of them {some:?}",
            left.len()
        );
        std::thread::sleep(Duration::from_millis(250));
    }
}

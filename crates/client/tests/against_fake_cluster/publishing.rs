//! A publisher against a cluster in memory: every outcome is true, and the log holds each message once.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use crate::fake_cluster::{FakeCluster, Fault, TOPIC};
use quorate_client::{Executed, Message, PublishError, Published, Publisher, Reason};

async fn publish_all(publisher: &Publisher, range: Range<u32>) -> Vec<(String, u32, u64)> {
    let outcomes = outcomes_of(publisher, range).await.into_iter();
    let published = outcomes.map(|(name, outcome)| outcome.map(|outcome| (name, outcome.partition, outcome.offset)));
    published.collect::<Result<_, _>>().unwrap()
}

async fn outcomes_of(publisher: &Publisher, range: Range<u32>) -> Vec<(String, Result<Published, PublishError>)> {
    let mut receipts = Vec::new();
    for number in range {
        let message = Message::new(format!("m{number}")).ordering_key(format!("k{}", number % 7));
        receipts.push((format!("m{number}"), publisher.send(message).await.unwrap()));
    }
    let mut outcomes = Vec::new();
    for (name, receipt) in receipts {
        outcomes.push((name, receipt.await));
    }
    outcomes
}

/// Every acknowledged message stands where its outcome says, nothing else does, and keys kept their order.
fn assert_exact(cluster: &FakeCluster, partitions: usize, published: &[(String, u32, u64)]) {
    let logs: Vec<_> = (0..partitions).map(|partition| cluster.contents(partition)).collect();
    for (name, partition, offset) in published {
        assert_eq!(logs[*partition as usize][*offset as usize], *name);
    }
    assert_eq!(logs.iter().map(Vec::len).sum::<usize>(), published.len());
    for log in &logs {
        for key in 0..7 {
            let numbers = log.iter().map(|name| name[1..].parse::<u32>().unwrap()).filter(|number| number % 7 == key);
            assert!(numbers.is_sorted());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn messages_go_straight_to_their_leaders() {
    let cluster = FakeCluster::start(3, 4);
    let publisher = cluster.client(&[2]).publisher(TOPIC).build().await.unwrap();
    let published = publish_all(&publisher, 0..50).await;
    let published = [published, publish_all(&publisher, 50..1000).await].concat();
    assert_exact(&cluster, 4, &published);
    assert!(cluster.served().direct > 0);
    let totals = publisher.close().await;
    assert_eq!((totals.accepted, totals.published, totals.failed, totals.unknown), (1000, 1000, 0, 0));
    assert_eq!(totals.repeated_batches, 0);
}

#[tokio::test(start_paused = true)]
async fn one_reachable_node_is_enough_even_if_it_leads_nothing() {
    let cluster = FakeCluster::start(3, 2);
    cluster.hide(1);
    cluster.hide(2);
    let publisher = cluster.client(&[3]).publisher(TOPIC).build().await.unwrap();
    let published = publish_all(&publisher, 0..500).await;
    assert_exact(&cluster, 2, &published);
    assert_eq!(cluster.served().direct, 0);
}

#[tokio::test(start_paused = true)]
async fn killed_leaders_cost_neither_a_message_nor_a_copy() {
    let cluster = FakeCluster::start(3, 3);
    let publisher = cluster.client(&[1, 2, 3]).publisher(TOPIC).batch_records(10).build().await.unwrap();
    let mut published = publish_all(&publisher, 0..300).await;
    cluster.fail_next(&[Fault::LoseAnswer]);
    let (more, ()) = tokio::join!(publish_all(&publisher, 300..900), async {
        // Each in the middle of the work: a dozen batches of sixty have come in since the one before.
        for partition in [2, 1] {
            let before = cluster.served().direct;
            while cluster.served().direct < before + 12 {
                tokio::task::yield_now().await;
            }
            cluster.kill(cluster.leader(partition));
        }
    });
    published.extend(more);
    assert_exact(&cluster, 3, &published);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_stands_still_is_left_as_soon_as_another_is_elected() {
    for frozen in 1..=3 {
        let cluster = FakeCluster::start(3, 3);
        let publisher = cluster.client(&[1]).publisher(TOPIC).build().await.unwrap();
        let mut published = publish_all(&publisher, 0..100).await;
        cluster.freeze(frozen);
        let began = tokio::time::Instant::now();
        published.extend(publish_all(&publisher, 100..200).await);
        // Not when the ping of its connection is found to be unanswered, 2.5 s later.
        assert!(began.elapsed() < Duration::from_millis(100), "node {frozen}: {:?}", began.elapsed());
        assert_exact(&cluster, 3, &published);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_found_again_as_a_duplicate() {
    let cluster = FakeCluster::start(1, 1);
    let publisher = cluster.client(&[1]).publisher(TOPIC).build().await.unwrap();
    cluster.fail_next(&[Fault::LoseAnswer]);
    let outcome = publisher.publish(Message::new("a")).await.unwrap();
    assert!(outcome.duplicate);
    assert_eq!(cluster.contents(0), ["a"]);
    assert_eq!(publisher.close().await.duplicates, 1);
}

#[tokio::test(start_paused = true)]
async fn refusals_that_pass_are_not_seen_by_the_caller() {
    let cluster = FakeCluster::start(2, 1);
    let publisher = cluster.client(&[1]).publisher(TOPIC).batch_records(5).build().await.unwrap();
    let faults = [Reason::NoLeader, Reason::Overloaded, Reason::Draining, Reason::CommitUnknown, Reason::NoLeader];
    cluster.fail_next(&faults.map(Fault::Refuse));
    let published = publish_all(&publisher, 0..200).await;
    assert_exact(&cluster, 1, &published);
    let repeated = publisher.close().await.repeated_batches;
    assert!(repeated >= faults.len() as u64, "each refusal makes a batch go again: {repeated}");
}

#[tokio::test(start_paused = true)]
async fn without_an_answer_the_outcome_is_unknown_and_publishing_goes_on() {
    let cluster = FakeCluster::start(1, 1);
    let publisher =
        cluster.client(&[1]).publisher(TOPIC).delivery_timeout(Duration::from_secs(5)).build().await.unwrap();
    publisher.publish(Message::new("before")).await.unwrap();
    cluster.fail_next(&[Fault::Silence]);
    let error = publisher.publish(Message::new("perhaps")).await.unwrap_err();
    assert!(matches!(error, PublishError::Unknown { .. }), "{error}");
    assert_eq!(error.error().executed(), Executed::Maybe);
    let after = publisher.publish(Message::new("after")).await.unwrap();
    assert_eq!((after.offset, after.duplicate), (2, false));
    assert_eq!(cluster.contents(0), ["before", "perhaps", "after"]);
}

#[tokio::test(start_paused = true)]
async fn without_a_leader_messages_fail_at_their_deadline_and_the_buffer_pushes_back() {
    let cluster = FakeCluster::start(1, 1);
    let builder = cluster.client(&[1]).publisher(TOPIC).delivery_timeout(Duration::from_secs(5)).buffer_bytes(1000);
    let publisher = builder.build().await.unwrap();
    cluster.elect(0, 0);
    let first = publisher.send(Message::new(vec![0; 800])).await.unwrap();
    let waiting = tokio::time::timeout(Duration::from_secs(1), publisher.send(Message::new(vec![0; 800])));
    assert!(waiting.await.is_err(), "the second message should wait for room");
    let error = first.await.unwrap_err();
    assert!(matches!(error, PublishError::Failed { .. }), "{error}");
    assert_eq!(error.reason(), "DEADLINE_EXCEEDED");
    cluster.elect(0, 1);
    publisher.publish(Message::new("room again")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_hint_leads_to_the_new_leader_while_the_map_lags() {
    let cluster = FakeCluster::start(3, 1);
    let publisher = cluster.client(&[1, 2, 3]).publisher(TOPIC).build().await.unwrap();
    let mut published = publish_all(&publisher, 0..100).await;
    cluster.freeze_maps();
    cluster.elect(0, 3);
    published.extend(publish_all(&publisher, 100..200).await);
    assert_exact(&cluster, 1, &published);
    assert!(cluster.served().direct > 0);
}

#[tokio::test(start_paused = true)]
async fn bad_messages_and_bad_addresses_name_their_reason() {
    let cluster = FakeCluster::start(1, 1);
    let client = cluster.client(&[1]);
    let publisher = client.publisher(TOPIC).build().await.unwrap();
    let reason = async |message| publisher.publish(message).await.unwrap_err().reason().to_owned();
    assert_eq!(reason(Message::new(vec![0; (1 << 20) + 1])).await, "MESSAGE_TOO_LARGE");
    let attributes = (0..101).fold(Message::new(""), |message, number| message.attribute(number.to_string(), ""));
    assert_eq!(reason(attributes).await, "TOO_MANY_ATTRIBUTES");
    assert_eq!(reason(Message::new("").partition(1)).await, "PARTITION_NOT_FOUND");
    assert_eq!(client.publisher("nowhere").build().await.unwrap_err().reason(), "TOPIC_NOT_FOUND");
    assert_eq!(client.publisher("_system").build().await.unwrap_err().reason(), "RESERVED_NAME");

    cluster.hide(1);
    let unreachable = cluster.client(&[1]).publisher(TOPIC).build().await.unwrap_err();
    assert_eq!(unreachable.reason(), "UNREACHABLE");
    assert!(unreachable.message().contains("node-1:1"), "{unreachable}");
}

#[tokio::test(start_paused = true)]
async fn messages_without_a_key_use_all_partitions() {
    let cluster = FakeCluster::start(3, 3);
    let publisher = cluster.client(&[1]).publisher(TOPIC).batch_records(10).build().await.unwrap();
    let mut partitions = BTreeSet::new();
    for _ in 0..60 {
        partitions.insert(publisher.publish(Message::new("x")).await.unwrap().partition);
    }
    assert_eq!(partitions, BTreeSet::from([0, 1, 2]));
}

/// Publishes 1,000 messages while batches are refused, lost or ignored and leaders move.
async fn storm(seed: u64, delivery_timeout: Duration) -> (FakeCluster, Vec<(String, Result<Published, PublishError>)>) {
    const REASONS: [Reason; 6] = [
        Reason::NoLeader,
        Reason::NotLeader,
        Reason::CommitUnknown,
        Reason::Overloaded,
        Reason::Draining,
        Reason::Internal,
    ];
    fastrand::seed(seed);
    let cluster = FakeCluster::start(3, 3);
    let publisher = cluster.client(&[1, 2, 3]).publisher(TOPIC).batch_records(7).delivery_timeout(delivery_timeout);
    let publisher = publisher.attempt_timeout(Duration::from_secs(2)).build().await.unwrap();
    let weather = async {
        for _ in 0..60 {
            let fault = match fastrand::usize(..9) {
                0 => Fault::LoseAnswer,
                1 => Fault::Silence,
                other => Fault::Refuse(REASONS[other % REASONS.len()]),
            };
            cluster.fail_next(&[fault]);
            if fastrand::u8(..8) == 0 {
                cluster.elect(fastrand::usize(..3), fastrand::u64(1..=3));
            }
            for _ in 0..fastrand::usize(..200) {
                tokio::task::yield_now().await;
            }
        }
    };
    let (outcomes, ()) = tokio::join!(outcomes_of(&publisher, 0..1000), weather);
    assert!(cluster.pending_faults() < 60, "no fault of seed {seed} happened");
    (cluster, outcomes)
}

#[tokio::test(start_paused = true)]
async fn in_a_storm_of_faults_every_message_is_in_the_log_once() {
    for seed in 0..40 {
        let (cluster, outcomes) = storm(seed, Duration::from_secs(3600)).await;
        let published = |(name, outcome): (String, Result<Published, PublishError>)| {
            let outcome = outcome.unwrap();
            (name, outcome.partition, outcome.offset)
        };
        assert_exact(&cluster, 3, &outcomes.into_iter().map(published).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn in_a_storm_that_outlasts_the_deadline_every_outcome_is_true() {
    let (mut failed, mut unknown) = (0, 0);
    for seed in 0..40 {
        let (cluster, outcomes) = storm(seed, Duration::from_secs(2)).await;
        let logs: Vec<_> = (0..3).map(|partition| cluster.contents(partition)).collect();
        let mut copies = BTreeMap::<&str, u32>::new();
        for name in logs.iter().flatten() {
            *copies.entry(name).or_default() += 1;
        }
        assert!(copies.values().all(|copies| *copies == 1), "seed {seed}: a message is in the log twice");
        for (name, outcome) in &outcomes {
            match outcome {
                Ok(published) => assert_eq!(logs[published.partition as usize][published.offset as usize], *name),
                Err(PublishError::Failed { error }) => {
                    assert!(
                        !copies.contains_key(name.as_str()),
                        "seed {seed}: {name} failed and is in the log: {error}"
                    );
                    failed += 1;
                }
                Err(PublishError::Unknown { .. }) => unknown += 1,
            }
        }
    }
    assert!(failed > 0 && unknown > 0, "failed {failed}, unknown {unknown}: the storm was too weak to tell");
}

//! Messages of a subscription: delivered, acknowledged, returned, delivered again; at any node, and across the loss of leaders.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod nodes;

use std::collections::BTreeSet;
use std::time::Duration;

use nodes::stream::{Stream, ids, subscribers, texts};
use nodes::{Cluster, PATIENCE, create, position, publish, publish_patiently, refusal};
use quorate_proto::v1;
use quorate_proto::v1::position::{Earliest, Position};
use quorate_proto::v1::subscribe_request::Request;
use tonic::Code;

/// A subscription to everything that the topic holds. Retries come at once.
async fn subscribe(address: &str, name: &str, topic: &str) {
    subscribe_with(address, name, topic, None).await;
}

/// The same, with a topic for messages that were tried so many times.
async fn subscribe_with(address: &str, name: &str, topic: &str, dead_letters: Option<(&str, u32)>) {
    let retry_policy = v1::RetryPolicy { backoff: Some(v1::retry_policy::Backoff::Immediate(Default::default())) };
    let subscription = v1::Subscription {
        name: name.to_owned(),
        topic: topic.to_owned(),
        retry_policy: Some(retry_policy),
        // What was pulled and never mentioned again comes back soon.
        ack_deadline: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
        dead_letter_policy: dead_letters.map(|(topic, attempts)| v1::DeadLetterPolicy {
            topic: topic.to_owned(),
            max_delivery_attempts: Some(attempts),
        }),
        ..Default::default()
    };
    let request = v1::CreateSubscriptionRequest {
        subscription: Some(subscription),
        start: position(Position::Earliest(Earliest {})),
        request_id: String::new(),
    };
    nodes::subscriptions(address).await.create_subscription(request).await.unwrap();
}

async fn pull(address: &str, subscription: &str, max_messages: u32) -> Vec<v1::Delivery> {
    let request = v1::PullRequest { subscription: subscription.to_owned(), max_messages, ..Default::default() };
    subscribers(address).await.pull(request).await.unwrap().into_inner().deliveries
}

async fn acknowledge(address: &str, subscription: &str, ack_ids: Vec<String>) -> Vec<v1::Outcome> {
    let request = v1::AcknowledgeRequest { subscription: subscription.to_owned(), ack_ids };
    let settlements = subscribers(address).await.acknowledge(request).await.unwrap().into_inner().settlements;
    settlements.iter().map(v1::Settlement::outcome).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_subscription_gets_every_message_and_its_subscribers_share_them() {
    let cluster = Cluster::start(3).await;
    let address = |id| cluster.place(id).client;
    create(&address(1), "orders", 6).await;
    let data: Vec<String> = (0..300).map(|number| format!("order {number}")).collect();
    publish(&address(2), "orders", None, &data.iter().map(String::as_str).collect::<Vec<_>>()).await;
    subscribe(&address(1), "billing", "orders").await;
    subscribe(&address(2), "shipping", "orders").await;

    // One subscriber at each node: most partitions are led elsewhere.
    let mut billing = Vec::new();
    for id in 1..=3 {
        billing.push(Stream::open(&address(id), "billing", 100).await);
    }
    let mut seen = BTreeSet::new();
    for stream in &mut billing {
        let mine = stream.at_least(100).await;
        assert!(mine.iter().all(|delivery| delivery.delivery_attempt == 1));
        seen.append(&mut texts(&mine));
        stream.say(Request::Ack(v1::Ack { ack_ids: ids(&mine) })).await;
    }
    assert_eq!(seen.len(), 300, "each got a hundred others");
    let mut shipping = Stream::open(&address(3), "shipping", 1_000).await;
    assert_eq!(texts(&shipping.at_least(300).await).len(), 300);

    // All is settled for one of them, and nothing for the other.
    for id in 1..=3 {
        publish_patiently(&address(id), "orders", 0, "one more").await;
        billing[0].say(Request::Credit(v1::Credit { messages: 1, bytes: 1 })).await;
        assert_eq!(texts(&billing[0].at_least(1).await), BTreeSet::from(["one more".to_owned()]));
    }
    assert_eq!(billing[0].settled.len(), 100);
    assert!(billing[0].settled.values().all(|outcome| *outcome == v1::Outcome::Done));
    drop((billing, shipping));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_comes_again_when_leaders_go_and_all_else_does() {
    let mut cluster = Cluster::start(3).await;
    let address = cluster.place(1).client;
    create(&address, "orders", 3).await;
    let data: Vec<String> = (0..90).map(|number| format!("order {number}")).collect();
    publish(&address, "orders", None, &data.iter().map(String::as_str).collect::<Vec<_>>()).await;
    subscribe(&address, "billing", "orders").await;

    let mut first = pull(&address, "billing", 90).await;
    while first.len() < 90 {
        first.extend(pull(&address, "billing", 90 - first.len() as u32).await);
    }
    let (done, open) = first.split_at(60);
    assert_eq!(acknowledge(&address, "billing", ids(done)).await, [v1::Outcome::Done; 60]);
    // A second time it had been done, also at another node.
    let other = cluster.place(2).client;
    assert_eq!(acknowledge(&other, "billing", ids(&done[..3])).await, [v1::Outcome::AlreadySettled; 3]);

    for id in [3, 2] {
        cluster.stop_node(id).await;
        cluster.start_node(id).await;
        nodes::ready(&cluster.place(id).client).await;
    }
    // Whoever led before may not lead any more: what it delivered comes again, and whoever had it is told so.
    let late = acknowledge(&address, "billing", ids(&open[..10])).await;
    let mut expected: Vec<v1::Delivery> = open[10..].to_vec();
    for (delivery, outcome) in open.iter().zip(late) {
        match outcome {
            v1::Outcome::Done => {}
            v1::Outcome::LeaseLost => expected.push(delivery.clone()),
            other => panic!("{other:?}"),
        }
    }
    let mut again = Stream::open(&address, "billing", 100).await;
    let mut rest = BTreeSet::new();
    while rest.len() < expected.len() {
        let deliveries = again.deliveries().await;
        rest.append(&mut texts(&deliveries));
        again.say(Request::Ack(v1::Ack { ack_ids: ids(&deliveries) })).await;
    }
    assert_eq!(rest, texts(&expected));
    drop(again);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_returned_comes_again_with_its_attempts_and_the_reason() {
    let cluster = Cluster::start(1).await;
    let address = cluster.place(1).client;
    create(&address, "orders", 1).await;
    subscribe(&address, "billing", "orders").await;
    publish(&address, "orders", None, &["a", "b"]).await;

    let mut stream = Stream::open(&address, "billing", 10).await;
    let first = stream.at_least(2).await;
    let error = "no such customer".to_owned();
    stream.say(Request::Nack(v1::Nack { ack_ids: ids(&first[..1]), error, ..Default::default() })).await;
    let second = stream.at_least(1).await;
    assert_eq!((second[0].delivery_attempt, second[0].last_error.as_str()), (2, "no such customer"));
    let untouched = v1::Nack { ack_ids: ids(&second), untouched: true, ..Default::default() };
    stream.say(Request::Nack(untouched)).await;
    let third = stream.at_least(1).await;
    assert_eq!(third[0].delivery_attempt, 2, "an attempt that wasn't made doesn't count");

    // A delivery that was followed by another counts no more, and says so.
    let outcomes = acknowledge(&address, "billing", vec![ids(&first)[0].clone(), ids(&third)[0].clone()]).await;
    assert_eq!(outcomes, [v1::Outcome::LeaseLost, v1::Outcome::Done]);

    // One that a later leader made: whoever is asked just hasn't heard of it, and can't tell what became of it.
    let later = quorate_model::AckId::parse(&ids(&first)[1]).unwrap();
    let later = quorate_model::AckId { term: later.term + 1, ..later }.to_string();
    assert_eq!(acknowledge(&address, "billing", vec![later]).await, [v1::Outcome::Unknown]);

    // When a subscriber is gone, what it had comes to the next one.
    drop(stream);
    let mut next = Stream::open(&address, "billing", 10).await;
    let inherited = next.at_least(1).await;
    assert_eq!((texts(&inherited), inherited[0].delivery_attempt), (BTreeSet::from(["b".to_owned()]), 2));
    drop(next);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_returned_too_often_moves_to_the_dead_letters_once() {
    let mut cluster = Cluster::start(3).await;
    let address = cluster.place(1).client;
    create(&address, "orders", 2).await;
    create(&address, "failed", 3).await;
    subscribe_with(&address, "billing", "orders", Some(("failed", 3))).await;
    let data: Vec<String> = (0..20).map(|number| format!("order {number}")).collect();
    publish(&address, "orders", None, &data.iter().map(String::as_str).collect::<Vec<_>>()).await;

    let mut stream = Stream::open(&address, "billing", 1_000).await;
    let mut returned = 0;
    while returned < 20 * 3 {
        let deliveries = stream.deliveries().await;
        let before = returned;
        returned += deliveries.len();
        let error = "cannot be billed".to_owned();
        stream.say(Request::Nack(v1::Nack { ack_ids: ids(&deliveries), error, ..Default::default() })).await;
        if before < 20 && returned >= 20 {
            // Whoever leads now goes on where the others were.
            cluster.stop_node(2).await;
            cluster.start_node(2).await;
        }
    }
    let wait = async {
        loop {
            let letters = nodes::read_from(&address, "failed", None).await.unwrap();
            if letters.len() >= 20 {
                return letters;
            }
        }
    };
    let letters = tokio::time::timeout(PATIENCE, wait).await.expect("all are moved");
    assert_eq!(letters.len(), 20, "each of them once");
    assert_eq!(nodes::texts(&letters).into_iter().collect::<BTreeSet<_>>(), data.into_iter().collect());
    let attributes = &letters[0].message.as_ref().unwrap().attributes;
    let told = |name: &str| attributes[&format!("quorate.{name}")].clone();
    assert_eq!((told("source_topic"), told("subscription")), ("orders".to_owned(), "billing".to_owned()));
    assert_eq!(told("last_error"), "cannot be billed");
    assert!(told("attempts").parse::<u32>().unwrap() >= 3);
    assert!(told("last_returned_ms").parse::<u64>().unwrap() >= told("first_delivered_ms").parse::<u64>().unwrap());
    drop(stream);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_request_is_named() {
    let cluster = Cluster::start(1).await;
    let address = cluster.place(1).client;
    create(&address, "orders", 1).await;
    subscribe(&address, "billing", "orders").await;
    let mut client = subscribers(&address).await;

    let unknown = v1::PullRequest { subscription: "nobody".to_owned(), max_messages: 1, ..Default::default() };
    let (code, reason, _) = refusal(&client.pull(unknown).await.unwrap_err());
    assert_eq!((code, reason.as_str()), (Code::NotFound, "SUBSCRIPTION_NOT_FOUND"));
    for (max_messages, wait_s, field) in [(0, 0, "max_messages"), (1_001, 0, "max_messages"), (1, 31, "wait")] {
        let wait = Some(prost_types::Duration { seconds: wait_s, nanos: 0 });
        let request = v1::PullRequest { subscription: "billing".to_owned(), max_messages, wait, partitions: vec![] };
        let (code, _, facts) = refusal(&client.pull(request).await.unwrap_err());
        assert_eq!((code, facts["field"].as_str()), (Code::InvalidArgument, field));
    }
    let nack = v1::Nack { ack_ids: vec!["x".to_owned()], error: "e".repeat(513), ..Default::default() };
    let request = v1::NackRequest { subscription: "billing".to_owned(), nack: Some(nack) };
    let (_, _, facts) = refusal(&client.nack(request).await.unwrap_err());
    assert_eq!((facts["field"].as_str(), facts["value"].as_str()), ("nack.error", "513"));
    let request = v1::AcknowledgeRequest { subscription: "billing".to_owned(), ack_ids: vec![] };
    let (_, _, facts) = refusal(&client.acknowledge(request).await.unwrap_err());
    assert_eq!(facts["field"], "ack_ids");
    assert_eq!(acknowledge(&address, "billing", vec!["garbage".to_owned()]).await, [v1::Outcome::Invalid]);
    assert!(pull(&address, "billing", 1).await.is_empty(), "there is nothing to pull");
    let waited = tokio::time::Instant::now();
    assert!(waited.elapsed() < Duration::from_secs(1));
    cluster.stop().await;
}

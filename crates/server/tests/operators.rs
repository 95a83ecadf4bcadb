//! What an operator asks about a subscription, and does to it.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod nodes;

use nodes::{Cluster, PATIENCE, create, position, publish};
use quorate_proto::v1;
use quorate_proto::v1::position::{Earliest, Position};
use quorate_proto::v1::subscriber_service_client::SubscriberServiceClient;
use tonic::transport::Channel;

async fn subscribers(address: &str) -> SubscriberServiceClient<Channel> {
    SubscriberServiceClient::new(nodes::channel(address).await)
}

/// A subscription to everything that the topic holds. What is returned comes again after an hour, twice at most.
async fn subscribe(address: &str, name: &str, topic: &str, dead_letters: &str) {
    let hour = Some(prost_types::Duration { seconds: 3_600, nanos: 0 });
    let fixed = v1::retry_policy::Fixed { pause: hour };
    let subscription = v1::Subscription {
        name: name.to_owned(),
        topic: topic.to_owned(),
        retry_policy: Some(v1::RetryPolicy { backoff: Some(v1::retry_policy::Backoff::Fixed(fixed)) }),
        dead_letter_policy: Some(v1::DeadLetterPolicy {
            topic: dead_letters.to_owned(),
            max_delivery_attempts: Some(2),
        }),
        ..Default::default()
    };
    let start = position(Position::Earliest(Earliest {}));
    let request = v1::CreateSubscriptionRequest { subscription: Some(subscription), start, ..Default::default() };
    nodes::subscriptions(address).await.create_subscription(request).await.unwrap();
}

async fn pull(address: &str, subscription: &str, max_messages: u32) -> Vec<v1::Delivery> {
    let request = v1::PullRequest { subscription: subscription.to_owned(), max_messages, ..Default::default() };
    subscribers(address).await.pull(request).await.unwrap().into_inner().deliveries
}

async fn pull_all(address: &str, subscription: &str, messages: usize) -> Vec<v1::Delivery> {
    let mut all = Vec::new();
    while all.len() < messages {
        all.extend(pull(address, subscription, (messages - all.len()) as u32).await);
    }
    all
}

fn ids(deliveries: &[v1::Delivery]) -> Vec<String> {
    deliveries.iter().map(|delivery| delivery.ack_id.clone()).collect()
}

async fn acknowledge(address: &str, subscription: &str, ack_ids: Vec<String>) -> Vec<v1::Outcome> {
    let request = v1::AcknowledgeRequest { subscription: subscription.to_owned(), ack_ids };
    let settlements = subscribers(address).await.acknowledge(request).await.unwrap().into_inner().settlements;
    settlements.iter().map(v1::Settlement::outcome).collect()
}

/// Returns messages, to be delivered again at once, or when the policy says.
async fn give_back(address: &str, subscription: &str, deliveries: &[v1::Delivery], pause: Option<i64>) {
    let pause = pause.map(|seconds| prost_types::Duration { seconds, nanos: 0 });
    let nack = v1::Nack { ack_ids: ids(deliveries), pause, ..Default::default() };
    let request = v1::NackRequest { subscription: subscription.to_owned(), nack: Some(nack) };
    let settlements = subscribers(address).await.nack(request).await.unwrap().into_inner().settlements;
    assert!(settlements.iter().all(|settlement| settlement.outcome() == v1::Outcome::Done), "{settlements:?}");
}

async fn status(address: &str, name: &str) -> Vec<v1::SubscriptionPartitionStatus> {
    let request = v1::GetSubscriptionRequest { name: name.to_owned(), without_status: false };
    let response = nodes::subscriptions(address).await.get_subscription(request).await.unwrap().into_inner();
    response.subscription.unwrap().partition_status
}

#[tokio::test(flavor = "multi_thread")]
async fn the_numbers_of_a_subscription_are_those_of_its_partitions_wherever_they_are_led() {
    let cluster = Cluster::start(3).await;
    let address = cluster.place(1).client;
    create(&address, "orders", 3).await;
    create(&address, "dead", 1).await;
    for partition in 0..3 {
        publish(&address, "orders", Some(partition), &["a", "b", "c", "d"]).await;
    }
    subscribe(&address, "billing", "orders", "dead").await;
    // Before anybody takes a message, and without anything being started for the question.
    for (status, partition) in status(&address, "billing").await.into_iter().zip(0..) {
        let age = status.oldest_unacknowledged_age.unwrap();
        assert!(age.seconds < PATIENCE.as_secs() as i64, "{age:?}");
        let expected = v1::SubscriptionPartitionStatus {
            partition,
            backlog_messages: 4,
            oldest_unacknowledged_age: Some(age),
            ..Default::default()
        };
        assert_eq!(status, expected);
    }

    let all = pull_all(&address, "billing", 12).await;
    let of = |partition: u32| -> Vec<v1::Delivery> {
        all.iter().filter(|delivery| delivery.message.as_ref().unwrap().partition == partition).cloned().collect()
    };
    // Partition 0: all done. 1: one is done, one waits for an hour. 2: one was tried twice.
    assert_eq!(acknowledge(&address, "billing", ids(&of(0))).await, [v1::Outcome::Done; 4]);
    assert_eq!(acknowledge(&address, "billing", ids(&of(1)[1..2])).await, [v1::Outcome::Done]);
    give_back(&address, "billing", &of(1)[..1], None).await;
    give_back(&address, "billing", &of(2)[3..], Some(0)).await;
    let again = pull_all(&address, "billing", 1).await;
    assert_eq!(again[0].delivery_attempt, 2);
    give_back(&address, "billing", &again, None).await;

    for node in 1..=3 {
        let told = status(&cluster.place(node).client, "billing").await;
        let numbers = |partition: usize| {
            let it = &told[partition];
            (it.backlog_messages, it.in_flight_messages, it.delayed_messages, it.acknowledged_total)
        };
        assert_eq!(numbers(0), (0, 0, 0, 4));
        assert_eq!(told[0].oldest_unacknowledged_age, None);
        assert_eq!(numbers(1), (3, 2, 1, 1));
        assert_eq!(told[1].attempts, [v1::AttemptsBucket { attempts_max: 1, messages: 1 }]);
        assert_eq!(numbers(2), (3, 3, 0, 0));
        assert_eq!((told[2].redelivered_total, told[2].dead_lettered_total), (1, 1));
    }

    let request = v1::GetSubscriptionRequest { name: "billing".to_owned(), without_status: true };
    let response = nodes::subscriptions(&address).await.get_subscription(request).await.unwrap().into_inner();
    assert!(response.subscription.unwrap().partition_status.is_empty());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_whose_leader_is_gone_is_unavailable_and_the_others_are_told() {
    let mut cluster = Cluster::start(2).await;
    let address = cluster.place(1).client;
    let topic = v1::Topic {
        name: "orders".to_owned(),
        partitions: Some(8),
        replication_factor: Some(1),
        ..v1::Topic::default()
    };
    let request = v1::CreateTopicRequest { topic: Some(topic), request_id: String::new() };
    let created = nodes::topics(&address).await.create_topic(request).await.unwrap().into_inner().topic.unwrap();
    create(&address, "dead", 1).await;
    subscribe(&address, "billing", "orders", "dead").await;
    let request = v1::GetTopicRequest { name: created.name };
    let topic = nodes::topics(&address).await.get_topic(request).await.unwrap().into_inner().topic.unwrap();
    let elsewhere: Vec<bool> = topic.partition_status.iter().map(|status| status.leader_node_id == 2).collect();
    assert!(elsewhere.contains(&true) && elsewhere.contains(&false), "{elsewhere:?}");

    cluster.stop_node(2).await;
    let asked = tokio::time::timeout(PATIENCE, status(&address, "billing")).await.unwrap();
    let unavailable: Vec<bool> = asked.iter().map(|status| status.unavailable).collect();
    assert_eq!(unavailable, elsewhere);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_name_what_is_led_here_and_forget_what_ended() {
    let mut cluster = Cluster::prepare(1);
    let node = cluster.try_start(1, &["listen.metrics=127.0.0.1:0"]).await.unwrap();
    let metrics = node.addresses().metrics.clone().unwrap();
    cluster.nodes.insert(1, node);
    let address = cluster.place(1).client;
    nodes::ready(&address).await;
    create(&address, "orders", 2).await;
    create(&address, "dead", 1).await;
    publish(&address, "orders", Some(1), &["a", "b", "c"]).await;
    subscribe(&address, "billing", "orders", "dead").await;
    let taken = pull_all(&address, "billing", 2).await;
    acknowledge(&address, "billing", ids(&taken[..1])).await;
    give_back(&address, "billing", &taken[1..], None).await;

    let text = nodes::get(&metrics, "/metrics").await;
    let labels = |partition| format!("{{partition=\"{partition}\",subscription=\"billing\",topic=\"orders\"}}");
    for (name, partition, value) in [
        ("backlog_messages", 0, 0),
        ("backlog_messages", 1, 2),
        ("delayed_messages", 1, 1),
        ("acknowledged_total", 1, 1),
        ("redelivered_total", 1, 1),
        ("dead_lettered_total", 1, 0),
        ("lost_total", 1, 0),
        ("dead_letters_waiting", 1, 0),
        ("oldest_unacknowledged_seconds", 0, 0),
    ] {
        let line = format!("quorate_subscription_{name}{} {value}\n", labels(partition));
        assert!(text.contains(&line), "{line} is missing in\n{text}");
    }
    let tried = "quorate_subscription_tried_messages{attempts=\"1\",partition=\"1\",subscription=\"billing\",topic=\"orders\"} 1\n";
    assert!(text.contains(tried), "{text}");
    assert!(text.contains("# TYPE quorate_subscription_acknowledged_total counter\n"));
    assert!(text.contains("quorate_subscriptions_omitted 0\n"));

    let request = v1::DeleteSubscriptionRequest { name: "billing".to_owned(), request_id: String::new() };
    nodes::subscriptions(&address).await.delete_subscription(request).await.unwrap();
    assert!(!nodes::get(&metrics, "/metrics").await.contains("billing"));
    cluster.stop().await;
}

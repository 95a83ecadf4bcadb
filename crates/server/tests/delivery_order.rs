//! Priorities, delays and expiry: in which order messages are delivered, and when.

#![allow(clippy::unwrap_used)]

mod nodes;

use std::time::{Duration, SystemTime};

use nodes::{Cluster, PATIENCE, create, message, position, published};
use prost_types::Timestamp;
use quorate_proto::v1;
use quorate_proto::v1::position::{Earliest, Position};
use quorate_proto::v1::subscriber_service_client::SubscriberServiceClient;
use tonic::Code;

async fn subscribe(address: &str, name: &str, topic: &str) {
    let subscription = v1::Subscription { name: name.to_owned(), topic: topic.to_owned(), ..Default::default() };
    let start = position(Position::Earliest(Earliest {}));
    let request = v1::CreateSubscriptionRequest { subscription: Some(subscription), start, ..Default::default() };
    nodes::subscriptions(address).await.create_subscription(request).await.unwrap();
}

async fn publish(
    address: &str,
    topic: &str,
    messages: Vec<v1::Message>,
) -> Vec<Result<v1::Published, v1::PublishError>> {
    let request = v1::PublishRequest { topic: topic.to_owned(), partition: None, messages };
    let response = nodes::publisher(address).await.publish(request).await.unwrap();
    response.into_inner().results.into_iter().map(published).collect()
}

/// What can be had within the time, in its order; acknowledged.
async fn take(address: &str, subscription: &str, wait: Duration) -> Vec<String> {
    let mut client = SubscriberServiceClient::new(nodes::channel(address).await);
    let wait = Some(wait.try_into().unwrap());
    let request =
        v1::PullRequest { subscription: subscription.to_owned(), max_messages: 100, wait, ..Default::default() };
    let deliveries = client.pull(request).await.unwrap().into_inner().deliveries;
    if deliveries.is_empty() {
        return Vec::new();
    }
    let ack_ids = deliveries.iter().map(|delivery| delivery.ack_id.clone()).collect();
    let request = v1::AcknowledgeRequest { subscription: subscription.to_owned(), ack_ids };
    let settlements = client.acknowledge(request).await.unwrap().into_inner().settlements;
    assert!(settlements.iter().all(|settlement| settlement.outcome() == v1::Outcome::Done));
    let messages: Vec<_> = deliveries.into_iter().map(|delivery| delivery.message.unwrap()).collect();
    nodes::texts(&messages)
}

/// The backlog, and what waits by priority: ready, and for its time.
async fn depths_of(address: &str, subscription: &str) -> (u64, Vec<(u32, u64, u64)>) {
    let request = v1::GetSubscriptionRequest { name: subscription.to_owned(), without_status: false };
    let found = nodes::subscriptions(address).await.get_subscription(request).await.unwrap().into_inner();
    let status = &found.subscription.unwrap().partition_status[0];
    assert!(!status.depths_partial);
    let depths = status.depths.iter().map(|depth| (depth.priority, depth.ready, depth.waiting));
    (status.backlog_messages, depths.collect())
}

fn prioritized(data: &str, priority: u32) -> v1::Message {
    v1::Message { priority, ..message(data) }
}

fn delayed(data: &str, until: SystemTime) -> v1::Message {
    v1::Message { deliver_at: Some(Timestamp::from(until)), ..message(data) }
}

#[tokio::test(flavor = "multi_thread")]
async fn higher_priorities_are_delivered_first_however_much_waits() {
    let cluster = Cluster::start(1).await;
    let address = cluster.place(1).client;
    create(&address, "orders", 1).await;
    subscribe(&address, "billing", "orders").await;
    let low: Vec<_> = (0..3_000).map(|number| prioritized(&format!("low {number}"), 0)).collect();
    publish(&address, "orders", low).await;
    publish(&address, "orders", vec![prioritized("high", 9), prioritized("some", 4), prioritized("high too", 9)]).await;
    let depths = [(9, 2, 0), (4, 1, 0), (0, 3_000, 0)];
    assert_eq!(depths_of(&address, "billing").await, (3_003, depths.to_vec()), "before anything was read");
    let first = take(&address, "billing", PATIENCE.min(Duration::from_secs(30))).await;
    assert_eq!(first[..4], ["high", "high too", "some", "low 0"]);
    let left = 3_003 - first.len() as u64;
    assert_eq!(depths_of(&address, "billing").await, (left, vec![(0, left, 0)]));
    let later = SystemTime::now() + Duration::from_secs(3_600);
    publish(&address, "orders", vec![delayed("later", later), v1::Message { priority: 2, ..delayed("too", later) }])
        .await;
    let depths = vec![(2, 0, 1), (0, left, 1)];
    assert_eq!(depths_of(&address, "billing").await, (left + 2, depths));
    publish(&address, "orders", vec![prioritized("late", 1)]).await;
    let next = take(&address, "billing", Duration::from_secs(30)).await;
    assert_eq!(next[..2], ["late".to_owned(), format!("low {}", first.len() - 3)]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_message_is_delivered_in_time_also_when_its_leader_is_gone() {
    let mut cluster = Cluster::start(3).await;
    let address = |cluster: &Cluster, id| cluster.place(id).client;
    create(&address(&cluster, 1), "orders", 3).await;
    subscribe(&address(&cluster, 1), "billing", "orders").await;
    let due = SystemTime::now() + Duration::from_secs(6);
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    for number in 0..9 {
        publish(&address(&cluster, 1), "orders", vec![delayed(&format!("later {number}"), due)]).await;
    }
    publish(&address(&cluster, 1), "orders", vec![message("now"), delayed("overdue", long_ago)]).await;

    let mut taken = take(&address(&cluster, 1), "billing", Duration::from_secs(5)).await;
    while taken.len() < 2 {
        taken.extend(take(&address(&cluster, 1), "billing", Duration::from_secs(5)).await);
    }
    taken.sort();
    assert_eq!(taken, ["now", "overdue"]);

    cluster.stop_node(2).await;
    let mut late = Vec::new();
    while late.len() < 9 {
        let some = take(&address(&cluster, 1), "billing", Duration::from_secs(10)).await;
        assert!(some.is_empty() || SystemTime::now() >= due, "too early: {some:?}");
        late.extend(some);
    }
    late.sort();
    assert_eq!(late, (0..9).map(|number| format!("later {number}")).collect::<Vec<_>>());
    assert!(SystemTime::now() < due + PATIENCE, "in time");
    cluster.start_node(2).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_expired_is_not_delivered_and_bad_options_are_named() {
    let cluster = Cluster::start(1).await;
    let address = cluster.place(1).client;
    create(&address, "orders", 1).await;
    subscribe(&address, "billing", "orders").await;
    let now = SystemTime::now();
    let expires = |data: &str, at: SystemTime| v1::Message { expire_at: Some(at.into()), ..message(data) };
    let gone = expires("gone", now - Duration::from_secs(1));
    publish(&address, "orders", vec![gone, expires("in time", now + Duration::from_secs(600)), message("for ever")])
        .await;
    assert_eq!(take(&address, "billing", Duration::from_secs(10)).await, ["in time", "for ever"]);

    let never = v1::Message { deliver_at: Some(now.into()), ..expires("never", now) };
    let before_1970 = v1::Message { deliver_at: Some(Timestamp { seconds: -1, nanos: 0 }), ..message("x") };
    let cases = [
        (prioritized("x", 10), "priority", "10"),
        (prioritized("x", 300), "priority", "255"),
        (before_1970, "deliver_at", "-1 s 0 ns"),
    ];
    for (bad, field, value) in cases {
        let refused = publish(&address, "orders", vec![bad]).await.remove(0).unwrap_err();
        assert_eq!((refused.reason.as_str(), refused.code), ("INVALID_ARGUMENT", Code::InvalidArgument as i32));
        assert_eq!((refused.metadata["field"].as_str(), refused.metadata["value"].as_str()), (field, value));
    }
    let refused = publish(&address, "orders", vec![never]).await.remove(0).unwrap_err();
    assert_eq!(refused.metadata["field"], "expire_at");
    cluster.stop().await;
}

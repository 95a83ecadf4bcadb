//! What an operator asks about a subscription, and does to it.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod nodes;

use std::collections::BTreeSet;

use nodes::{Cluster, PATIENCE, create, position, publish, refusal};
use quorate_proto::v1;
use quorate_proto::v1::position::{Earliest, Latest, Position};
use quorate_proto::v1::subscribe_request::{Open, Request as Say};
use quorate_proto::v1::subscribe_response::Response as Heard;
use quorate_proto::v1::subscriber_service_client::SubscriberServiceClient;
use tonic::Status;
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
            depths: vec![v1::PriorityDepth { priority: 0, ready: 4, waiting: 0 }],
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

/// A subscriber's stream that says nothing but what it wants.
struct Stream {
    requests: tokio::sync::mpsc::Sender<v1::SubscribeRequest>,
    responses: tonic::Streaming<v1::SubscribeResponse>,
    outcomes: Vec<v1::Outcome>,
}

impl Stream {
    async fn open(address: &str, subscription: &str) -> Self {
        let (requests, receiver) = tokio::sync::mpsc::channel(10);
        let credit = Some(v1::Credit { messages: 100, bytes: 1 << 20 });
        let open = Open { subscription: subscription.to_owned(), partitions: vec![], credit };
        requests.send(v1::SubscribeRequest { request: Some(Say::Open(open)) }).await.unwrap();
        let receiver = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let responses = subscribers(address).await.subscribe(receiver).await.unwrap().into_inner();
        Self { requests, responses, outcomes: Vec::new() }
    }

    async fn acknowledge(&self, ack_ids: Vec<String>) {
        self.requests.send(v1::SubscribeRequest { request: Some(Say::Ack(v1::Ack { ack_ids })) }).await.unwrap();
    }

    /// One response more: deliveries, or what became of acknowledgements.
    async fn hear(&mut self) -> Vec<v1::Delivery> {
        let next = tokio::time::timeout(PATIENCE, self.responses.message()).await.expect("something comes");
        match next.unwrap().expect("the stream goes on").response.unwrap() {
            Heard::Deliveries(deliveries) => deliveries.deliveries,
            Heard::Settlements(heard) => {
                self.outcomes.extend(heard.settlements.iter().map(v1::Settlement::outcome));
                Vec::new()
            }
            Heard::Ended(ended) => panic!("a subscriber doesn't lose its partitions by a seek: {ended:?}"),
        }
    }

    async fn deliveries(&mut self, count: usize) -> Vec<v1::Delivery> {
        let mut all = Vec::new();
        while all.len() < count {
            all.extend(self.hear().await);
        }
        all
    }
}

fn texts(deliveries: &[v1::Delivery]) -> BTreeSet<String> {
    let messages: Vec<_> = deliveries.iter().map(|delivery| delivery.message.clone().unwrap()).collect();
    nodes::texts(&messages).into_iter().collect()
}

fn all_of(numbers: std::ops::Range<u32>) -> BTreeSet<String> {
    numbers.map(|number| number.to_string()).collect()
}

async fn seek(address: &str, request: &v1::SeekSubscriptionRequest) -> Result<Vec<v1::SeekedPartition>, Status> {
    let mut subscriptions = nodes::subscriptions(address).await;
    Ok(subscriptions.seek_subscription(request.clone()).await?.into_inner().partitions)
}

fn to(name: &str, position: Position, request_id: &str) -> v1::SeekSubscriptionRequest {
    v1::SeekSubscriptionRequest {
        name: name.to_owned(),
        position: Some(v1::Position { position: Some(position) }),
        partitions: Vec::new(),
        request_id: request_id.to_owned(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_is_moved_and_its_subscribers_go_on() {
    let cluster = Cluster::start(3).await;
    let address = |id| cluster.place(id).client;
    create(&address(1), "orders", 3).await;
    create(&address(1), "dead", 1).await;
    for partition in 0..3 {
        let data: Vec<String> = (0..4).map(|number| (partition * 4 + number).to_string()).collect();
        publish(&address(1), "orders", Some(partition), &data.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    subscribe(&address(1), "billing", "orders", "dead").await;
    // At a node that leads only some of the partitions.
    let mut stream = Stream::open(&address(2), "billing").await;
    let first = stream.deliveries(12).await;
    assert_eq!(texts(&first), all_of(0..12));
    stream.acknowledge(ids(&first[..6])).await;
    while stream.outcomes.len() < 6 {
        assert!(stream.hear().await.is_empty());
    }

    // Back to the beginning: all comes again, on the same stream, as a first attempt.
    let moved = seek(&address(3), &to("billing", Position::Earliest(Earliest {}), "back")).await.unwrap();
    assert_eq!(moved.iter().map(|it| (it.partition, it.offset)).collect::<Vec<_>>(), [(0, 0), (1, 0), (2, 0)]);
    let again = stream.deliveries(12).await;
    assert_eq!(texts(&again), all_of(0..12));
    assert!(again.iter().all(|delivery| delivery.delivery_attempt == 1));
    // What was in hand before can't settle anything.
    stream.outcomes.clear();
    stream.acknowledge(ids(&first[6..])).await;
    while stream.outcomes.len() < 6 {
        assert!(stream.hear().await.is_empty());
    }
    assert_eq!(stream.outcomes, [v1::Outcome::Seeked; 6]);
    assert_eq!(acknowledge(&address(1), "billing", ids(&first[..6])).await, [v1::Outcome::Seeked; 6]);
    for told in status(&address(1), "billing").await {
        assert_eq!((told.backlog_messages, told.in_flight_messages), (4, 4), "{told:?}");
    }

    // The same request again, because its answer was lost, moves nothing.
    assert_eq!(acknowledge(&address(1), "billing", ids(&again)).await, [v1::Outcome::Done; 12]);
    let repeated = seek(&address(2), &to("billing", Position::Earliest(Earliest {}), "back")).await.unwrap();
    assert_eq!(repeated, moved);
    assert!(status(&address(1), "billing").await.iter().all(|told| told.backlog_messages == 0));

    // One partition alone, by an offset of its own; then all to the end.
    let mut one = to("billing", Position::Latest(Latest {}), "");
    one.partitions = vec![v1::PartitionPosition { partition: 1, start: position(Position::Offset(3)) }];
    assert_eq!(seek(&address(1), &one).await.unwrap(), [v1::SeekedPartition { partition: 1, offset: 3 }]);
    assert_eq!(texts(&stream.deliveries(1).await), all_of(7..8));
    seek(&address(1), &to("billing", Position::Latest(Latest {}), "")).await.unwrap();
    publish(&address(1), "orders", Some(0), &["12"]).await;
    assert_eq!(texts(&stream.deliveries(1).await), all_of(12..13), "nothing else comes");
    drop(stream);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_outlives_leaders_and_reaches_partitions_that_nobody_took_from() {
    let mut cluster = Cluster::start(3).await;
    let address = cluster.place(1).client;
    create(&address, "orders", 3).await;
    create(&address, "dead", 1).await;
    for partition in 0..3 {
        publish(&address, "orders", Some(partition), &["a", "b", "c"]).await;
    }
    subscribe(&address, "billing", "orders", "dead").await;
    seek(&address, &to("billing", Position::Offset(2), "")).await.unwrap();
    for id in [3, 2] {
        cluster.stop_node(id).await;
        cluster.start_node(id).await;
        nodes::ready(&cluster.place(id).client).await;
    }
    let rest = pull_all(&address, "billing", 3).await;
    let offsets: Vec<u64> = rest.iter().map(|delivery| delivery.message.as_ref().unwrap().offset).collect();
    assert_eq!(offsets, [2, 2, 2]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_subscription_cannot_go_is_refused_and_moves_nothing() {
    let cluster = Cluster::start(1).await;
    let address = cluster.place(1).client;
    create(&address, "orders", 2).await;
    create(&address, "dead", 1).await;
    publish(&address, "orders", Some(0), &["a", "b"]).await;
    publish(&address, "orders", Some(1), &["c"]).await;
    subscribe(&address, "billing", "orders", "dead").await;
    let taken = pull_all(&address, "billing", 3).await;
    acknowledge(&address, "billing", ids(&taken)).await;

    let at = |partition, start: Option<Position>| v1::PartitionPosition {
        partition,
        start: start.map(|position| v1::Position { position: Some(position) }),
    };
    let empty = v1::SeekSubscriptionRequest { name: "billing".to_owned(), ..Default::default() };
    let with = |partitions| v1::SeekSubscriptionRequest { partitions, ..empty.clone() };
    let unknown = v1::SeekSubscriptionRequest { position: Some(v1::Position { position: None }), ..empty.clone() };
    let long = v1::SeekSubscriptionRequest { request_id: "x".repeat(129), ..empty.clone() };
    let first = || Some(Position::Offset(0));
    for (request, reason, field, value) in [
        (empty.clone(), "INVALID_ARGUMENT", "position", ""),
        (unknown, "INVALID_POSITION", "position", ""),
        // There in one partition, and not in the other.
        (to("billing", Position::Offset(2), ""), "OFFSET_OUT_OF_RANGE", "position.offset", "2"),
        (with(vec![at(0, first()), at(2, first())]), "PARTITION_NOT_FOUND", "", ""),
        (with(vec![at(1, first()), at(1, None)]), "INVALID_ARGUMENT", "partitions.partition", "1"),
        (with(vec![at(0, first()), at(1, None)]), "INVALID_ARGUMENT", "position", ""),
        (long, "INVALID_ARGUMENT", "request_id", "129"),
        (to("nobody", Position::Offset(0), ""), "SUBSCRIPTION_NOT_FOUND", "", ""),
    ] {
        let (_, found, facts) = refusal(&seek(&address, &request).await.unwrap_err());
        let fact = |key: &str| facts.get(key).map_or("", String::as_str);
        assert_eq!((found.as_str(), fact("field"), fact("value")), (reason, field, value), "{facts:?}");
    }
    assert!(status(&address, "billing").await.iter().all(|told| told.backlog_messages == 0), "nothing was moved");
    cluster.stop().await;
}

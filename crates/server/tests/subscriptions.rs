//! Subscriptions as a resource: made, looked up, changed, deleted; where each begins; what can't be.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod nodes;

use std::collections::BTreeMap;

use nodes::{Cluster, PATIENCE, create, position, publish, refusal};
use quorate_model::ClusterMap;
use quorate_proto::internal::WatchMapRequest;
use quorate_proto::internal::node_service_client::NodeServiceClient;
use quorate_proto::v1;
use quorate_proto::v1::position::{Earliest, Latest, Position};
use quorate_proto::v1::retry_policy::{Backoff, Exponential, Fixed, Linear};
use tonic::{Code, Status};

fn subscription(name: &str, topic: &str) -> v1::Subscription {
    v1::Subscription { name: name.to_owned(), topic: topic.to_owned(), ..Default::default() }
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

fn dead_letters(topic: &str) -> Option<v1::DeadLetterPolicy> {
    Some(v1::DeadLetterPolicy { topic: topic.to_owned(), max_delivery_attempts: None })
}

async fn subscribe(
    address: &str,
    subscription: v1::Subscription,
    start: Option<v1::Position>,
) -> Result<v1::Subscription, Status> {
    let request = v1::CreateSubscriptionRequest { subscription: Some(subscription), start, request_id: String::new() };
    let response = nodes::subscriptions(address).await.create_subscription(request).await?;
    Ok(response.into_inner().subscription.unwrap())
}

async fn change(address: &str, subscription: v1::Subscription, paths: &[&str]) -> Result<v1::Subscription, Status> {
    let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
    let update_mask = Some(prost_types::FieldMask { paths });
    let request = v1::UpdateSubscriptionRequest { subscription: Some(subscription), update_mask, ..Default::default() };
    let response = nodes::subscriptions(address).await.update_subscription(request).await?;
    Ok(response.into_inner().subscription.unwrap())
}

async fn get(address: &str, name: &str) -> Result<v1::Subscription, Status> {
    let request = v1::GetSubscriptionRequest { name: name.to_owned(), without_status: true };
    Ok(nodes::subscriptions(address).await.get_subscription(request).await?.into_inner().subscription.unwrap())
}

/// The names of a list, page by page.
async fn names(address: &str, topic: &str, page_size: u32) -> Vec<String> {
    let mut client = nodes::subscriptions(address).await;
    let mut request = v1::ListSubscriptionsRequest { topic: topic.to_owned(), page_size, page_token: String::new() };
    let mut names = Vec::new();
    loop {
        let page = client.list_subscriptions(request.clone()).await.unwrap().into_inner();
        assert!(page_size == 0 || page.subscriptions.len() <= page_size as usize);
        names.extend(page.subscriptions.into_iter().map(|subscription| subscription.name));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return names;
        }
    }
}

/// Where a subscription begins, in each partition: what nodes tell each other.
async fn starts(cluster: &Cluster, node: u64, name: &str) -> Vec<u64> {
    let peer = format!("http://{}", cluster.place(node).peer);
    let watch = async {
        let mut client = NodeServiceClient::connect(peer).await.unwrap();
        let mut maps = client.watch_map(WatchMapRequest {}).await.unwrap().into_inner();
        while let Some(response) = maps.message().await.unwrap() {
            let map = ClusterMap::decode(&response.cluster_map).unwrap();
            if let Some(found) = map.subscription(name) {
                return found.start.iter().map(|offset| offset.get()).collect();
            }
        }
        panic!("the map's stream ended");
    };
    tokio::time::timeout(PATIENCE, watch).await.expect("the map shows the subscription")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_lives_from_creation_to_deletion() {
    let cluster = Cluster::start(1).await;
    let address = cluster.place(1).client;
    create(&address, "books", 2).await;
    create(&address, "films", 1).await;
    create(&address, "dead", 1).await;
    let mut client = nodes::subscriptions(&address).await;

    // Created: with defaults.
    let request = v1::CreateSubscriptionRequest {
        subscription: Some(subscription("billing", "books")),
        start: None,
        request_id: "first".to_owned(),
    };
    let created = client.create_subscription(request.clone()).await.unwrap().into_inner().subscription.unwrap();
    assert_eq!((created.topic.as_str(), created.ack_deadline), ("books", seconds(30)));
    let exponential = Exponential { minimum: seconds(1), maximum: seconds(600), jitter_percent: Some(20) };
    assert_eq!(created.retry_policy, Some(v1::RetryPolicy { backoff: Some(Backoff::Exponential(exponential)) }));
    assert_eq!((&created.dead_letter_policy, created.ordered), (&None, false));
    // Again with the same request id: the same subscription, which begins where it did.
    let before = starts(&cluster, 1, "billing").await;
    publish(&address, "books", Some(1), &["a", "b"]).await;
    let again = client.create_subscription(request).await.unwrap().into_inner().subscription.unwrap();
    assert_eq!(again, created);
    assert_eq!(starts(&cluster, 1, "billing").await, before);
    let taken = subscribe(&address, subscription("billing", "films"), None).await.unwrap_err();
    assert_eq!((taken.code(), refusal(&taken).1.as_str()), (Code::AlreadyExists, "SUBSCRIPTION_EXISTS"));

    // Updated: only what the mask names, and only from the version that was read.
    let labels = BTreeMap::from([("team".to_owned(), "blue".to_owned())]);
    let wanted = v1::Subscription {
        labels: labels.clone(),
        ack_deadline: seconds(60),
        dead_letter_policy: dead_letters("dead"),
        ..created.clone()
    };
    let changed = change(&address, wanted.clone(), &["labels", "dead_letter_policy"]).await.unwrap();
    assert_eq!((&changed.labels, changed.ack_deadline), (&labels, seconds(30)));
    let policy = v1::DeadLetterPolicy { topic: "dead".to_owned(), max_delivery_attempts: Some(5) };
    assert_eq!(changed.dead_letter_policy, Some(policy));
    assert_eq!(refusal(&change(&address, wanted, &["labels"]).await.unwrap_err()).1, "ETAG_MISMATCH");
    assert_eq!(get(&address, "billing").await.unwrap(), changed);
    // Without a mask, what holds something is meant; a field that is named and empty gets its default.
    let fixed = v1::RetryPolicy { backoff: Some(Backoff::Fixed(Fixed { pause: seconds(5) })) };
    let wanted = v1::Subscription { retry_policy: Some(fixed.clone()), ..subscription("billing", "") };
    let changed = change(&address, wanted, &[]).await.unwrap();
    assert_eq!((changed.retry_policy, &changed.labels), (Some(fixed), &labels));
    assert!(changed.dead_letter_policy.is_some());
    let changed = change(&address, subscription("billing", ""), &["retry_policy", "dead_letter_policy"]).await.unwrap();
    assert_eq!((changed.retry_policy, changed.dead_letter_policy), (created.retry_policy, None));

    // Listed: in pages, in the order of names, of all topics or of one.
    for (name, topic) in [("archive", "books"), ("search", "films"), ("zoo", "books")] {
        subscribe(&address, subscription(name, topic), None).await.unwrap();
    }
    assert_eq!(names(&address, "", 3).await, ["archive", "billing", "search", "zoo"]);
    assert_eq!(names(&address, "books", 1).await, ["archive", "billing", "zoo"]);
    assert_eq!(names(&address, "dead", 0).await, Vec::<String>::new());

    // Deleted: its name is free again, and its id isn't.
    let request = v1::DeleteSubscriptionRequest { name: "billing".to_owned(), request_id: "gone".to_owned() };
    client.delete_subscription(request.clone()).await.unwrap();
    assert_eq!(refusal(&get(&address, "billing").await.unwrap_err()).1, "SUBSCRIPTION_NOT_FOUND");
    let remade = subscribe(&address, subscription("billing", "films"), None).await.unwrap();
    assert!(remade.subscription_id > created.subscription_id);
    client.delete_subscription(request).await.unwrap();
    assert_eq!(get(&address, "billing").await.unwrap(), remade, "the same request again, and not another one");

    // A topic takes its subscriptions with it, but not one that others send their dead letters to.
    let wanted = v1::Subscription { dead_letter_policy: dead_letters("dead"), ..subscription("zoo", "") };
    change(&address, wanted, &["dead_letter_policy"]).await.unwrap();
    let mut topics = nodes::topics(&address).await;
    let mut delete = async |name: &str| {
        topics.delete_topic(v1::DeleteTopicRequest { name: name.to_owned(), ..Default::default() }).await
    };
    let (code, reason, facts) = refusal(&delete("dead").await.unwrap_err());
    assert_eq!(
        (code, reason.as_str(), facts["subscription"].as_str()),
        (Code::FailedPrecondition, "TOPIC_IN_USE", "zoo")
    );
    delete("books").await.unwrap();
    delete("dead").await.unwrap();
    // Whoever is answered by this node after a change of its own sees all that was changed before.
    subscribe(&address, subscription("last", "films"), None).await.unwrap();
    assert_eq!(names(&address, "", 0).await, ["billing", "last", "search"]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_begins_where_it_was_asked_to() {
    let cluster = Cluster::start(3).await;
    let first = cluster.place(1).client;
    create(&first, "books", 2).await;
    publish(&first, "books", Some(0), &["a", "b", "c"]).await;
    publish(&first, "books", Some(1), &["d"]).await;
    let time = |seconds| Position::Time(prost_types::Timestamp { seconds, nanos: 0 });
    let cases = [
        (None, [3, 1]),
        (position(Position::Latest(Latest {})), [3, 1]),
        (position(Position::Earliest(Earliest {})), [0, 0]),
        (position(Position::Offset(1)), [1, 1]),
        (position(Position::Last(2)), [1, 0]),
        (position(Position::Last(0)), [3, 1]),
        (position(time(0)), [0, 0]),
        (position(time(1 << 40)), [3, 1]),
    ];
    // At every node, so that most partitions' leaders are elsewhere.
    for place in &cluster.places {
        for (number, (start, expected)) in cases.iter().enumerate() {
            let name = format!("case-{number}-at-{}", place.id);
            subscribe(&place.client, subscription(&name, "books"), *start).await.unwrap();
            assert_eq!(starts(&cluster, place.id, &name).await, expected, "{name}: {start:?}");
        }
        let beyond = subscribe(&place.client, subscription("beyond", "books"), position(Position::Offset(2))).await;
        let (code, reason, facts) = refusal(&beyond.unwrap_err());
        assert_eq!((code, reason.as_str()), (Code::OutOfRange, "OFFSET_OUT_OF_RANGE"));
        let fact = |key: &str| facts[key].as_str();
        assert_eq!((fact("field"), fact("value"), fact("topic")), ("start.offset", "2", "books"));
        assert_eq!((fact("partition"), fact("log_start_offset"), fact("end_offset")), ("1", "0", "1"));
    }

    // Whatever is acknowledged before is left out, and whatever is published after the answer isn't.
    for round in 0..10_u64 {
        let place = &cluster.places[round as usize % 3];
        let name = format!("round-{round}");
        let sent = publish(&first, "books", Some(0), &["before"]).await;
        subscribe(&place.client, subscription(&name, "books"), None).await.unwrap();
        assert_eq!(starts(&cluster, place.id, &name).await[0], sent[0].offset + 1);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_without_a_leader_makes_a_create_fail_and_not_lose_messages() {
    let mut cluster = Cluster::start(3).await;
    let first = cluster.place(1).client;
    // One copy of each partition, on three nodes.
    let topic = v1::Topic {
        name: "books".to_owned(),
        partitions: Some(3),
        replication_factor: Some(1),
        ..v1::Topic::default()
    };
    let request = v1::CreateTopicRequest { topic: Some(topic), request_id: String::new() };
    nodes::topics(&first).await.create_topic(request).await.unwrap();
    let request = v1::GetTopicRequest { name: "books".to_owned() };
    let status = nodes::topics(&first).await.get_topic(request).await.unwrap().into_inner().topic.unwrap();
    let down = status.partition_status.iter().map(|it| it.replica_node_ids[0]).find(|node| *node != 1).unwrap();
    cluster.stop_node(down).await;

    let refused = subscribe(&first, subscription("billing", "books"), None).await.unwrap_err();
    let (code, reason, facts) = refusal(&refused);
    assert_eq!((code, reason.as_str(), facts["executed"].as_str()), (Code::Unavailable, "NO_LEADER", "no"));
    assert_eq!(names(&first, "", 0).await, Vec::<String>::new());

    cluster.start_node(down).await;
    nodes::ready(&cluster.place(down).client).await;
    let made = async {
        loop {
            match subscribe(&first, subscription("billing", "books"), None).await {
                Ok(made) => return made,
                Err(status) => assert_eq!(refusal(&status).1, "NO_LEADER"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, made).await.expect("every partition is led again");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_that_cannot_be_are_refused() {
    let cluster = Cluster::start(1).await;
    let address = cluster.place(1).client;
    create(&address, "books", 1).await;
    create(&address, "dead", 1).await;
    let sound = || subscription("billing", "books");
    let retry = |backoff| v1::Subscription { retry_policy: Some(v1::RetryPolicy { backoff }), ..sound() };
    let dying = |topic: &str, attempts| {
        let policy = v1::DeadLetterPolicy { topic: topic.to_owned(), max_delivery_attempts: Some(attempts) };
        v1::Subscription { dead_letter_policy: Some(policy), ..sound() }
    };
    let acking =
        |seconds, nanos| v1::Subscription { ack_deadline: Some(prost_types::Duration { seconds, nanos }), ..sound() };
    let many = (0..65).map(|n| (format!("label-{n}"), String::new())).collect::<BTreeMap<_, _>>();
    let linear = |first, step, maximum| Some(Backoff::Linear(Linear { first, step, maximum }));
    // Reason, field, value, limit.
    let cases = [
        (subscription("", "books"), ["INVALID_NAME", "name", "", "249"]),
        (subscription("_system", "books"), ["RESERVED_NAME", "name", "_system", ""]),
        (subscription("no spaces", "books"), ["INVALID_NAME", "name", "no spaces", ""]),
        (subscription(&"n".repeat(250), "books"), ["INVALID_NAME", "name", "250", "249"]),
        (subscription("billing", ""), ["INVALID_NAME", "topic", "", "249"]),
        (subscription("billing", "films"), ["TOPIC_NOT_FOUND", "topic", "", ""]),
        (acking(0, 999_000_000), ["INVALID_ARGUMENT", "ack_deadline", "999", "1000"]),
        (acking(43_200, 1_000_000), ["INVALID_ARGUMENT", "ack_deadline", "43200001", "43200000"]),
        (acking(-1, 0), ["INVALID_ARGUMENT", "ack_deadline", "-1 s 0 ns", ""]),
        (retry(None), ["INVALID_ARGUMENT", "retry_policy.backoff", "", ""]),
        (retry(linear(seconds(1), None, None)), ["INVALID_ARGUMENT", "retry_policy.linear.step", "", ""]),
        (
            retry(linear(seconds(2), seconds(1), seconds(1))),
            ["INVALID_ARGUMENT", "retry_policy.linear.first", "2000", "1000"],
        ),
        (
            retry(Some(Backoff::Fixed(Fixed { pause: seconds(43_201) }))),
            ["INVALID_ARGUMENT", "retry_policy.fixed.pause", "43201000", "43200000"],
        ),
        (dying("books", 5), ["INVALID_ARGUMENT", "dead_letter_policy.topic", "", ""]),
        (dying("films", 5), ["TOPIC_NOT_FOUND", "dead_letter_policy.topic", "", ""]),
        (dying("", 5), ["INVALID_NAME", "dead_letter_policy.topic", "", "249"]),
        (dying("dead", 0), ["INVALID_ARGUMENT", "dead_letter_policy.max_delivery_attempts", "0", "1"]),
        (dying("dead", 1_001), ["INVALID_ARGUMENT", "dead_letter_policy.max_delivery_attempts", "1001", "1000"]),
        (v1::Subscription { labels: many, ..sound() }, ["INVALID_ARGUMENT", "labels", "65", "64"]),
    ];
    let check = |status: &Status, expected: [&str; 4]| {
        let (_, reason, facts) = refusal(status);
        let fact = |key: &str| facts.get(key).map_or("", String::as_str);
        assert_eq!([reason.as_str(), fact("field"), fact("value"), fact("limit")], expected, "{status:?}");
        assert_eq!(facts["executed"], "no");
    };
    for (wrong, expected) in cases {
        check(&subscribe(&address, wrong, None).await.unwrap_err(), expected);
    }
    // Positions.
    let empty = Some(v1::Position { position: None });
    check(&subscribe(&address, sound(), empty).await.unwrap_err(), ["INVALID_POSITION", "start", "", ""]);
    let before_1970 = position(Position::Time(prost_types::Timestamp { seconds: -1, nanos: 0 }));
    let refused = subscribe(&address, sound(), before_1970).await.unwrap_err();
    check(&refused, ["INVALID_POSITION", "start.time", "-1 s 0 ns", ""]);
    let mut client = nodes::subscriptions(&address).await;
    let request = v1::CreateSubscriptionRequest::default();
    check(&client.create_subscription(request).await.unwrap_err(), ["INVALID_ARGUMENT", "subscription", "", ""]);
    let request =
        v1::CreateSubscriptionRequest { subscription: Some(sound()), start: None, request_id: "r".repeat(129) };
    check(&client.create_subscription(request).await.unwrap_err(), ["INVALID_ARGUMENT", "request_id", "129", "128"]);

    // Changes, and questions.
    subscribe(&address, sound(), None).await.unwrap();
    let refused = change(&address, sound(), &["labels", "topic"]).await.unwrap_err();
    check(&refused, ["INVALID_ARGUMENT", "update_mask", "topic", ""]);
    check(
        &change(&address, dying("books", 5), &[]).await.unwrap_err(),
        ["INVALID_ARGUMENT", "dead_letter_policy.topic", "", ""],
    );
    let etag = v1::Subscription { etag: "yesterday".to_owned(), ..acking(2, 0) };
    check(&change(&address, etag, &[]).await.unwrap_err(), ["INVALID_ARGUMENT", "subscription.etag", "yesterday", ""]);
    let missing = change(&address, v1::Subscription { name: "nobody".to_owned(), ..acking(2, 0) }, &[]).await;
    check(&missing.unwrap_err(), ["SUBSCRIPTION_NOT_FOUND", "", "", ""]);
    check(&get(&address, "nobody").await.unwrap_err(), ["SUBSCRIPTION_NOT_FOUND", "", "", ""]);
    let mut list = async |topic: &str, page_size, page_token: &str| {
        let (topic, page_token) = (topic.to_owned(), page_token.to_owned());
        client.list_subscriptions(v1::ListSubscriptionsRequest { topic, page_size, page_token }).await.unwrap_err()
    };
    check(&list("films", 0, "").await, ["TOPIC_NOT_FOUND", "topic", "", ""]);
    check(&list("", 1_001, "").await, ["INVALID_ARGUMENT", "page_size", "1001", ""]);
    let (_, reason, facts) = refusal(&list("", 0, "made up").await);
    assert_eq!((reason.as_str(), facts["field"].as_str()), ("INVALID_PAGE_TOKEN", "page_token"));

    // Nothing of all this left a trace.
    assert_eq!(names(&address, "", 0).await, ["billing"]);
    assert_eq!(get(&address, "billing").await.unwrap().ack_deadline, seconds(30));
    cluster.stop().await;
}

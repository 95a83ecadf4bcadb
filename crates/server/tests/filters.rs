//! Filters of subscriptions: what comes and what doesn't, what a change counts for, what can't be a filter, trials.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod nodes;

use std::collections::{BTreeMap, BTreeSet};

use nodes::stream::{Stream, ids, texts};
use nodes::{Cluster, create, position, refusal};
use quorate_proto::v1;
use quorate_proto::v1::position::{Earliest, Position};
use quorate_proto::v1::subscribe_request::Request;
use quorate_proto::v1::test_filter_request::Source;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::{Code, Status};

/// A message with one attribute, or none.
fn message(text: &str, kind: Option<&str>, ordering_key: &str) -> v1::Message {
    let attributes = kind.map(|kind| ("kind".to_owned(), kind.to_owned()));
    v1::Message {
        data: text.to_owned().into(),
        attributes: attributes.into_iter().collect(),
        ordering_key: ordering_key.to_owned(),
        ..Default::default()
    }
}

async fn publish(address: &str, topic: &str, messages: Vec<v1::Message>) {
    let request = v1::PublishRequest { topic: topic.to_owned(), partition: None, messages };
    for result in nodes::publisher(address).await.publish(request).await.unwrap().into_inner().results {
        nodes::published(result).unwrap();
    }
}

/// A subscription to what the topic holds and the filter matches. Retries come at once.
fn subscription(name: &str, topic: &str, filter: &str) -> v1::Subscription {
    v1::Subscription {
        name: name.to_owned(),
        topic: topic.to_owned(),
        filter: filter.to_owned(),
        retry_policy: Some(v1::RetryPolicy { backoff: Some(v1::retry_policy::Backoff::Immediate(Default::default())) }),
        ..Default::default()
    }
}

async fn subscribe(address: &str, subscription: v1::Subscription) -> Result<v1::Subscription, Status> {
    let request = v1::CreateSubscriptionRequest {
        subscription: Some(subscription),
        start: position(Position::Earliest(Earliest {})),
        request_id: String::new(),
    };
    let response = nodes::subscriptions(address).await.create_subscription(request).await?;
    Ok(response.into_inner().subscription.unwrap())
}

async fn change(address: &str, name: &str, filter: &str) -> Result<v1::Subscription, Status> {
    let request = v1::UpdateSubscriptionRequest {
        subscription: Some(subscription(name, "", filter)),
        update_mask: Some(prost_types::FieldMask { paths: vec!["filter".to_owned()] }),
        ..Default::default()
    };
    let response = nodes::subscriptions(address).await.update_subscription(request).await?;
    Ok(response.into_inner().subscription.unwrap())
}

async fn test(address: &str, source: Source, filter: &str, last: u32) -> Result<v1::TestFilterResponse, Status> {
    let request = v1::TestFilterRequest { source: Some(source), filter: filter.to_owned(), last };
    Ok(nodes::subscriptions(address).await.test_filter(request).await?.into_inner())
}

fn text(delivery: &v1::Delivery) -> String {
    String::from_utf8(delivery.message.as_ref().unwrap().message.as_ref().unwrap().data.to_vec()).unwrap()
}

async fn acknowledge(stream: &Stream, deliveries: &[v1::Delivery]) {
    stream.say(Request::Ack(v1::Ack { ack_ids: ids(deliveries) })).await;
}

/// Takes and acknowledges one after another until `last` came.
async fn until(stream: &mut Stream, last: &str) -> Vec<String> {
    let mut came = Vec::new();
    while came.last().is_none_or(|text| text != last) {
        let deliveries = stream.deliveries().await;
        acknowledge(stream, &deliveries).await;
        came.extend(deliveries.iter().map(text));
    }
    came
}

#[tokio::test(flavor = "multi_thread")]
async fn one_subscription_gets_what_it_wants_and_another_gets_everything() {
    let mut cluster = Cluster::start(3).await;
    let address = cluster.place(1).client;
    create(&address, "orders", 3).await;
    subscribe(&address, subscription("all", "orders", "")).await.unwrap();
    subscribe(&address, subscription("eu", "orders", r#"attributes["kind"] == "eu""#)).await.unwrap();
    let kinds = [Some("eu"), Some("us"), None];
    let orders = (0..60).map(|number| message(&format!("order {number}"), kinds[number % 3], &number.to_string()));
    publish(&address, "orders", orders.collect()).await;

    let mut all = Stream::open(&address, "all", 100).await;
    assert_eq!(texts(&all.at_least(60).await).len(), 60);
    let wanted: BTreeSet<String> = (0..60).step_by(3).map(|number| format!("order {number}")).collect();
    let mut eu = Stream::open(&address, "eu", 100).await;
    let some = eu.at_least(20).await;
    assert_eq!(texts(&some), wanted);
    // Whoever leads after a failure wants the same.
    acknowledge(&eu, &some[..10]).await;
    cluster.stop_node(2).await;
    cluster.start_node(2).await;
    publish(&address, "orders", vec![message("the last", Some("eu"), "0"), message("another", Some("us"), "0")]).await;
    drop(eu);
    let mut again = Stream::open(&address, "eu", 100).await;
    let mut came = BTreeSet::new();
    while !came.contains("the last") || !some[10..].iter().all(|delivery| came.contains(&text(delivery))) {
        let deliveries = again.deliveries().await;
        acknowledge(&again, &deliveries).await;
        came.append(&mut texts(&deliveries));
    }
    came.remove("the last");
    assert!(came.is_subset(&wanted), "{came:?}");
    drop((all, again));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_skipped_messages_cost_no_credit() {
    let mut cluster = Cluster::prepare(1);
    let node = cluster.try_start(1, &["listen.metrics=127.0.0.1:0"]).await.unwrap();
    let metrics = node.addresses().metrics.clone().unwrap();
    cluster.nodes.insert(1, node);
    let address = cluster.place(1).client;
    nodes::ready(&address).await;
    create(&address, "readings", 1).await;
    for thousand in 0..5 {
        let mut readings: Vec<_> = (1..2_000).map(|_| message("usual", Some("usual"), "")).collect();
        readings.push(message(&format!("rare {thousand}"), Some("rare"), ""));
        publish(&address, "readings", readings).await;
    }
    publish(&address, "readings", vec![message("nothing known", None, "")]).await;
    subscribe(&address, subscription("alarms", "readings", "attributes.kind == 'rare'")).await.unwrap();
    let mut stream = Stream::open(&address, "alarms", 1).await;
    for number in 0..5 {
        let deliveries = stream.deliveries().await;
        assert_eq!(deliveries.iter().map(text).collect::<Vec<_>>(), [format!("rare {number}")]);
        acknowledge(&stream, &deliveries).await;
        stream.say(Request::Credit(v1::Credit { messages: 1, bytes: 1 << 20 })).await;
    }

    // All of them were counted; the one that the filter fails for too.
    let expected = [
        "quorate_filtered_messages_total{outcome=\"failed\",subscription=\"alarms\"} 1\n",
        "quorate_filtered_messages_total{outcome=\"skipped\",subscription=\"alarms\"} 9995\n",
    ];
    let counted = async {
        loop {
            let mut connection = tokio::net::TcpStream::connect(&metrics).await.unwrap();
            connection.write_all(b"GET /metrics HTTP/1.1\r\nhost: n\r\nconnection: close\r\n\r\n").await.unwrap();
            let mut text = String::new();
            connection.read_to_string(&mut text).await.unwrap();
            if expected.iter().all(|line| text.contains(line)) {
                return;
            }
        }
    };
    tokio::time::timeout(nodes::PATIENCE, counted).await.expect("all are counted");
    drop(stream);
    cluster.stop().await;
}

/// The keys' order, returned messages and filters together; and a change in the middle of a line of one key that is
/// longer than what is kept of it in memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_counts_for_what_was_not_come_to() {
    let cluster = Cluster::start(1).await;
    let address = cluster.place(1).client;
    create(&address, "orders", 1).await;
    let ordered = v1::Subscription { ordered: true, ..subscription("tea", "orders", "attributes.kind == 'tea'") };
    subscribe(&address, ordered).await.unwrap();
    let line = |from: usize, to: usize| {
        let numbers = from..to;
        numbers.flat_map(|number| ["tea", "coffee"].map(|kind| message(&format!("{kind} {number}"), Some(kind), "k")))
    };
    publish(&address, "orders", line(0, 400).collect()).await;

    // Returned before the others of its key: it comes again first, and no coffee between them.
    let mut stream = Stream::open(&address, "tea", 1).await;
    let first = stream.deliveries().await;
    assert_eq!(first.iter().map(text).collect::<Vec<_>>(), ["tea 0"]);
    stream.say(Request::Nack(v1::Nack { ack_ids: ids(&first), ..Default::default() })).await;
    stream.say(Request::Credit(v1::Credit { messages: 1_000, bytes: 1 << 20 })).await;
    let second = stream.deliveries().await;
    assert_eq!((text(&second[0]), second[0].delivery_attempt), ("tea 0".to_owned(), 2));

    // What waits behind it goes on under the new filter, though most of it is read again from the log. What was passed
    // over doesn't come back.
    change(&address, "tea", "attributes.kind == 'coffee'").await.unwrap();
    publish(&address, "orders", line(400, 410).collect()).await;
    acknowledge(&stream, &second).await;
    let mut came: Vec<String> = second.iter().map(text).collect();
    came.append(&mut until(&mut stream, "coffee 409").await);
    let tea = (0..400).map(|number| format!("tea {number}"));
    let expected: Vec<String> = tea.chain((400..410).map(|number| format!("coffee {number}"))).collect();
    assert_eq!(came, expected);

    // Without a filter everything comes again.
    let cleared = change(&address, "tea", "").await.unwrap();
    assert_eq!(cleared.filter, "");
    publish(&address, "orders", line(410, 411).collect()).await;
    assert_eq!(until(&mut stream, "coffee 410").await, ["tea 410", "coffee 410"]);
    drop(stream);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_is_shown_and_a_wrong_one_is_refused() {
    let cluster = Cluster::start(1).await;
    let address = cluster.place(1).client;
    create(&address, "orders", 1).await;
    let made = subscribe(&address, subscription("large", "orders", "size > 9")).await.unwrap();
    assert_eq!(made.filter, "size > 9");
    let changed = change(&address, "large", "size > 99").await.unwrap();
    assert_ne!(changed.etag, made.etag);
    let request = v1::GetSubscriptionRequest { name: "large".to_owned(), without_status: true };
    let got = nodes::subscriptions(&address).await.get_subscription(request).await.unwrap().into_inner();
    assert_eq!(got.subscription, Some(changed));

    let wrong = |filter: &str| subscription("wrong", "orders", filter);
    let created = subscribe(&address, wrong("sise > 9")).await.unwrap_err();
    let updated = change(&address, "large", "sise > 9").await.unwrap_err();
    let tested = test(&address, Source::Topic("orders".to_owned()), "sise > 9", 0).await.unwrap_err();
    for status in [created, updated, tested] {
        let (code, reason, facts) = refusal(&status);
        assert_eq!((code, reason.as_str()), (Code::InvalidArgument, "INVALID_FILTER"));
        assert!(status.message().starts_with("filter, line 1, column 1: there is no variable \"sise\""), "{status}");
        let place = ["field", "line", "column"].map(|fact| facts[fact].as_str());
        assert_eq!(place, ["filter", "1", "1"]);
    }
    let long = format!("topic != '{}'", "x".repeat(1_024));
    let (_, _, facts) = refusal(&subscribe(&address, wrong(&long)).await.unwrap_err());
    assert_eq!((facts["value"].as_str(), facts["limit"].as_str()), ("1035", "1024"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_counts_and_leaves_no_trace() {
    let cluster = Cluster::start(3).await;
    let address = cluster.place(1).client;
    create(&address, "orders", 4).await;
    let kinds = [Some("eu"), Some("us"), Some("eu"), None];
    let orders = (0..400).map(|number| message("data", kinds[number % 4], &number.to_string()));
    publish(&address, "orders", orders.collect()).await;
    subscribe(&address, subscription("eu", "orders", "attributes.kind == 'eu'")).await.unwrap();

    let topic = || Source::Topic("orders".to_owned());
    let tested = test(&address, topic(), "attributes.kind == 'eu'", 1_000).await.unwrap();
    assert_eq!((tested.tested, tested.matched, tested.failed), (400, 200, 100));
    assert_eq!(tested.failure.unwrap().error, "No such key: kind");
    assert_eq!(tested.matches.len(), 10);
    for shown in &tested.matches {
        let message = shown.message.as_ref().unwrap();
        assert_eq!(message.attributes, BTreeMap::from([("kind".to_owned(), "eu".to_owned())]));
        assert!(message.data.is_empty(), "the data isn't shown");
    }
    // By its subscription, with its own filter or another; of each partition as many.
    let own = test(&address, Source::Subscription("eu".to_owned()), "", 1_000).await.unwrap();
    assert_eq!((own.tested, own.matched), (400, 200));
    let other = test(&address, Source::Subscription("eu".to_owned()), "true", 10).await.unwrap();
    assert_eq!((other.tested, other.matched), (12, 12));
    let default = test(&address, topic(), "size == 4", 0).await.unwrap();
    assert_eq!((default.tested, default.matched), (100, 100));

    // The subscription hasn't come to anything by that.
    let mut stream = Stream::open(&address, "eu", 1_000).await;
    let deliveries = stream.at_least(200).await;
    assert!(deliveries.iter().all(|delivery| delivery.delivery_attempt == 1));

    let (_, _, facts) = refusal(&test(&address, topic(), "true", 1_001).await.unwrap_err());
    assert_eq!((facts["field"].as_str(), facts["value"].as_str()), ("last", "1001"));
    let (_, _, facts) = refusal(&test(&address, topic(), "", 1).await.unwrap_err());
    assert_eq!(facts["field"], "filter");
    let unknown = test(&address, Source::Subscription("nobody".to_owned()), "", 1).await.unwrap_err();
    assert_eq!(refusal(&unknown).1, "SUBSCRIPTION_NOT_FOUND");
    let unknown = test(&address, Source::Topic("nothing".to_owned()), "true", 1).await.unwrap_err();
    assert_eq!(refusal(&unknown).1, "TOPIC_NOT_FOUND");
    drop(stream);
    cluster.stop().await;
}

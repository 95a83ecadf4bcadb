//! Bad input, case by case: each is refused with its reason, says what was wrong, and changes nothing.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod nodes;

use std::collections::BTreeMap;

use nodes::{Cluster, create, message, position, publish, published, read_from, refusal};
use quorate_proto::v1;
use quorate_proto::v1::position::Position;
use tonic::{Code, Status};

/// What a caller should be told: code, reason, and facts among those given.
struct Expected(&'static str, Code, &'static str, &'static [(&'static str, &'static str)]);

fn check(Expected(case, code, reason, facts): &Expected, status: &Status) {
    let (actual_code, actual_reason, actual_facts) = refusal(status);
    assert_eq!((actual_code, actual_reason.as_str()), (*code, *reason), "{case}: {status:?}");
    for (key, value) in *facts {
        assert_eq!(actual_facts.get(*key).map(String::as_str), Some(*value), "{case}, {key}: {actual_facts:?}");
    }
}

fn topic(name: &str) -> v1::Topic {
    v1::Topic { name: name.to_owned(), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_that_cannot_be_are_refused() {
    let cluster = Cluster::start(1).await;
    let address = cluster.place(1).client;
    let mut topics = nodes::topics(&address).await;
    create(&address, "books", 1).await;
    let invalid = Code::InvalidArgument;
    let many = (0..65).map(|n| (format!("label-{n}"), String::new())).collect::<BTreeMap<_, _>>();
    let cases = [
        (topic(""), Expected("empty name", invalid, "INVALID_NAME", &[("field", "name"), ("limit", "249")])),
        (
            topic(&"n".repeat(250)),
            Expected("long name", invalid, "INVALID_NAME", &[("field", "name"), ("value", "250"), ("limit", "249")]),
        ),
        (topic("no spaces"), Expected("characters", invalid, "INVALID_NAME", &[("value", "no spaces")])),
        (topic("_system"), Expected("reserved", invalid, "RESERVED_NAME", &[("value", "_system")])),
        (topic("books"), Expected("duplicate", Code::AlreadyExists, "TOPIC_EXISTS", &[("topic", "books")])),
        (
            v1::Topic { partitions: Some(0), ..topic("t") },
            Expected("no partitions", invalid, "INVALID_ARGUMENT", &[("field", "partitions"), ("value", "0")]),
        ),
        (
            v1::Topic { partitions: Some(1_001), ..topic("t") },
            Expected("partitions", invalid, "TOO_MANY_PARTITIONS", &[("value", "1001"), ("limit", "1000")]),
        ),
        (
            v1::Topic { replication_factor: Some(2), ..topic("t") },
            Expected(
                "replication factor",
                Code::FailedPrecondition,
                "REPLICATION_FACTOR_TOO_HIGH",
                &[("value", "2"), ("limit", "1")],
            ),
        ),
        (
            v1::Topic { max_message_bytes: (16 << 20) + 1, ..topic("t") },
            Expected("message size", invalid, "INVALID_ARGUMENT", &[("value", "16777217"), ("limit", "16777216")]),
        ),
        (
            v1::Topic { labels: many, ..topic("t") },
            Expected("labels", invalid, "INVALID_ARGUMENT", &[("field", "labels"), ("value", "65"), ("limit", "64")]),
        ),
    ];
    for (topic, expected) in cases {
        let request = v1::CreateTopicRequest { topic: Some(topic), request_id: String::new() };
        check(&expected, &topics.create_topic(request).await.unwrap_err());
    }

    let missing = Expected("unknown topic", Code::NotFound, "TOPIC_NOT_FOUND", &[("topic", "films")]);
    let name = "films".to_owned();
    check(&missing, &topics.get_topic(v1::GetTopicRequest { name: name.clone() }).await.unwrap_err());
    check(&missing, &topics.delete_topic(v1::DeleteTopicRequest { name, ..Default::default() }).await.unwrap_err());
    let request = v1::UpdateTopicRequest { topic: Some(topic("films")), update_mask: None, ..Default::default() };
    check(&missing, &topics.update_topic(request).await.unwrap_err());
    let paths = vec!["partitions".to_owned()];
    let request = v1::UpdateTopicRequest {
        topic: Some(topic("books")),
        update_mask: Some(prost_types::FieldMask { paths }),
        ..Default::default()
    };
    let expected =
        Expected("field mask", invalid, "INVALID_ARGUMENT", &[("field", "update_mask"), ("value", "partitions")]);
    check(&expected, &topics.update_topic(request).await.unwrap_err());
    let request = v1::ListTopicsRequest { page_size: 0, page_token: "made up".to_owned() };
    let expected = Expected("page token", invalid, "INVALID_PAGE_TOKEN", &[("field", "page_token")]);
    check(&expected, &topics.list_topics(request).await.unwrap_err());

    // Nothing of all this left a trace.
    let all = topics.list_topics(v1::ListTopicsRequest::default()).await.unwrap().into_inner().topics;
    assert_eq!(all.iter().map(|topic| topic.name.as_str()).collect::<Vec<_>>(), ["books"]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_cannot_be_published_are_refused_whole() {
    let cluster = Cluster::start(1).await;
    let address = cluster.place(1).client;
    create(&address, "books", 2).await;
    let mut publisher = nodes::publisher(&address).await;
    let request = |topic: &str, partition, count| v1::PublishRequest {
        topic: topic.to_owned(),
        partition,
        messages: vec![message("x"); count],
    };
    let invalid = Code::InvalidArgument;
    let cases = [
        (request("films", None, 1), Expected("topic", Code::NotFound, "TOPIC_NOT_FOUND", &[("topic", "films")])),
        (request("_films", None, 1), Expected("reserved", invalid, "RESERVED_NAME", &[])),
        (request("books", None, 0), Expected("empty", invalid, "EMPTY_BATCH", &[("field", "messages")])),
        (
            request("books", None, 10_001),
            Expected("too many", invalid, "TOO_MANY_MESSAGES", &[("value", "10001"), ("limit", "10000")]),
        ),
        (
            request("books", Some(2), 1),
            Expected("partition", Code::NotFound, "PARTITION_NOT_FOUND", &[("partition", "2"), ("partitions", "2")]),
        ),
    ];
    for (request, expected) in cases {
        check(&expected, &publisher.publish(request).await.unwrap_err());
    }
    assert_eq!(read_from(&address, "books", None).await.unwrap(), []);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cannot_be_published_does_not_hold_up_the_others() {
    let cluster = Cluster::start(1).await;
    let address = cluster.place(1).client;
    create(&address, "books", 1).await;
    let attributes = |count| (0..count).map(|n| (format!("key-{n}"), "value".to_owned())).collect();
    let large = v1::Message { data: vec![0; (1 << 20) + 1].into(), ..Default::default() };
    let at_bound = v1::Message { data: vec![0; 1 << 20].into(), ..Default::default() };
    let cases = [
        (message("good"), None),
        (large, Some(("MESSAGE_TOO_LARGE", "data", "1048577", "1048576"))),
        (
            v1::Message { attributes: attributes(101), ..message("x") },
            Some(("TOO_MANY_ATTRIBUTES", "attributes", "101", "100")),
        ),
        (
            v1::Message { attributes: [("k".repeat(257), String::new())].into(), ..message("x") },
            Some(("INVALID_ATTRIBUTE", "attributes.key", "257", "256")),
        ),
        (
            v1::Message { attributes: [("k".to_owned(), "v".repeat(1_025))].into(), ..message("x") },
            Some(("INVALID_ATTRIBUTE", "attributes.value", "1025", "1024")),
        ),
        (
            v1::Message { ordering_key: "k".repeat(1_025), ..message("x") },
            Some(("INVALID_ORDERING_KEY", "ordering_key", "1025", "1024")),
        ),
        (at_bound, None),
        (v1::Message { attributes: attributes(100), ..message("also good") }, None),
    ];
    let messages = cases.iter().map(|(message, _)| message.clone()).collect();
    let request = v1::PublishRequest { topic: "books".to_owned(), partition: None, messages };
    let results = nodes::publisher(&address).await.publish(request).await.unwrap().into_inner().results;
    assert_eq!(results.len(), cases.len());
    for (position, (result, (_, expected))) in results.into_iter().zip(&cases).enumerate() {
        match (published(result), expected) {
            (Ok(_), None) => {}
            (Err(error), Some((reason, field, value, limit))) => {
                assert_eq!(error.reason, *reason, "{position}");
                assert_eq!(error.code, Code::InvalidArgument as i32, "{position}");
                let facts = ["field", "value", "limit"].map(|key| error.metadata.get(key).map_or("", String::as_str));
                assert_eq!(facts, [*field, *value, *limit], "{position}: {error:?}");
            }
            (outcome, _) => panic!("{position}: {outcome:?}"),
        }
    }
    assert_eq!(read_from(&address, "books", None).await.unwrap().len(), 3);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_that_cannot_be_read_are_refused() {
    let cluster = Cluster::start(1).await;
    let address = cluster.place(1).client;
    create(&address, "books", 1).await;
    publish(&address, "books", None, &["a", "b"]).await;
    let time = |seconds, nanos| Position::Time(prost_types::Timestamp { seconds, nanos });
    let cases = [
        (
            Position::Offset(3),
            Expected(
                "beyond the end",
                Code::OutOfRange,
                "OFFSET_OUT_OF_RANGE",
                &[("value", "3"), ("log_start_offset", "0"), ("end_offset", "2")],
            ),
        ),
        (time(-1, 0), Expected("before 1970", Code::InvalidArgument, "INVALID_POSITION", &[("field", "start.time")])),
        (time(0, 1_000_000_000), Expected("nanoseconds", Code::InvalidArgument, "INVALID_POSITION", &[])),
    ];
    for (start, expected) in cases {
        check(&expected, &read_from(&address, "books", position(start)).await.unwrap_err());
    }

    let mut reader = nodes::reader(&address).await;
    let named = |partitions: &[u32]| v1::ReadRequest {
        topic: "books".to_owned(),
        partitions: partitions.iter().map(|&partition| v1::PartitionPosition { partition, start: None }).collect(),
        ..Default::default()
    };
    let expected = Expected("partition", Code::NotFound, "PARTITION_NOT_FOUND", &[("partition", "7")]);
    check(&expected, &reader.read(named(&[7])).await.unwrap_err());
    let expected = Expected("twice", Code::InvalidArgument, "INVALID_ARGUMENT", &[("field", "partitions[1]")]);
    check(&expected, &reader.read(named(&[0, 0])).await.unwrap_err());
    let expected = Expected("topic", Code::NotFound, "TOPIC_NOT_FOUND", &[("topic", "films")]);
    check(&expected, &read_from(&address, "films", None).await.unwrap_err());
    cluster.stop().await;
}

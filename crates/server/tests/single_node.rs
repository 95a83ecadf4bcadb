//! One node, from topic to message and back.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod nodes;

use std::collections::BTreeMap;
use std::time::Duration;

use nodes::{Cluster, create, message, position, publish, published, read_from, refusal, texts};
use quorate_model::{Codec, PartitionId, ProducerId, ProducerStamp, Record, RecordBatch, RecordBatchBuilder, TopicId};
use quorate_proto::v1;
use quorate_proto::v1::position::Position;
use quorate_proto::v1::publish_stream_response::Outcome;
use quorate_proto::v1::publisher_service_client::PublisherServiceClient;
use quorate_proto::v1::read_response::Content;
use tokio_stream::StreamExt;
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_lives_from_creation_to_deletion() {
    let cluster = Cluster::start(1).await;
    let address = cluster.place(1).client;
    let mut topics = nodes::topics(&address).await;

    // Created: with defaults, and a warning that one node is one node.
    let topic = v1::Topic { name: "books".to_owned(), partitions: Some(3), ..Default::default() };
    let request = v1::CreateTopicRequest { topic: Some(topic.clone()), request_id: "first".to_owned() };
    let response = topics.create_topic(request.clone()).await.unwrap().into_inner();
    assert!(response.warnings[0].starts_with("replication factor 1"), "{:?}", response.warnings);
    let created = response.topic.unwrap();
    assert_eq!(
        (created.partitions, created.replication_factor, created.max_message_bytes),
        (Some(3), Some(1), 1 << 20)
    );
    // Again with the same request id: the same topic.
    assert_eq!(topics.create_topic(request).await.unwrap().into_inner().topic.unwrap().topic_id, created.topic_id);

    // Updated: only what the mask names, and only from the version that was read.
    let labels = BTreeMap::from([("team".to_owned(), "blue".to_owned())]);
    let change = v1::Topic { labels: labels.clone(), max_message_bytes: 5, etag: created.etag.clone(), ..topic };
    let update_mask = Some(prost_types::FieldMask { paths: vec!["labels".to_owned()] });
    let request = v1::UpdateTopicRequest { topic: Some(change), update_mask, ..Default::default() };
    let updated = topics.update_topic(request.clone()).await.unwrap().into_inner().topic.unwrap();
    assert_eq!((updated.labels, updated.max_message_bytes), (labels, 1 << 20));
    let stale = topics.update_topic(request).await.unwrap_err();
    assert_eq!(refusal(&stale).1, "ETAG_MISMATCH");

    // Looked at: every partition has a leader and says where its log ends.
    publish(&address, "books", Some(1), &["a", "b"]).await;
    let request = v1::GetTopicRequest { name: "books".to_owned() };
    let status = topics.get_topic(request.clone()).await.unwrap().into_inner().topic.unwrap().partition_status;
    let ends: Vec<_> =
        status.iter().map(|it| (it.partition, it.leader_node_id, it.end_offset, it.unavailable)).collect();
    assert_eq!(ends, [(0, 1, 0, false), (1, 1, 2, false), (2, 1, 0, false)]);

    // Listed: in pages, in the order of names.
    create(&address, "apples", 1).await;
    create(&address, "cherries", 1).await;
    let mut names = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListTopicsRequest { page_size: 2, page_token };
        let page = topics.list_topics(request).await.unwrap().into_inner();
        names.extend(page.topics.into_iter().map(|topic| topic.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["apples", "books", "cherries"]);

    // Deleted: gone for publishers and readers, and its name is free again.
    topics.delete_topic(v1::DeleteTopicRequest { name: "books".to_owned(), ..Default::default() }).await.unwrap();
    assert_eq!(refusal(&topics.get_topic(request).await.unwrap_err()).1, "TOPIC_NOT_FOUND");
    let again = create(&address, "books", 1).await;
    assert!(again.topic_id > created.topic_id);
    assert_eq!(read_from(&address, "books", None).await.unwrap(), []);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_come_back_from_every_kind_of_position() {
    let cluster = Cluster::start(1).await;
    let address = cluster.place(1).client;
    create(&address, "books", 1).await;
    let sent = publish(&address, "books", None, &["a", "b", "c"]).await;
    assert_eq!(sent.iter().map(|it| it.offset).collect::<Vec<_>>(), [0, 1, 2]);
    publish(&address, "books", None, &["d"]).await;

    let all = read_from(&address, "books", None).await.unwrap();
    assert_eq!(texts(&all), ["a", "b", "c", "d"]);
    assert_eq!(all[1].message_id, sent[1].message_id);
    let cases = [
        (Position::Earliest(v1::position::Earliest {}), &["a", "b", "c", "d"][..]),
        (Position::Latest(v1::position::Latest {}), &[]),
        // In the middle of a batch.
        (Position::Offset(1), &["b", "c", "d"]),
        (Position::Offset(4), &[]),
        (Position::Last(2), &["c", "d"]),
        (Position::Last(99), &["a", "b", "c", "d"]),
        (Position::Time(prost_types::Timestamp { seconds: 0, nanos: 0 }), &["a", "b", "c", "d"]),
        (Position::Time(prost_types::Timestamp { seconds: 32_503_680_000, nanos: 0 }), &[]),
    ];
    for (start, expected) in cases {
        let received = read_from(&address, "books", position(start)).await.unwrap();
        assert_eq!(texts(&received), expected, "{start:?}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_follows_gets_what_is_published_later() {
    let cluster = Cluster::start(1).await;
    let address = cluster.place(1).client;
    create(&address, "books", 2).await;
    let request = v1::ReadRequest { topic: "books".to_owned(), ..Default::default() };
    let mut responses = nodes::reader(&address).await.read(request).await.unwrap().into_inner();
    for (partition, text) in [(0, "first"), (1, "second"), (0, "third")] {
        publish(&address, "books", Some(partition), &[text]).await;
        let Some(Content::Messages(messages)) = responses.message().await.unwrap().unwrap().content else {
            panic!("messages expected");
        };
        assert_eq!((texts(&messages.messages), messages.messages[0].partition), (vec![text.to_owned()], partition));
    }
    // Deleting another topic is none of its business; deleting this one ends it.
    create(&address, "films", 1).await;
    let request = v1::ReadRequest { topic: "films".to_owned(), ..Default::default() };
    let mut films = nodes::reader(&address).await.read(request).await.unwrap().into_inner();
    let delete = v1::DeleteTopicRequest { name: "films".to_owned(), ..Default::default() };
    nodes::topics(&address).await.delete_topic(delete).await.unwrap();
    assert_eq!(refusal(&films.message().await.unwrap_err()).1, "TOPIC_NOT_FOUND");

    // A shutdown tells the reader to go elsewhere.
    let stopping = tokio::spawn(cluster.stop());
    let ended = responses.message().await.unwrap_err();
    assert_eq!(refusal(&ended).1, "DRAINING");
    stopping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_lags_behind_is_told_that_its_topic_was_deleted() {
    let cluster = Cluster::start(1).await;
    let address = cluster.place(1).client;
    create(&address, "films", 1).await;
    // More than the node reads ahead and the connection holds.
    let large = "x".repeat(1_000_000);
    for _ in 0..24 {
        publish(&address, "films", None, &[&large]).await;
    }
    let request = v1::ReadRequest { topic: "films".to_owned(), ..Default::default() };
    let mut films = nodes::reader(&address).await.read(request).await.unwrap().into_inner();
    assert!(films.message().await.unwrap().is_some());
    let delete = v1::DeleteTopicRequest { name: "films".to_owned(), ..Default::default() };
    nodes::topics(&address).await.delete_topic(delete).await.unwrap();
    // A later topic has a leader once the rows of the deleted one are gone.
    create(&address, "books", 1).await;
    let ended = loop {
        match films.message().await {
            Ok(content) => assert!(content.is_some(), "ended without a reason"),
            Err(status) => break status,
        }
    };
    assert_eq!(refusal(&ended).1, "TOPIC_NOT_FOUND");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_keep_to_a_partition_and_keyless_requests_take_turns() {
    let cluster = Cluster::start(1).await;
    let address = cluster.place(1).client;
    create(&address, "books", 4).await;
    let keyed = |key: &str| v1::Message { ordering_key: key.to_owned(), ..message("x") };
    let messages = ["a", "b", "a", "c", "a"].map(keyed).to_vec();
    let request = v1::PublishRequest { topic: "books".to_owned(), partition: None, messages };
    let response = nodes::publisher(&address).await.publish(request).await.unwrap().into_inner();
    let placed: Vec<v1::Published> = response.results.into_iter().map(|it| published(it).unwrap()).collect();
    for (sent, key) in placed.iter().zip(["a", "b", "a", "c", "a"]) {
        assert_eq!(sent.partition, quorate_model::partition_for_key(key.as_bytes(), 4));
    }
    assert!(placed[0].offset < placed[2].offset && placed[2].offset < placed[4].offset);

    let mut taken = Vec::new();
    for _ in 0..4 {
        let sent = publish(&address, "books", None, &["1", "2"]).await;
        assert_eq!(sent[0].partition, sent[1].partition);
        taken.push(sent[0].partition);
    }
    taken.sort_unstable();
    assert_eq!(taken, [0, 1, 2, 3]);
    cluster.stop().await;
}

fn batch(topic: u64, partition: u32, stamp: Option<ProducerStamp>, data: &[&str]) -> RecordBatch {
    let id = PartitionId::new(TopicId::new(topic), partition);
    let mut builder = RecordBatchBuilder::new(id, Codec::None, stamp);
    for data in data {
        builder.push(Record::new(1, "", [], data.as_bytes().to_vec())).unwrap();
    }
    builder.build().unwrap()
}

/// Sends batches on one stream and returns each outcome by sequence.
async fn publish_batches(address: &str, requests: Vec<v1::PublishStreamRequest>) -> BTreeMap<u64, Outcome> {
    let mut responses =
        nodes::publisher(address).await.publish_stream(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let mut outcomes = BTreeMap::new();
    while let Some(response) = responses.message().await.unwrap() {
        outcomes.insert(response.sequence, response.outcome.unwrap());
    }
    outcomes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_batches_is_answered_batch_by_batch_and_a_repeat_is_not_a_second_copy() {
    let cluster = Cluster::start(1).await;
    let address = cluster.place(1).client;
    let topic_id = create(&address, "books", 2).await.topic_id;
    let request = |sequence, batch: &RecordBatch, partition| v1::PublishStreamRequest {
        sequence,
        topic_id,
        partition,
        batch: batch.bytes().clone(),
    };
    let stamp = |base_sequence| Some(ProducerStamp { id: ProducerId::new(7), epoch: 0, base_sequence });
    let first = batch(topic_id, 0, stamp(0), &["a", "b"]);
    let second = batch(topic_id, 0, stamp(2), &["c"]);
    let gap = batch(topic_id, 0, stamp(9), &["z"]);
    let mut damaged = request(5, &second, 0);
    let mut bytes = damaged.batch.to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    damaged.batch = bytes.into();
    let unknown = v1::PublishStreamRequest { topic_id: 999, ..request(7, &first, 0) };

    let outcomes = publish_batches(
        &address,
        vec![
            request(1, &first, 0),
            request(2, &second, 0),
            request(3, &first, 0),
            request(4, &gap, 0),
            damaged,
            // Made for partition 0: the checksum says so.
            request(6, &second, 1),
            unknown,
            request(8, &first, 2),
        ],
    )
    .await;

    let appended = |base_offset, duplicate| Outcome::Appended(v1::Appended { base_offset, duplicate });
    assert_eq!(outcomes[&1], appended(0, false));
    assert_eq!(outcomes[&2], appended(2, false));
    assert_eq!(outcomes[&3], appended(0, true));
    let reasons = (4..=8).map(|sequence| match &outcomes[&sequence] {
        Outcome::Error(error) => (error.reason.clone(), error.metadata["executed"].clone()),
        Outcome::Appended(appended) => panic!("{sequence}: {appended:?}"),
    });
    let expected = ["SEQUENCE_GAP", "CORRUPT_BATCH", "CORRUPT_BATCH", "TOPIC_NOT_FOUND", "PARTITION_NOT_FOUND"];
    assert_eq!(reasons.collect::<Vec<_>>(), expected.map(|reason| (reason.to_owned(), "no".to_owned())));
    assert_eq!(texts(&read_from(&address, "books", None).await.unwrap()), ["a", "b", "c"]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_delivered_as_the_bytes_that_were_sent() {
    let cluster = Cluster::start(1).await;
    let address = cluster.place(1).client;
    let topic_id = create(&address, "books", 1).await.topic_id;
    let sent = batch(topic_id, 0, None, &["a", "b", "c"]);
    let request = v1::PublishStreamRequest { sequence: 1, topic_id, partition: 0, batch: sent.bytes().clone() };
    publish_batches(&address, vec![request]).await;

    let request = v1::ReadRequest {
        topic: "books".to_owned(),
        start: position(Position::Offset(1)),
        stop_at_end: true,
        as_batches: true,
        ..Default::default()
    };
    let mut responses = nodes::reader(&address).await.read(request).await.unwrap().into_inner();
    let Some(Content::Batch(received)) = responses.message().await.unwrap().unwrap().content else {
        panic!("a batch expected");
    };
    assert_eq!((received.base_offset, &received.batch), (0, sent.bytes()));
    let Some(Content::End(end)) = responses.message().await.unwrap().unwrap().content else {
        panic!("the end expected");
    };
    assert_eq!((end.partition, end.end_offset), (0, 3));
    assert!(responses.message().await.unwrap().is_none());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_in_flight_is_refused_and_not_appended() {
    let mut cluster = Cluster::prepare(1);
    // One batch of 17 MiB fits in 18 MiB, a second one doesn't.
    let node = cluster.try_start(1, &["limits.in_flight_bytes=18874368"]).await.unwrap();
    cluster.nodes.insert(1, node);
    let address = cluster.place(1).client;
    nodes::ready(&address).await;
    let topic = v1::Topic { name: "books".to_owned(), max_message_bytes: 16 << 20, ..Default::default() };
    let request = v1::CreateTopicRequest { topic: Some(topic), request_id: String::new() };
    let created = nodes::topics(&address).await.create_topic(request).await.unwrap().into_inner().topic.unwrap();

    let large = "x".repeat(12 << 20);
    let batch = batch(created.topic_id, 0, None, &[&large]);
    let request = |sequence| v1::PublishStreamRequest {
        sequence,
        topic_id: created.topic_id,
        partition: 0,
        batch: batch.bytes().clone(),
    };
    let outcomes = publish_batches(&address, (1..=6).map(request).collect()).await;
    let accepted = outcomes.values().filter(|outcome| matches!(outcome, Outcome::Appended(_))).count();
    let overloaded = outcomes.values().filter(|outcome| match outcome {
        Outcome::Error(error) => error.reason == "OVERLOADED" && error.retry_after_ms.is_some(),
        Outcome::Appended(_) => false,
    });
    assert_eq!(accepted + overloaded.count(), 6);
    assert!(accepted >= 1);
    assert_eq!(read_from(&address, "books", None).await.unwrap().len(), accepted);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_reads_its_answers_leaves_room_to_the_others() {
    let mut cluster = Cluster::prepare(1);
    let node = cluster.try_start(1, &["limits.in_flight_requests=1"]).await.unwrap();
    cluster.nodes.insert(1, node);
    let address = cluster.place(1).client;
    nodes::ready(&address).await;
    let topic_id = create(&address, "books", 1).await.topic_id;

    // One batch that takes the only room, then more answers than the connection takes.
    let sound = batch(topic_id, 0, None, &["a"]);
    let request = |sequence, batch| v1::PublishStreamRequest { sequence, topic_id, partition: 0, batch };
    let mut requests = vec![request(0, sound.bytes().clone())];
    requests.extend((1..900).map(|sequence| request(sequence, b"no batch".as_slice().into())));
    let endless = tokio_stream::iter(requests).chain(tokio_stream::pending());
    let connection = tonic::transport::Channel::from_shared(format!("http://{address}")).unwrap();
    let connection = connection.initial_stream_window_size(1).connect().await.unwrap();
    let unread = PublisherServiceClient::new(connection).publish_stream(endless).await.unwrap();

    let request = v1::PublishRequest { topic: "books".to_owned(), partition: None, messages: vec![message("b")] };
    let mut publisher = nodes::publisher(&address).await;
    let accepted = async {
        loop {
            let response = publisher.publish(request.clone()).await.unwrap().into_inner();
            match published(response.results.into_iter().next().unwrap()) {
                Ok(_) => return,
                Err(error) => assert_eq!(error.reason, "OVERLOADED", "{error:?}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), accepted).await.expect("room for others");
    drop(unread);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_cannot_be_met_is_answered_in_time() {
    // The second voter never comes: there is no quorum.
    let cluster = {
        let mut cluster = Cluster::prepare(2);
        cluster.start_node(1).await;
        cluster
    };
    let address = cluster.place(1).client;
    let topic = v1::Topic { name: "books".to_owned(), ..Default::default() };
    let mut request = tonic::Request::new(v1::CreateTopicRequest { topic: Some(topic), request_id: String::new() });
    request.set_timeout(Duration::from_millis(500));
    let refused = nodes::topics(&address).await.create_topic(request).await.unwrap_err();
    let (code, reason, facts) = refusal(&refused);
    assert_eq!((code, reason.as_str(), facts["executed"].as_str()), (Code::Unavailable, "NO_LEADER", "no"));
    cluster.stop().await;
}

//! Single messages: looked up, listed, deleted; and snapshots of what a subscription has settled.

#![allow(clippy::unwrap_used)]

mod nodes;

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use nodes::stream::Stream;
use nodes::{Cluster, create, message, position, publish, publish_patiently, published, read_from, refusal, texts};
use prost_types::Timestamp;
use quorate_proto::v1;
use quorate_proto::v1::message_service_client::MessageServiceClient;
use quorate_proto::v1::position::{Earliest, Latest, Position};
use quorate_proto::v1::subscribe_request::Request;
use quorate_proto::v1::subscriber_service_client::SubscriberServiceClient;
use tonic::transport::Channel;
use tonic::{Code, Status};

async fn messages(address: &str) -> MessageServiceClient<Channel> {
    MessageServiceClient::new(nodes::channel(address).await)
}

async fn get(address: &str, id: &str) -> Result<v1::ReceivedMessage, Status> {
    let request = v1::GetMessageRequest { message_id: id.to_owned() };
    Ok(messages(address).await.get_message(request).await?.into_inner().message.unwrap())
}

async fn delete(address: &str, ids: &[String]) -> Result<(u64, u64), Status> {
    let request = v1::DeleteMessagesRequest { message_ids: ids.to_vec() };
    let done = messages(address).await.delete_messages(request).await?.into_inner();
    Ok((done.deleted, done.absent))
}

/// All pages.
async fn list(address: &str, request: &v1::ListMessagesRequest) -> Result<Vec<v1::ReceivedMessage>, Status> {
    let (mut client, mut request, mut all) = (messages(address).await, request.clone(), Vec::new());
    loop {
        let page = client.list_messages(request.clone()).await?.into_inner();
        assert!(request.page_size == 0 || page.messages.len() <= request.page_size as usize);
        all.extend(page.messages);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return Ok(all);
        }
    }
}

async fn read(address: &str, topic: &str) -> Vec<String> {
    texts(&read_from(address, topic, position(Position::Earliest(Earliest {}))).await.unwrap())
}

async fn subscribe(address: &str, name: &str) {
    let subscription =
        v1::Subscription { name: name.to_owned(), topic: "orders".to_owned(), ordered: true, ..Default::default() };
    let start = position(Position::Earliest(Earliest {}));
    let request = v1::CreateSubscriptionRequest { subscription: Some(subscription), start, ..Default::default() };
    nodes::subscriptions(address).await.create_subscription(request).await.unwrap();
}

/// What can be had within a second, without acknowledging it.
async fn pull(address: &str, subscription: &str, max_messages: u32) -> Vec<v1::Delivery> {
    let wait = Some(Duration::from_secs(1).try_into().unwrap());
    let request = v1::PullRequest { subscription: subscription.to_owned(), max_messages, wait, ..Default::default() };
    let mut client = SubscriberServiceClient::new(nodes::channel(address).await);
    client.pull(request).await.unwrap().into_inner().deliveries
}

fn texts_of(deliveries: &[v1::Delivery]) -> Vec<String> {
    texts(&deliveries.iter().map(|delivery| delivery.message.clone().unwrap()).collect::<Vec<_>>())
}

async fn acknowledge(address: &str, subscription: &str, deliveries: &[v1::Delivery]) {
    let ack_ids = deliveries.iter().map(|delivery| delivery.ack_id.clone()).collect();
    let request = v1::AcknowledgeRequest { subscription: subscription.to_owned(), ack_ids };
    let mut client = SubscriberServiceClient::new(nodes::channel(address).await);
    let settlements = client.acknowledge(request).await.unwrap().into_inner().settlements;
    assert!(settlements.iter().all(|settlement| settlement.outcome() == v1::Outcome::Done), "{settlements:?}");
}

async fn backlog(address: &str, subscription: &str) -> u64 {
    let request = v1::GetSubscriptionRequest { name: subscription.to_owned(), without_status: false };
    let found = nodes::subscriptions(address).await.get_subscription(request).await.unwrap().into_inner();
    found.subscription.unwrap().partition_status.iter().map(|status| status.backlog_messages).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_found_by_its_id_at_any_node_until_it_is_deleted() {
    let mut cluster = Cluster::start(3).await;
    let address = |cluster: &Cluster, id| cluster.place(id).client;
    create(&address(&cluster, 1), "orders", 2).await;
    let one = publish(&address(&cluster, 1), "orders", Some(0), &["a", "b", "c", "d", "e"]).await;
    let other = publish(&address(&cluster, 1), "orders", Some(1), &["f"]).await;
    for node in 1..=3 {
        let found = get(&address(&cluster, node), &one[1].message_id).await.unwrap();
        assert_eq!((found.offset, &found.message.as_ref().unwrap().data[..]), (1, &b"b"[..]));
        assert_eq!(found.message_id, one[1].message_id);
    }

    // In the middle of a batch, at its end, and a whole batch; their neighbours are found as before.
    let gone = [&one[1], &one[4], &other[0]].map(|published| published.message_id.clone());
    assert_eq!(delete(&address(&cluster, 2), &gone).await.unwrap(), (3, 0));
    assert_eq!(delete(&address(&cluster, 3), &gone).await.unwrap(), (0, 3), "it is done already");
    for node in 1..=3 {
        assert_eq!(read(&address(&cluster, node), "orders").await, ["a", "c", "d"]);
        let refused = get(&address(&cluster, node), &gone[0]).await.unwrap_err();
        assert_eq!((refusal(&refused).0, &*refusal(&refused).1), (Code::NotFound, "MESSAGE_NOT_FOUND"));
    }
    for left in [&one[0], &one[2], &one[3]] {
        assert_eq!(get(&address(&cluster, 1), &left.message_id).await.unwrap().offset, left.offset);
    }
    let topic = nodes::topics(&address(&cluster, 1)).await;
    let request = v1::GetTopicRequest { name: "orders".to_owned() };
    let status = topic.clone().get_topic(request).await.unwrap().into_inner().topic.unwrap().partition_status;
    assert_eq!(status.iter().map(|partition| partition.deleted_messages).collect::<Vec<_>>(), [2, 1]);

    // What comes later is read and subscribed to; a reader that asks for a deleted message gets the next.
    publish_patiently(&address(&cluster, 1), "orders", 1, "g").await;
    cluster.stop_node(1).await;
    publish_patiently(&address(&cluster, 2), "orders", 0, "h").await;
    subscribe(&address(&cluster, 2), "billing").await;
    let mut taken = Vec::new();
    while taken.len() < 5 {
        taken.extend(texts_of(&pull(&address(&cluster, 2), "billing", 100).await));
    }
    taken.sort();
    assert_eq!(taken, ["a", "c", "d", "g", "h"]);
    assert_eq!(backlog(&address(&cluster, 3), "billing").await, 5);
    let mut left = read(&address(&cluster, 3), "orders").await;
    left.sort();
    assert_eq!(left, ["a", "c", "d", "g", "h"]);
    cluster.start_node(1).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_listed_by_what_they_have_in_common() {
    let cluster = Cluster::start(1).await;
    let address = cluster.place(1).client;
    create(&address, "orders", 2).await;
    for number in 0..20_u32 {
        let kind = if number % 4 == 0 { "fragile" } else { "plain" };
        let attributes = [("kind".to_owned(), kind.to_owned())].into();
        let key = format!("k{}", number % 3);
        let sent = v1::Message { attributes, ordering_key: key, ..message(&format!("{number:02}")) };
        let request =
            v1::PublishRequest { topic: "orders".to_owned(), partition: Some(number % 2), messages: vec![sent] };
        let response = nodes::publisher(&address).await.publish(request).await.unwrap().into_inner();
        assert!(response.results.into_iter().map(published).all(|result| result.is_ok()));
    }
    let all = v1::ListMessagesRequest { topic: "orders".to_owned(), page_size: 3, ..Default::default() };
    let listed = list(&address, &all).await.unwrap();
    assert_eq!(listed.len(), 20);
    assert!(listed.is_sorted_by_key(|message| (message.partition, message.offset)));
    let data = async |request: v1::ListMessagesRequest| texts(&list(&address, &request).await.unwrap());
    let with = || all.clone();
    assert_eq!(
        data(v1::ListMessagesRequest { ordering_key: "k1".to_owned(), ..with() }).await,
        ["04", "10", "16", "01", "07", "13", "19"]
    );
    let filter = r#"attributes["kind"] == "fragile" && offset > 2"#.to_owned();
    assert_eq!(data(v1::ListMessagesRequest { filter, ..with() }).await, ["08", "12", "16"]);
    let start = position(Position::Offset(8));
    assert_eq!(data(v1::ListMessagesRequest { start, partitions: vec![1], ..with() }).await, ["17", "19"]);
    let end_time = Some(Timestamp::from(SystemTime::UNIX_EPOCH));
    assert_eq!(data(v1::ListMessagesRequest { end_time, ..with() }).await, [""; 0]);
    let bare = list(&address, &v1::ListMessagesRequest { without_data: true, ..with() }).await.unwrap();
    assert!(bare.iter().all(|message| message.message.as_ref().unwrap().data.is_empty()));

    let refused = async |request: v1::ListMessagesRequest| {
        let (code, reason, _) = refusal(&list(&address, &request).await.unwrap_err());
        (code, reason)
    };
    let is = |code, reason: &str| (code, reason.to_owned());
    assert_eq!(
        refused(v1::ListMessagesRequest { page_size: 1001, ..with() }).await,
        is(Code::InvalidArgument, "INVALID_ARGUMENT")
    );
    let page_token = "orders".to_owned();
    assert_eq!(
        refused(v1::ListMessagesRequest { page_token, ..with() }).await,
        is(Code::InvalidArgument, "INVALID_PAGE_TOKEN")
    );
    assert_eq!(
        refused(v1::ListMessagesRequest { partitions: vec![2], ..with() }).await,
        is(Code::NotFound, "PARTITION_NOT_FOUND")
    );
    let filter = "offset >".to_owned();
    assert_eq!(
        refused(v1::ListMessagesRequest { filter, ..with() }).await,
        is(Code::InvalidArgument, "INVALID_FILTER")
    );
    let topic = "nobody".to_owned();
    assert_eq!(refused(v1::ListMessagesRequest { topic, ..with() }).await, is(Code::NotFound, "TOPIC_NOT_FOUND"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_subscription_is_deleted_too() {
    let cluster = Cluster::start(3).await;
    let address = |id| cluster.place(id).client;
    create(&address(1), "orders", 1).await;
    subscribe(&address(1), "billing").await;
    let due = Some(Timestamp::from(SystemTime::now() + Duration::from_secs(3)));
    let keyed = |data| v1::Message { ordering_key: "a".to_owned(), ..message(data) };
    let later = |data| v1::Message { deliver_at: due, ..message(data) };
    let sent =
        vec![keyed("first"), keyed("second"), keyed("third"), message("plain"), later("cancelled"), later("too")];
    let request = v1::PublishRequest { topic: "orders".to_owned(), partition: None, messages: sent };
    let results = nodes::publisher(&address(1)).await.publish(request).await.unwrap().into_inner().results;
    let ids: Vec<String> = results.into_iter().map(|result| published(result).unwrap().message_id).collect();

    let taken = pull(&address(2), "billing", 100).await;
    assert_eq!(texts_of(&taken), ["first", "second", "third", "plain"]);
    // In flight, and not due yet.
    assert_eq!(delete(&address(3), &[ids[0].clone(), ids[1].clone(), ids[4].clone()]).await.unwrap(), (3, 0));
    let ack_ids = taken[..3].iter().map(|delivery| delivery.ack_id.clone()).collect();
    let nack = Some(v1::Nack { ack_ids, ..Default::default() });
    let request = v1::NackRequest { subscription: "billing".to_owned(), nack };
    SubscriberServiceClient::new(nodes::channel(&address(2)).await).nack(request).await.unwrap();
    acknowledge(&address(1), "billing", &taken[3..]).await;
    // What was due at the same time shows that the other's time has come, too.
    let mut again = Vec::new();
    while again.len() < 2 {
        again.extend(pull(&address(1), "billing", 100).await);
    }
    assert_eq!(texts_of(&again), ["third", "too"]);
    acknowledge(&address(1), "billing", &again).await;
    assert_eq!(texts_of(&pull(&address(1), "billing", 100).await), [""; 0], "it was cancelled");
    assert_eq!(backlog(&address(1), "billing").await, 0);

    let none = delete(&address(1), &[]).await.unwrap_err();
    assert_eq!(refusal(&none).2["field"], "message_ids");
    let wrong = delete(&address(1), &[ids[0].clone(), "0u".to_owned()]).await.unwrap_err();
    assert_eq!((refusal(&wrong).0, &*refusal(&wrong).2["field"]), (Code::InvalidArgument, "message_ids[1]"));
    let many = delete(&address(1), &vec![ids[0].clone(); 1001]).await.unwrap_err();
    assert_eq!((&*refusal(&many).2["value"], &*refusal(&many).2["limit"]), ("1001", "1000"));
    cluster.stop().await;
}

/// What is deleted before it was handed out costs nobody credit, or a stream would wait for ever.
#[tokio::test(flavor = "multi_thread")]
async fn deleted_messages_take_no_credit_and_hold_up_no_key() {
    let cluster = Cluster::start(1).await;
    let address = cluster.place(1).client;
    create(&address, "orders", 1).await;
    subscribe(&address, "billing").await;
    let keyed = |data: String| v1::Message { ordering_key: "a".to_owned(), ..message(&data) };
    let sent = (0..20).map(|number| keyed(number.to_string())).collect();
    let request = v1::PublishRequest { topic: "orders".to_owned(), partition: None, messages: sent };
    nodes::publisher(&address).await.publish(request).await.unwrap();
    let mut stream = Stream::open(&address, "billing", 2).await;
    let first = stream.at_least(2).await;
    assert_eq!(texts_of(&first), ["0", "1"]);
    // One waits for an hour and has the key wait with it; the rest lies ready.
    let pause = Some(prost_types::Duration { seconds: 3_600, nanos: 0 });
    let ack_ids = vec![first[0].ack_id.clone()];
    stream.say(Request::Nack(v1::Nack { ack_ids, pause, ..Default::default() })).await;
    while stream.settled.is_empty() {
        tokio::time::timeout(Duration::from_millis(100), stream.deliveries()).await.unwrap_err();
    }
    let request = v1::PurgeMessagesRequest { topic: "orders".to_owned(), before: None, partitions: Vec::new() };
    assert_eq!(messages(&address).await.purge_messages(request).await.unwrap().into_inner().deleted, 20);
    let request =
        v1::PublishRequest { topic: "orders".to_owned(), partition: None, messages: vec![keyed("new".to_owned())] };
    nodes::publisher(&address).await.publish(request).await.unwrap();
    stream.say(Request::Credit(v1::Credit { messages: 1, bytes: 1 << 20 })).await;
    assert_eq!(texts_of(&stream.at_least(1).await), ["new"]);
    drop(stream);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_purged_up_to_a_position() {
    let cluster = Cluster::start(1).await;
    let address = cluster.place(1).client;
    create(&address, "orders", 2).await;
    publish(&address, "orders", Some(0), &["a", "b", "c"]).await;
    publish(&address, "orders", Some(1), &["d", "e"]).await;
    let purge = async |before: Option<v1::Position>, partitions| {
        let request = v1::PurgeMessagesRequest { topic: "orders".to_owned(), before, partitions };
        messages(&address).await.purge_messages(request).await.map(|done| done.into_inner().deleted)
    };
    let beyond = purge(position(Position::Offset(3)), Vec::new()).await.unwrap_err();
    assert_eq!(refusal(&beyond).1, "OFFSET_OUT_OF_RANGE");
    assert_eq!(read(&address, "orders").await.len(), 5, "nothing was deleted");
    let first = v1::PartitionPosition { partition: 0, start: position(Position::Offset(2)) };
    assert_eq!(purge(None, vec![first]).await.unwrap(), 2);
    let mut left = read(&address, "orders").await;
    left.sort();
    assert_eq!(left, ["c", "d", "e"]);
    assert_eq!(purge(position(Position::Latest(Latest {})), Vec::new()).await.unwrap(), 3);
    assert_eq!(read(&address, "orders").await, [""; 0]);
    publish(&address, "orders", Some(0), &["f"]).await;
    assert_eq!(read(&address, "orders").await, ["f"]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_goes_back_to_a_snapshot() {
    let cluster = Cluster::start(3).await;
    let address = |id| cluster.place(id).client;
    create(&address(1), "orders", 2).await;
    create(&address(1), "other", 2).await;
    subscribe(&address(1), "billing").await;
    publish(&address(1), "orders", Some(0), &["a", "b", "c"]).await;
    publish(&address(1), "orders", Some(1), &["d", "e"]).await;
    let mut taken = Vec::new();
    while taken.len() < 5 {
        taken.extend(pull(&address(1), "billing", 100).await);
    }
    taken.sort_by_key(|delivery| texts_of(std::slice::from_ref(delivery)));
    acknowledge(&address(1), "billing", &[taken[1].clone(), taken[3].clone()]).await;
    let snapshot = async |address: &str, name: &str| {
        let request = v1::SnapshotSubscriptionRequest { name: name.to_owned() };
        let answered = nodes::subscriptions(address).await.snapshot_subscription(request).await;
        answered.map(|answer| answer.into_inner().snapshot)
    };
    let kept = snapshot(&address(2), "billing").await.unwrap();
    acknowledge(&address(3), "billing", &[taken[0].clone(), taken[2].clone(), taken[4].clone()]).await;
    assert_eq!(backlog(&address(1), "billing").await, 0);

    let restore = async |name: &str, snapshot: Bytes, request_id: &str| {
        let (name, request_id) = (name.to_owned(), request_id.to_owned());
        let request = v1::SeekSubscriptionRequest { name, snapshot, request_id, ..Default::default() };
        nodes::subscriptions(&address(1)).await.seek_subscription(request).await
    };
    restore("billing", kept.clone(), "back").await.unwrap();
    assert_eq!(backlog(&address(2), "billing").await, 3);
    let mut again = Vec::new();
    while again.len() < 3 {
        again.extend(pull(&address(3), "billing", 100).await);
    }
    let mut data = texts_of(&again);
    data.sort();
    assert_eq!(data, ["a", "c", "e"]);
    acknowledge(&address(1), "billing", &again).await;
    restore("billing", kept.clone(), "back").await.unwrap();
    assert_eq!(backlog(&address(1), "billing").await, 0, "the same request moves nothing");

    // Another subscription of the topic can be brought there; one of another topic can't.
    subscribe(&address(1), "shipping").await;
    restore("shipping", kept.clone(), "").await.unwrap();
    assert_eq!(backlog(&address(1), "shipping").await, 3);
    let foreign = v1::Subscription { name: "foreign".to_owned(), topic: "other".to_owned(), ..Default::default() };
    let request = v1::CreateSubscriptionRequest { subscription: Some(foreign), ..Default::default() };
    nodes::subscriptions(&address(1)).await.create_subscription(request).await.unwrap();
    for (name, snapshot) in [("foreign", kept.clone()), ("billing", kept.slice(1..)), ("billing", b"x"[..].into())] {
        let refused = restore(name, snapshot, "").await.unwrap_err();
        assert_eq!((refusal(&refused).0, &*refusal(&refused).1), (Code::InvalidArgument, "INVALID_SNAPSHOT"));
    }
    let missing = snapshot(&address(1), "nobody").await.unwrap_err();
    assert_eq!(refusal(&missing).1, "SUBSCRIPTION_NOT_FOUND");
    cluster.stop().await;
}

//! Reading from whichever replica is at hand: committed records only, perhaps not the newest.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod nodes;

use nodes::{Cluster, PATIENCE, create, direct, message, position, publish, refusal, texts, watch_until};
use quorate_proto::v1;
use quorate_proto::v1::position::Position;
use quorate_proto::v1::read_response::Content;
use tonic::{Request, Status};

fn local(topic: &str, start: Option<v1::Position>) -> v1::ReadRequest {
    let consistency = v1::Consistency::Local.into();
    v1::ReadRequest { topic: topic.to_owned(), start, stop_at_end: true, consistency, ..Default::default() }
}

async fn read(address: &str, request: Request<v1::ReadRequest>) -> Result<Vec<String>, Status> {
    let mut responses = nodes::reader(address).await.read(request).await?.into_inner();
    let mut received = Vec::new();
    while let Some(response) = responses.message().await? {
        if let Some(Content::Messages(messages)) = response.content {
            received.extend(messages.messages);
        }
    }
    Ok(texts(&received))
}

/// Reads again and again until there is as much as expected: a follower may be a moment behind.
async fn read_until(address: &str, topic: &str, expected: &[&str]) {
    let attempts = async {
        loop {
            let read = read(address, direct(local(topic, None))).await.unwrap();
            assert!(expected.starts_with(&read.iter().map(String::as_str).collect::<Vec<_>>()), "{read:?}");
            if read.len() == expected.len() {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, attempts).await.expect("the follower catches up");
}

async fn leader_of(address: &str, topic: &str) -> u64 {
    let leader = |map: &v1::ClusterMap| {
        let topic = map.topics.iter().find(|it| it.name == topic)?;
        topic.partitions.first().map(|partition| partition.leader_node_id).filter(|node| *node != 0)
    };
    leader(&watch_until(address, |map| leader(map).is_some()).await).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_serves_what_is_committed_and_nothing_else() {
    let mut cluster = Cluster::start(3).await;
    let address = cluster.place(1).client;
    create(&address, "books", 1).await;
    publish(&address, "books", None, &["a", "b"]).await;
    let leader = leader_of(&address, "books").await;
    for node in 1..=3 {
        // Every replica, the leader included, without a hop.
        read_until(&cluster.place(node).client, "books", &["a", "b"]).await;
    }

    // A reader that was further elsewhere isn't told that its place doesn't exist: it waits for the record.
    let follower = (1..=3).find(|node| *node != leader).unwrap();
    let ahead = v1::ReadRequest { stop_at_end: false, ..local("books", position(Position::Offset(3))) };
    let mut waiting =
        nodes::reader(&cluster.place(follower).client).await.read(direct(ahead)).await.unwrap().into_inner();
    publish(&address, "books", None, &["c", "d"]).await;
    let next = tokio::time::timeout(PATIENCE, waiting.message()).await.unwrap().unwrap().unwrap();
    let Some(Content::Messages(messages)) = next.content else { panic!("{next:?}") };
    assert_eq!(texts(&messages.messages), ["d"]);

    // The leader alone: what it appends can't be committed, and isn't read.
    for node in (1..=3).filter(|node| *node != leader) {
        cluster.stop_node(node).await;
    }
    let alone = cluster.place(leader).client;
    let lonely = v1::PublishRequest { topic: "books".to_owned(), partition: None, messages: vec![message("e")] };
    let mut request = Request::new(lonely);
    request.set_timeout(std::time::Duration::from_secs(1));
    if let Ok(response) = nodes::publisher(&alone).await.publish(request).await {
        assert!(nodes::published(response.into_inner().results.remove(0)).is_err());
    }
    // Where the leader's word would be needed, there is none; a replica's is there.
    let expected = ["a", "b", "c", "d"];
    assert_eq!(read(&alone, direct(local("books", None))).await.unwrap(), expected);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_replica_forwards_or_says_who_has_one() {
    let cluster = Cluster::start(3).await;
    let address = cluster.place(1).client;
    let topic = v1::Topic { name: "books".to_owned(), replication_factor: Some(1), ..Default::default() };
    let request = v1::CreateTopicRequest { topic: Some(topic), request_id: String::new() };
    nodes::topics(&address).await.create_topic(request).await.unwrap();
    publish(&address, "books", None, &["a"]).await;
    let holder = leader_of(&address, "books").await;
    let other = cluster.place((1..=3).find(|node| *node != holder).unwrap()).client;
    watch_until(&other, |map| map.topics.len() == 1).await;

    let (_, reason, facts) = refusal(&read(&other, direct(local("books", None))).await.unwrap_err());
    assert_eq!((reason.as_str(), facts["replica_node_ids"].as_str()), ("NO_REPLICA", holder.to_string().as_str()));
    assert_eq!(read(&other, Request::new(local("books", None))).await.unwrap(), ["a"]);

    let unknown = v1::ReadRequest { consistency: 9, ..local("books", None) };
    assert_eq!(refusal(&read(&other, Request::new(unknown)).await.unwrap_err()).1, "INVALID_ARGUMENT");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_at_a_leader_that_lost_its_group_is_told() {
    let mut cluster = Cluster::start(3).await;
    let address = cluster.place(1).client;
    create(&address, "books", 1).await;
    let leader = leader_of(&address, "books").await;
    let request = v1::ReadRequest { topic: "books".to_owned(), ..Default::default() };
    let mut waiting =
        nodes::reader(&cluster.place(leader).client).await.read(direct(request)).await.unwrap().into_inner();
    for node in (1..=3).filter(|node| *node != leader) {
        cluster.stop_node(node).await;
    }
    let ended = tokio::time::timeout(PATIENCE, waiting.message()).await.expect("it is told").unwrap_err();
    assert_eq!(refusal(&ended).1, "NO_LEADER");
    cluster.stop().await;
}

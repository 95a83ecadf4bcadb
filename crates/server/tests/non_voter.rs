//! A node outside the metadata group serves what any node serves.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod nodes;

use nodes::{Cluster, create, direct, message, publish, read_from, refusal, texts, watch_until};
use quorate_proto::v1;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_metadata_or_replicas_creates_publishes_and_reads() {
    let cluster = Cluster::start_with_voters(4, 3).await;
    let outsider = cluster.place(4).client;
    let map = watch_until(&outsider, |map| map.nodes.len() == 4 && map.metadata_leader_node_id != 0).await;
    let voters: Vec<bool> = map.nodes.iter().map(|node| node.metadata_voter).collect();
    assert_eq!(voters, [true, true, true, false]);
    assert_eq!(map.node_id, 4);

    // With 8 partitions of 3 replicas on 4 nodes, two of them are not here.
    let created = create(&outsider, "books", 8).await;
    assert_eq!(created.replication_factor, Some(3));
    let map = watch_until(&outsider, |map| !map.topics.is_empty()).await;
    let absent: Vec<u32> = map.topics[0]
        .partitions
        .iter()
        .filter(|placed| !placed.replica_node_ids.contains(&4))
        .map(|placed| placed.partition)
        .collect();
    assert!(!absent.is_empty() && absent.len() < 8, "{absent:?}");

    for partition in 0..8 {
        let sent = publish(&outsider, "books", Some(partition), &["a", "b"]).await;
        assert_eq!(sent.iter().map(|it| it.offset).collect::<Vec<_>>(), [0, 1]);
    }
    for place in &cluster.places {
        assert_eq!(read_from(&place.client, "books", None).await.unwrap().len(), 16, "node {}", place.id);
    }

    // Its map knows the leaders of partitions that it doesn't hold, and its hints name them.
    let all_led = |map: &v1::ClusterMap| map.topics[0].partitions.iter().all(|placed| placed.leader_node_id != 0);
    let map = watch_until(&outsider, all_led).await;
    let partition = absent[0];
    let leader = map.topics[0].partitions[usize::try_from(partition).unwrap()].leader_node_id;
    let request =
        v1::PublishRequest { topic: "books".to_owned(), partition: Some(partition), messages: vec![message("c")] };
    let results = nodes::publisher(&outsider).await.publish(direct(request)).await.unwrap().into_inner().results;
    let error = nodes::published(results.into_iter().next().unwrap()).unwrap_err();
    assert_eq!((error.reason.as_str(), &error.metadata["leader_node_id"]), ("NOT_LEADER", &leader.to_string()));

    // A reader that follows through it is told when the topic is deleted.
    let request = v1::ReadRequest {
        topic: "books".to_owned(),
        partitions: vec![v1::PartitionPosition { partition, start: None }],
        ..Default::default()
    };
    let mut responses = nodes::reader(&outsider).await.read(request).await.unwrap().into_inner();
    let Some(v1::read_response::Content::Messages(first)) = responses.message().await.unwrap().unwrap().content else {
        panic!("messages expected");
    };
    assert_eq!(texts(&first.messages), ["a", "b"]);
    let delete = v1::DeleteTopicRequest { name: "books".to_owned(), ..Default::default() };
    nodes::topics(&outsider).await.delete_topic(delete).await.unwrap();
    assert_eq!(refusal(&responses.message().await.unwrap_err()).1, "TOPIC_NOT_FOUND");
    cluster.stop().await;
}

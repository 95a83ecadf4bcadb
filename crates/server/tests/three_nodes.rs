//! Three nodes: any of them serves any request.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod nodes;

use nodes::{Cluster, create, direct, message, publish, read_from, refusal, texts, watch_until};
use quorate_proto::v1;
use tonic::Code;

/// Leaders of a topic's partitions as a node sees them, once it sees one for each.
async fn leaders(address: &str, topic: &str) -> Vec<u64> {
    let of = |map: &v1::ClusterMap| {
        let found = map.topics.iter().find(|it| it.name == topic)?;
        Some(found.partitions.iter().map(|it| it.leader_node_id).collect::<Vec<u64>>())
    };
    let map = watch_until(address, |map| of(map).is_some_and(|leaders| !leaders.contains(&0))).await;
    of(&map).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_forwards_unless_it_is_asked_for_the_leader() {
    let cluster = Cluster::start(3).await;
    let first = cluster.place(1).client;
    let created = create(&first, "books", 1).await;
    assert_eq!(created.replication_factor, Some(3));
    let leader = leaders(&first, "books").await[0];
    let follower = cluster.places.iter().find(|place| place.id != leader).unwrap().client.clone();

    // Publishing and reading through a node that doesn't lead.
    let sent = publish(&follower, "books", None, &["a", "b"]).await;
    assert_eq!(sent[1].offset, 1);
    for place in &cluster.places {
        assert_eq!(texts(&read_from(&place.client, "books", None).await.unwrap()), ["a", "b"], "node {}", place.id);
    }

    // With direct routing it names the leader instead, and appends nothing.
    assert_eq!(leaders(&follower, "books").await, [leader]);
    let request = v1::PublishRequest { topic: "books".to_owned(), partition: None, messages: vec![message("c")] };
    let results = nodes::publisher(&follower).await.publish(direct(request)).await.unwrap().into_inner().results;
    let error = nodes::published(results.into_iter().next().unwrap()).unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (Code::Unavailable as i32, "NOT_LEADER"));
    assert_eq!(error.metadata["leader_node_id"], leader.to_string());
    assert_eq!(error.metadata["address"], cluster.place(leader).client);
    assert_eq!(error.metadata["executed"], "no");
    assert!(error.metadata["term"].parse::<u64>().unwrap() >= 1);
    let request = v1::ReadRequest { topic: "books".to_owned(), ..Default::default() };
    let refused = nodes::reader(&follower).await.read(direct(request)).await.unwrap_err();
    assert_eq!(refusal(&refused).1, "NOT_LEADER");
    assert_eq!(read_from(&follower, "books", None).await.unwrap().len(), 2);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_are_spread_and_a_transfer_shows_in_every_map() {
    let cluster = Cluster::start(3).await;
    let first = cluster.place(1).client;
    create(&first, "books", 6).await;
    let before = leaders(&first, "books").await;
    let led = |node: u64| before.iter().filter(|leader| **leader == node).count();
    assert!((1..=3).all(|node| led(node) >= 1), "{before:?}");

    let target = (1..=3).find(|node| *node != before[0]).unwrap();
    let through = cluster.places.iter().find(|place| place.id != before[0]).unwrap().client.clone();
    let transfer =
        |target_node_id| v1::TransferLeaderRequest { topic: "books".to_owned(), partition: 0, target_node_id };
    let mut clusters = nodes::clusters(&through).await;
    let partitions = vec![v1::PartitionPosition { partition: 0, start: None }];
    let request = v1::ReadRequest { topic: "books".to_owned(), partitions, ..Default::default() };
    let old_leader = cluster.place(before[0]).client;
    let mut waiting = nodes::reader(&old_leader).await.read(direct(request)).await.unwrap().into_inner();
    let moved = clusters.transfer_leader(transfer(target)).await.unwrap().into_inner();
    assert_eq!(moved.leader_node_id, target);
    // Whoever waits for more at the old leader is sent on.
    let ended = refusal(&waiting.message().await.unwrap_err()).1;
    assert!(["NOT_LEADER", "NO_LEADER"].contains(&ended.as_str()), "{ended}");
    for place in &cluster.places {
        let is_moved = |map: &v1::ClusterMap| map.topics[0].partitions[0].leader_node_id == target;
        watch_until(&place.client, is_moved).await;
    }
    let refused = clusters.transfer_leader(transfer(9)).await.unwrap_err();
    assert_eq!(refusal(&refused).1, "NODE_NOT_FOUND");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_the_stop_of_any_node_and_of_all() {
    let mut cluster = Cluster::start(3).await;
    create(&cluster.place(1).client, "books", 3).await;
    let mut expected = 0;
    for down in 1..=3 {
        cluster.stop_node(down).await;
        let up = cluster.places.iter().find(|place| place.id != down).unwrap().client.clone();
        for partition in 0..3 {
            nodes::publish_patiently(&up, "books", partition, "x").await;
            expected += 1;
        }
        assert_eq!(read_from(&up, "books", None).await.unwrap().len(), expected);
        cluster.start_node(down).await;
        nodes::ready(&cluster.place(down).client).await;
    }

    let placed = |map: &v1::ClusterMap| {
        let partitions = &map.topics[0].partitions;
        partitions.iter().map(|it| it.replica_node_ids.clone()).collect::<Vec<_>>()
    };
    let before = placed(&watch_until(&cluster.place(1).client, |map| !map.topics.is_empty()).await);
    for id in 1..=3 {
        cluster.stop_node(id).await;
    }
    for id in 1..=3 {
        cluster.start_node(id).await;
    }
    for place in cluster.places.clone() {
        nodes::ready(&place.client).await;
        assert_eq!(read_from(&place.client, "books", None).await.unwrap().len(), expected);
    }
    let after = placed(&watch_until(&cluster.place(2).client, |map| !map.topics.is_empty()).await);
    assert_eq!(before, after);
    cluster.stop().await;
}

//! Old records go: the log start moves on every node alike, and whoever asks for less is told where it is.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod nodes;

use std::time::Duration;

use nodes::{Cluster, position, publish, read_from, refusal, texts, watch_until};
use quorate_proto::v1;
use quorate_proto::v1::position::Position;
use tonic::Code;

const PATIENCE: Duration = Duration::from_secs(60);

async fn create_keeping(address: &str, messages: u64) {
    let retention = v1::Retention { age: None, bytes: None, messages: Some(messages) };
    let topic = v1::Topic { name: "books".to_owned(), retention: Some(retention), ..v1::Topic::default() };
    let request = v1::CreateTopicRequest { topic: Some(topic), request_id: String::new() };
    nodes::topics(address).await.create_topic(request).await.unwrap();
}

async fn status(address: &str) -> v1::PartitionStatus {
    let request = v1::GetTopicRequest { name: "books".to_owned() };
    let topic = nodes::topics(address).await.get_topic(request).await.unwrap().into_inner().topic.unwrap();
    topic.partition_status.into_iter().next().unwrap()
}

/// Publishes numbers from `next` on until the log starts at `wanted` or later; returns where it starts and the next
/// number.
async fn publish_until_trimmed(address: &str, mut next: u64, wanted: u64) -> (u64, u64) {
    let trimmed = async {
        loop {
            let texts: Vec<String> = (next..next + 20).map(|n| n.to_string()).collect();
            publish(address, "books", None, &texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
            next += 20;
            let start = status(address).await.log_start_offset;
            if start >= wanted {
                return (start, next);
            }
        }
    };
    tokio::time::timeout(PATIENCE, trimmed).await.expect("retention removes nothing")
}

fn numbers(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_removed_is_out_of_range_and_the_rest_is_whole() {
    let cluster = Cluster::start(1).await;
    let address = cluster.place(1).client;
    create_keeping(&address, 100).await;
    publish_until_trimmed(&address, 0, 1).await;
    // Whatever is still due is done when two looks agree.
    let (mut now, mut before) = (status(&address).await, None);
    while before.replace(now.clone()).is_none_or(|before| before != now) {
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        now = status(&address).await;
    }
    assert!(now.end_offset - now.log_start_offset >= 100, "{now:?}");
    let (start, end) = (now.log_start_offset, now.end_offset);

    assert_eq!(texts(&read_from(&address, "books", None).await.unwrap()), numbers(start..end));
    let from = |offset| position(Position::Offset(offset));
    assert_eq!(texts(&read_from(&address, "books", from(start)).await.unwrap()), numbers(start..end));
    assert_eq!(
        texts(&read_from(&address, "books", position(Position::Last(u64::MAX))).await.unwrap()),
        numbers(start..end)
    );

    let (code, reason, facts) = refusal(&read_from(&address, "books", from(start - 1)).await.unwrap_err());
    assert_eq!((code, reason.as_str()), (Code::OutOfRange, "OFFSET_OUT_OF_RANGE"));
    assert_eq!(facts["log_start_offset"], start.to_string());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_away_too_long_comes_back_and_can_lead() {
    let mut cluster = Cluster::start(3).await;
    create_keeping(&cluster.place(1).client, 50).await;
    let is_led = |map: &v1::ClusterMap| map.topics.first().is_some_and(|topic| topic.partitions[0].leader_node_id != 0);
    let map = watch_until(&cluster.place(1).client, is_led).await;
    let leader = map.topics[0].partitions[0].leader_node_id;
    let away = (1..=3).find(|node| *node != leader).unwrap();
    let address = cluster.place(leader).client;
    publish(&address, "books", None, &numbers(0..20).iter().map(String::as_str).collect::<Vec<_>>()).await;
    cluster.stop_node(away).await;
    let (_, end) = publish_until_trimmed(&address, 20, 60).await;

    cluster.start_node(away).await;
    nodes::ready(&cluster.place(away).client).await;
    let request = v1::TransferLeaderRequest { topic: "books".to_owned(), partition: 0, target_node_id: away };
    let moved = async {
        // Refused for as long as it hasn't caught up.
        while nodes::clusters(&address).await.transfer_leader(request.clone()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let is_moved = |map: &v1::ClusterMap| map.topics[0].partitions[0].leader_node_id == away;
        watch_until(&cluster.place(away).client, is_moved).await;
    };
    tokio::time::timeout(PATIENCE, moved).await.expect("the node that was away can't lead");
    let there = cluster.place(away).client;
    let read = texts(&read_from(&there, "books", None).await.unwrap());
    let start = end - read.len() as u64;
    assert!(start >= 60, "the log starts at {start}");
    assert_eq!(read, numbers(start..end));
    let (start, end) = publish_until_trimmed(&there, end, end).await;
    assert!(texts(&read_from(&there, "books", None).await.unwrap()).ends_with(&numbers(end - 20..end)), "{start}");
    cluster.stop().await;
}

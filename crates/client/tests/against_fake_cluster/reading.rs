//! A reader against a cluster in memory: within a partition nothing is missing, nothing comes twice.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::collections::BTreeMap;
use std::time::Duration;

use crate::fake_cluster::{FakeCluster, Fault, TOPIC};
use futures::StreamExt as _;
use quorate_client::{Client, Message, Reader, Start};

async fn publish(client: &Client, range: std::ops::Range<u32>) {
    let publisher = client.publisher(TOPIC).batch_records(5).build().await.unwrap();
    for number in range {
        let message = Message::new(format!("m{number}")).ordering_key(format!("k{number}"));
        let _receipt = publisher.send(message).await.unwrap();
    }
    assert_eq!(publisher.close().await.failed, 0);
}

async fn take(reader: &mut Reader, messages: usize, read: &mut BTreeMap<u32, Vec<String>>) {
    for _ in 0..messages {
        let message = reader.next().await.unwrap().unwrap();
        let log = read.entry(message.partition).or_default();
        assert_eq!(message.offset, log.len() as u64);
        log.push(String::from_utf8(message.data.to_vec()).unwrap());
    }
}

fn contents(cluster: &FakeCluster, partitions: u32) -> BTreeMap<u32, Vec<String>> {
    (0..partitions).map(|partition| (partition, cluster.contents(partition as usize))).collect()
}

#[tokio::test(start_paused = true)]
async fn everything_up_to_the_end_is_read_through_any_single_node() {
    let cluster = FakeCluster::start(3, 3);
    publish(&cluster.client(&[1]), 0..300).await;
    cluster.hide(1);
    cluster.hide(2);
    let mut reader = cluster.client(&[3]).reader(TOPIC).stop_at_end().build().await.unwrap();
    let mut read = BTreeMap::new();
    take(&mut reader, 300, &mut read).await;
    assert!(reader.next().await.is_none());
    assert_eq!(read, contents(&cluster, 3));
}

#[tokio::test(start_paused = true)]
async fn reading_goes_on_where_it_was_when_leaders_are_lost() {
    let cluster = FakeCluster::start(3, 3);
    let client = cluster.client(&[1, 2, 3]);
    publish(&client, 0..600).await;
    let mut reader = client.reader(TOPIC).prefetch_bytes(500).build().await.unwrap();
    let mut read = BTreeMap::new();
    take(&mut reader, 100, &mut read).await;
    cluster.kill(3);
    take(&mut reader, 100, &mut read).await;
    cluster.kill(2);
    take(&mut reader, 400, &mut read).await;
    assert_eq!(read, contents(&cluster, 3));
    // And it follows what comes later.
    publish(&client, 600..650).await;
    take(&mut reader, 50, &mut read).await;
    assert_eq!(read, contents(&cluster, 3));
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_pauses_gives_its_stream_back_and_goes_on_where_it_was() {
    let cluster = FakeCluster::start(1, 1);
    let client = cluster.client(&[1]);
    publish(&client, 0..600).await;
    let mut reader = client.reader(TOPIC).prefetch_bytes(500).build().await.unwrap();
    let mut read = BTreeMap::new();
    take(&mut reader, 10, &mut read).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    take(&mut reader, 10, &mut read).await;
    let before = cluster.served().reads;
    tokio::time::sleep(Duration::from_secs(20)).await;
    take(&mut reader, 580, &mut read).await;
    assert_eq!(read, contents(&cluster, 1));
    // Nothing was left of the stream, so another one was needed; the short pause needed none.
    assert_eq!((before, cluster.served().reads), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn the_end_is_that_of_the_beginning_even_if_the_leader_moves_and_more_is_published() {
    let cluster = FakeCluster::start(3, 1);
    let client = cluster.client(&[2]);
    publish(&client, 0..200).await;
    let mut reader = client.reader(TOPIC).stop_at_end().prefetch_bytes(100).build().await.unwrap();
    let mut read = BTreeMap::new();
    take(&mut reader, 20, &mut read).await;
    publish(&client, 200..300).await;
    cluster.elect(0, 2);
    take(&mut reader, 180, &mut read).await;
    assert!(reader.next().await.is_none());
    assert_eq!(read[&0], cluster.contents(0)[..200]);
    assert_eq!(reader.positions(), &BTreeMap::from([(0, 200)]));
}

#[tokio::test(start_paused = true)]
async fn reading_can_start_in_the_middle_of_a_stored_batch_or_at_the_last_records() {
    let cluster = FakeCluster::start(1, 1);
    let client = cluster.client(&[1]);
    publish(&client, 0..23).await;
    let read = async |start| {
        let reader = client.reader(TOPIC).from(start).stop_at_end().build().await.unwrap();
        reader.map(|message| message.unwrap().offset).collect::<Vec<_>>().await
    };
    assert_eq!(read(Start::Offset(7)).await, (7..23).collect::<Vec<_>>());
    assert_eq!(read(Start::Last(3)).await, [20, 21, 22]);
    assert_eq!(read(Start::Last(100)).await.len(), 23);
    assert_eq!(read(Start::Latest).await, []);
}

#[tokio::test(start_paused = true)]
async fn nothing_published_after_the_start_is_missed_when_reading_from_now_on() {
    let cluster = FakeCluster::start(3, 1);
    let client = cluster.client(&[1]);
    publish(&client, 0..10).await;
    let mut reader = client.reader(TOPIC).from(Start::Latest).build().await.unwrap();
    // The reader has found its place once it waits for more.
    assert!(tokio::time::timeout(Duration::from_secs(1), reader.next()).await.is_err());
    cluster.fail_next(&[Fault::LoseAnswer]);
    publish(&client, 10..20).await;
    cluster.kill(1);
    let offsets: Vec<u64> = reader.take(10).map(|message| message.unwrap().offset).collect().await;
    assert_eq!(offsets, (10..20).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn without_a_leader_the_reader_ends_when_its_patience_does() {
    let cluster = FakeCluster::start(1, 1);
    let client = cluster.client(&[1]);
    let mut reader = client.reader(TOPIC).patience(Duration::from_secs(3)).build().await.unwrap();
    cluster.elect(0, 0);
    assert_eq!(reader.next().await.unwrap().unwrap_err().reason(), "NO_LEADER");
    assert!(reader.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_recovered_may_idle_for_ever() {
    let cluster = FakeCluster::start(2, 1);
    let client = cluster.client(&[1, 2]);
    let mut reader = client.reader(TOPIC).patience(Duration::from_secs(3)).build().await.unwrap();
    cluster.elect(0, 0);
    assert!(tokio::time::timeout(Duration::from_secs(1), reader.next()).await.is_err());
    cluster.elect(0, 2);
    assert!(tokio::time::timeout(Duration::from_secs(60), reader.next()).await.is_err());
    publish(&client, 0..1).await;
    assert_eq!(reader.next().await.unwrap().unwrap().offset, 0);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_content_with_a_follower_spares_the_leader_and_needs_none() {
    let cluster = FakeCluster::start(3, 1);
    let client = cluster.client(&[1, 2, 3]);
    publish(&client, 0..50).await;
    let mut reader = client.reader(TOPIC).from_follower().build().await.unwrap();
    let mut read = BTreeMap::new();
    take(&mut reader, 50, &mut read).await;
    // Where only the leader can be reached at first, it is left as soon as another can.
    assert_ne!(cluster.local_reads().last(), Some(&1), "{:?}", cluster.local_reads());

    cluster.elect(0, 0);
    let mut again = client.reader(TOPIC).from_follower().stop_at_end().build().await.unwrap();
    let mut read = BTreeMap::new();
    take(&mut again, 50, &mut read).await;
    assert!(again.next().await.is_none());
    assert_eq!(read, contents(&cluster, 1));

    // A follower that goes away is no loss: there is another.
    cluster.elect(0, 3);
    publish(&client, 50..60).await;
    cluster.kill(2);
    take(&mut reader, 10, &mut BTreeMap::from([(0, vec![String::new(); 50])])).await;
}

//! `quorate bench` against a real cluster: what it says it did is what is in the topic.

#![allow(clippy::unwrap_used)]

mod support;

use serde_json::Value;
use std::fs;
use support::{Cluster, User, data};

#[test]
fn wrong_options_are_named_with_their_value_and_limit() {
    let user = User::new();
    for bench in ["pub", "e2e"] {
        user.run(&["bench", bench, "--publishers", "0"]).fails(2, &["--publishers", "0 is not in 1..=1000"]);
        user.run(&["bench", bench, "--in-flight", "100001"]).fails(2, &["--in-flight", "1..=100000"]);
        user.run(&["bench", bench, "--rate", "0"]).fails(2, &["--rate", "0 is not in 1..=10000000"]);
        user.run(&["bench", bench, "--size", "5,16777217"]).fails(2, &["--size", "16777217", "1..=16777216"]);
        user.run(&["bench", bench, "--duration", "soon"]).fails(2, &["--duration", "soon"]);
        user.run(&["bench", bench, "--topic", "a", "--partitions", "3"]).fails(2, &["--topic", "--partitions"]);
        user.run(&["bench", bench, "--unbatched", "--linger", "1ms"]).fails(2, &["--unbatched", "--linger"]);
        user.run(&["bench", bench, "--csv", "/no/such/folder/a.csv"]).fails(2, &["/no/such/folder/a.csv"]);
    }
    user.run(&["bench", "sub", "--readers", "1001"]).fails(2, &["--readers", "1..=1000"]);
    user.run(&["bench", "e2e", "--size", "15"]).fails(2, &["--size 15", "at least 16"]);
}

#[test]
fn counts_agree_with_what_is_in_the_topic() {
    let cluster = Cluster::start(1);
    let csv = cluster.user().home().join("seconds.csv");
    let hdr = cluster.user().home().join("latency.hgrm");

    // A topic of its own, kept so that it can be looked at.
    let common = ["--messages", "500", "--warm-up", "100ms", "--size", "100,300", "--keys", "7", "-o", "json"];
    let files = ["--csv", csv.to_str().unwrap(), "--hdr", hdr.to_str().unwrap()];
    let load = ["--rate", "2000", "--publishers", "3", "--in-flight", "20", "--partitions", "2", "--keep"];
    let row = cluster.run(&[&["bench", "pub"], &common[..], &files, &load].concat()).ok().object();
    assert_eq!((row["failed"].as_u64(), row["unknown"].as_u64()), (Some(0), Some(0)), "{row}");
    assert_eq!(published(&row), 500 + 200, "{row}");
    assert_eq!(row["published"], 500, "{row}");
    assert_eq!(row["partitions"], 2);
    assert!(row["latency_ms"]["p99"].as_f64() >= row["latency_ms"]["p50"].as_f64(), "{row}");
    let topic = row["topic"].as_str().unwrap().to_owned();
    assert!(topic.starts_with("bench-"), "{topic}");
    let messages = read(&cluster, &topic);
    assert_eq!(messages.len(), 700);
    assert_eq!(messages.iter().filter(|message| data(message).len() == 300).count(), 350, "sizes take turns");
    assert!(messages.iter().all(|message| message["ordering_key"].as_str().unwrap().starts_with("key-")));

    // The files say the same.
    let text = fs::read_to_string(&csv).unwrap();
    let column = |line: &str| line.split(',').nth(2).unwrap().parse::<u64>().unwrap();
    assert_eq!(text.lines().skip(1).map(column).sum::<u64>(), 500, "{text}");
    assert!(fs::read_to_string(&hdr).unwrap().contains("Total count    =          500"));

    // Everything that is there is drained, by each reader.
    let row = cluster.run(&["bench", "sub", "--topic", &topic, "--readers", "2", "-o", "json"]).ok().object();
    assert_eq!(row["read"], 1400, "{row}");
    assert_eq!(row["payload_bytes"], 2 * (350 * 100 + 350 * 300), "{row}");

    // A given topic stays, and what was in it before is not taken for this run's.
    let row = cluster.run(&[&["bench", "e2e", "--topic", &topic], &common[..]].concat()).ok().object();
    assert_eq!((row["read"].as_u64(), row["missing"].as_u64()), (Some(500), Some(0)), "{row}");
    assert!(row["end_to_end_ms"]["p50"].is_number(), "{row}");
    assert_eq!(read(&cluster, &topic).len() as u64, 700 + published(&row));
    cluster.run(&["bench", "pub", "--topic", &topic, "--size", "2000000"]).fails(2, &["2000000", &topic, "1048576"]);

    // Subscribers share what is there, and what comes; their subscription goes afterwards.
    let there = 700 + published(&row);
    let row = cluster.run(&["bench", "sub", "--topic", &topic, "--subscribers", "2", "-o", "json"]).ok().object();
    assert_eq!((row["read"].as_u64(), &row["subscribers"], &row["readers"]), (Some(there), &2.into(), &0.into()));
    assert_eq!(row["acknowledgements_lost"], 0, "{row}");
    let taken = [&["bench", "e2e", "--topic", &topic, "--subscribers", "2"], &common[..]].concat();
    let row = cluster.run(&taken).ok().object();
    assert_eq!((row["read"].as_u64(), row["missing"].as_u64()), (Some(500), Some(0)), "{row}");
    assert!(row["end_to_end_ms"]["p99"].is_number(), "{row}");
    let left = cluster.run(&["subscription", "ls", "-o", "json"]).ok().objects();
    assert!(left.is_empty(), "{left:?}");

    // One of its own goes afterwards.
    let row = cluster.run(&["bench", "sub", "--messages", "300", "--size", "10", "-o", "json"]).ok().object();
    assert_eq!((row["read"].as_u64(), row["payload_bytes"].as_u64()), (Some(300), Some(3000)), "{row}");
    let topics = cluster.run(&["topic", "ls", "-o", "json"]).ok().objects();
    assert_eq!(topics.len(), 1, "{topics:?}");
    assert_eq!(topics[0]["name"], topic);
}

fn published(row: &Value) -> u64 {
    row["published"].as_u64().unwrap() + row["warm_up_published"].as_u64().unwrap()
}

fn read(cluster: &Cluster, topic: &str) -> Vec<Value> {
    cluster.run(&["read", topic, "--from", "earliest", "--exit", "-o", "json"]).ok().objects()
}

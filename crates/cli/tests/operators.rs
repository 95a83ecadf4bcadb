//! What an operator does on the command line: looks at subscriptions, moves them, and takes care of dead letters.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use support::Cluster;

/// A topic, a subscription that gives up after one attempt, and a topic for what it gave up.
fn prepare() -> Cluster {
    let cluster = Cluster::start(1);
    cluster.run(&["topic", "create", "tea", "--partitions", "1"]).ok();
    cluster.run(&["topic", "create", "dregs"]).ok();
    let subscribe = ["subscription", "create", "waiters", "--topic", "tea", "--from", "earliest"];
    cluster.run(&[&subscribe[..], &["--dead-letter-topic", "dregs", "--max-attempts", "1"]].concat()).ok();
    cluster.run(&["pub", "tea", "one", "two", "three", "-k", "cup", "-H", "kind=green"]).ok();
    cluster
}

fn status(cluster: &Cluster) -> Value {
    cluster.run(&["subscription", "get", "waiters", "-o", "json"]).ok().object()
}

fn read(cluster: &Cluster, topic: &str) -> Vec<Value> {
    cluster.run(&["read", topic, "--exit", "-o", "json"]).ok().objects()
}

fn data(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|message| message["data"].as_str().unwrap()).collect()
}

#[test]
fn a_subscription_shows_its_numbers_and_is_moved() {
    let cluster = prepare();
    let begun = status(&cluster);
    assert_eq!(
        (begun["backlog_messages"].as_u64(), begun["acknowledged_total"].as_u64()),
        (Some(3), Some(0)),
        "{begun}"
    );
    assert!(begun["oldest_unacknowledged_seconds"].as_f64().is_some(), "{begun}");
    assert_eq!(begun["partitions"][0]["backlog_messages"], 3);
    assert_eq!((&begun["priorities"][0]["priority"], &begun["priorities"][0]["ready"]), (&0.into(), &3.into()));
    let all = |count: &str| cluster.run(&["sub", "waiters", "--count", count, "-o", "raw"]).ok().text();
    assert_eq!(all("3"), "one\ntwo\nthree\n");
    support::eventually("all is acknowledged", || (status(&cluster)["acknowledged_total"] == 3).then_some(()));
    let listed = cluster.run(&["subscription", "ls", "--status"]).ok().text();
    assert!(listed.contains("BACKLOG") && listed.contains("waiters"), "{listed}");
    let rate = cluster.run(&["subscription", "get", "waiters", "--rate"]).ok().text();
    assert!(rate.contains("acknowledged  3, 0.0 a second"), "{rate}");

    let moved = cluster.run(&["subscription", "seek", "waiters", "--to", "1", "-o", "json"]).ok().object();
    assert_eq!((&moved["partitions"][0]["partition"], &moved["partitions"][0]["offset"]), (&0.into(), &1.into()));
    assert_eq!(all("2"), "two\nthree\n");
    let moved = cluster.run(&["subscription", "seek", "waiters", "--to", "earliest", "--partition", "0"]).ok().text();
    assert!(moved.contains("partition 0 to offset 0"), "{moved}");
    assert_eq!(all("3"), "one\ntwo\nthree\n");
    cluster.run(&["subscription", "seek", "waiters", "--to", "2020-01-01T00:00:00Z"]).ok();
    assert_eq!(status(&cluster)["backlog_messages"], 3);
    cluster.run(&["subscription", "seek", "waiters", "--to", "latest"]).ok();
    assert_eq!(status(&cluster)["backlog_messages"], 0);

    let refuse = |flags: &[&str], code, texts: &[&str]| {
        cluster.run(&[&["subscription", "seek", "waiters"], flags].concat()).fails(code, texts);
    };
    refuse(&[], 2, &["--to"]);
    refuse(&["--to", "tomorrow"], 2, &["--to", "earliest"]);
    refuse(&["--to", "4"], 1, &["OFFSET_OUT_OF_RANGE", "tea/0", "0 to 3"]);
    refuse(&["--to", "0", "--partition", "1"], 1, &["PARTITION_NOT_FOUND"]);

    // Where it stood once, in a file.
    let kept = tempfile::NamedTempFile::new().unwrap();
    let file = kept.path().to_str().unwrap();
    cluster.run(&["subscription", "seek", "waiters", "--to", "1"]).ok();
    cluster.run(&["subscription", "snapshot", "waiters", "--file", file]).ok();
    cluster.run(&["subscription", "seek", "waiters", "--to", "latest"]).ok();
    cluster.run(&["subscription", "seek", "waiters", "--to-snapshot", file]).ok();
    assert_eq!(status(&cluster)["backlog_messages"], 2);
    refuse(&["--to-snapshot", file, "--to", "0"], 2, &["--to-snapshot"]);
    refuse(&["--to-snapshot", "/nowhere"], 1, &["/nowhere"]);
    std::fs::write(file, "something else").unwrap();
    refuse(&["--to-snapshot", file], 1, &["INVALID_SNAPSHOT"]);
}

#[test]
fn messages_are_looked_up_listed_and_deleted() {
    let cluster = prepare();
    let list = |flags: &[&str]| cluster.run(&[&["message", "ls", "tea", "-o", "json"], flags].concat()).ok().objects();
    assert_eq!(data(&list(&["--count", "2"])), ["one", "two"]);
    assert_eq!(data(&list(&["--filter", r#"attributes["kind"] == "green" && offset > 0"#])), ["two", "three"]);
    assert_eq!(data(&list(&["--key", "pot"])), [""; 0]);
    assert_eq!(data(&list(&["--from", "2", "--key", "cup"])), ["three"]);
    assert_eq!(data(&list(&["--before", "2020-01-01T00:00:00Z"])), [""; 0]);
    let ids: Vec<String> = list(&[]).iter().map(|it| it["message_id"].as_str().unwrap().to_owned()).collect();
    let get = |id: &str| cluster.run(&["message", "get", id, "-o", "json"]);
    assert_eq!(get(&ids[1]).ok().object(), list(&["--from", "1"])[0]);
    let done = cluster.run(&["message", "delete", &ids[1], &ids[1], "-o", "json"]).ok().object();
    assert_eq!((&done["deleted"], &done["absent"]), (&1.into(), &1.into()));
    get(&ids[1]).fails(1, &["MESSAGE_NOT_FOUND", &ids[1]]);
    assert_eq!(data(&list(&[])), ["one", "three"]);
    assert_eq!(data(&read(&cluster, "tea")), ["one", "three"]);
    assert_eq!(cluster.run(&["sub", "waiters", "--count", "2", "-o", "raw"]).ok().text(), "one\nthree\n");
    let shown = cluster.run(&["topic", "get", "tea", "-o", "json"]).ok().object();
    assert_eq!(shown["partition_status"][0]["deleted_messages"], 1);
    cluster.run(&["message", "purge", "tea", "--before", "2"]).ok();
    assert_eq!(data(&read(&cluster, "tea")), ["three"]);
    get("0u").fails(1, &["message_id", "0u"]);
    cluster.run(&["message", "delete"]).fails(2, &["MESSAGE_IDS"]);
    cluster.run(&["message", "purge", "tea"]).fails(2, &["--before"]);
    cluster.run(&["message", "ls", "nowhere"]).fails(1, &["TOPIC_NOT_FOUND", "nowhere"]);
    cluster.run(&["message", "ls", "tea", "--before", "later"]).fails(2, &["--before"]);
}

#[test]
fn dead_letters_are_listed_shown_and_published_again() {
    let cluster = prepare();
    cluster.run(&["sub", "waiters", "--count", "3", "--nack", "no cup"]).ok();
    let row = || cluster.run(&["dlq", "ls", "-o", "json"]).ok().object();
    let dead = support::eventually("all are in their topic", || Some(row()).filter(|row| row["dead_letters"] == 3));
    assert_eq!((dead["subscription"].as_str(), dead["dead_letter_topic"].as_str()), (Some("waiters"), Some("dregs")));
    assert_eq!((&dead["dead_lettered_total"], &dead["not_redriven"]), (&3.into(), &3.into()));

    let peek = |flags: &[&str]| cluster.run(&[&["dlq", "peek", "dregs"], flags].concat()).ok();
    let text = peek(&[]).text();
    assert!(text.contains("# tea 0@2, given up by waiters after 1 attempts: no cup"), "{text}");
    assert_eq!(data(&peek(&["--count", "2", "-o", "json"]).objects()), ["three", "two"]);
    assert_eq!(data(&peek(&["--count", "2", "--oldest", "-o", "json"]).objects()), ["one", "two"]);
    assert_eq!(row(), dead, "nothing was changed");

    // One, and the rest by another run, and nothing by a third.
    for (flags, redriven) in [(&["--count", "1"][..], 1), (&["--rate", "100"], 2), (&[], 0)] {
        let done = cluster.run(&[&["dlq", "redrive", "dregs", "-o", "json"], flags].concat()).ok().object();
        assert_eq!((&done["redriven"], &done["topic"]), (&redriven.into(), &"dregs".into()));
    }
    assert_eq!((&row()["dead_letters"], &row()["not_redriven"]), (&3.into(), &0.into()));
    let tea = read(&cluster, "tea");
    assert_eq!(data(&tea), ["one", "two", "three", "one", "two", "three"]);
    for (first, again) in tea[..3].iter().zip(&tea[3..]) {
        assert_eq!((&first["ordering_key"], &first["attributes"]), (&again["ordering_key"], &again["attributes"]));
    }

    // What came by another way says nothing of where it belongs.
    cluster.run(&["pub", "dregs", "stray"]).ok();
    cluster.run(&["dlq", "redrive", "dregs"]).fails(1, &["dregs 0@3", "--to"]);
    cluster.run(&["dlq", "redrive", "dregs", "--to", "nowhere"]).fails(1, &["TOPIC_NOT_FOUND", "nowhere", "--to"]);
    let done = cluster.run(&["dlq", "redrive", "dregs", "--to", "tea"]).ok().text();
    assert!(done.contains("1 dead letters of dregs redriven: 1 to tea"), "{done}");
    cluster.run(&["dlq", "redrive", "nowhere"]).fails(1, &["TOPIC_NOT_FOUND", "nowhere"]);
    cluster.run(&["dlq", "redrive", "dregs", "--rate", "0"]).fails(2, &["--rate"]);

    // Nobody's messages but dead letters.
    cluster.run(&["dlq", "purge", "tea"]).fails(1, &["tea", "message purge"]);
    let done = cluster.run(&["dlq", "purge", "dregs", "-o", "json"]).ok().object();
    assert_eq!(done["deleted"], 4);
    assert_eq!((data(&read(&cluster, "dregs")), &row()["dead_letters"]), (Vec::new(), &0.into()));
}

#[test]
fn a_redrive_that_is_interrupted_goes_on_where_it_stopped() {
    let cluster = prepare();
    cluster.run(&["sub", "waiters", "--count", "3", "--nack", "no cup"]).ok();
    let row = || cluster.run(&["dlq", "ls", "-o", "json"]).ok().object();
    support::eventually("all are in their topic", || (row()["dead_letters"] == 3).then_some(()));

    let arguments = ["dlq", "redrive", "dregs", "--rate", "1", "-o", "json"];
    let slow = cluster.user().command(&arguments).spawn().unwrap();
    support::eventually("the first is published again", || (read(&cluster, "tea").len() >= 4).then_some(()));
    kill(Pid::from_raw(slow.id() as i32), Signal::SIGINT).unwrap();
    let first = support::finish(slow, &arguments).ok().object()["redriven"].as_u64().unwrap();
    assert!(first >= 1, "it was waited for what was under way");
    let rest = cluster.run(&["dlq", "redrive", "dregs", "-o", "json"]).ok().object();
    assert_eq!(rest["redriven"], 3 - first);
    assert_eq!(data(&read(&cluster, "tea")), ["one", "two", "three", "one", "two", "three"]);
}

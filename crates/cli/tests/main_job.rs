//! The main job on real input: a file's lines published to three nodes, the leader killed, everything
//! acknowledged read back.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod support;

use nix::sys::signal::{Signal, kill};
use quorate_client::{Client, Message};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use support::{Cluster, data, finish};

/// Kills of the leader of which each is timed.
const KILLS: usize = 10;

#[test]
fn every_line_survives_the_death_of_the_leader() {
    let cluster = Cluster::start(3);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.lock");
    let lines = lines_of(&fs::read(&file).unwrap());

    // A topic, and the lines of a real file.
    cluster.run(&["topic", "create", "books", "--partitions", "6"]).ok();
    let summary = cluster.run(&["pub", "books", "--file", file.to_str().unwrap(), "-o", "json"]).ok().object();
    assert_eq!(counts(&summary), (lines.len() as u64, 0, 0), "{summary}");

    // More lines in one stream; while it flows, the leader of one of the partitions dies without a word.
    // The last part is held back until then, so that it needs the new leader.
    let leader = cluster.leader("books", 0);
    let arguments = ["pub", "books", "-o", "json"];
    let mut publish = cluster.user().command(&arguments).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = publish.stdin.take().unwrap();
    let numbered: Vec<Vec<u8>> = (0..60_000).map(|number| format!("line {number:06}").into_bytes()).collect();
    let (flowing, held_back) = numbered.split_at(50_000);
    let killed = thread::scope(|scope| {
        let (say_killed, is_killed) = mpsc::channel();
        scope.spawn(move || {
            write_lines(&mut input, flowing);
            is_killed.recv().expect("the leader was killed");
            write_lines(&mut input, held_back);
        });
        let kill = ["dev", "kill", "leader", "--topic", "books", "--partition", "0", "-o", "json"];
        let killed = cluster.run(&kill).ok().object();
        say_killed.send(()).unwrap();
        killed
    });
    assert_eq!(killed["node_id"], leader);
    let summary = finish(publish, &arguments).ok().object();
    assert_eq!(counts(&summary), (numbered.len() as u64, 0, 0), "{summary}");
    show(&format!("published across the death of the leader: {summary}"));

    // And more, while a node is still missing: bytes that are no text, and a last line without a newline.
    let odd: [&[u8]; 4] = [b"\xff\xfe raw \x00 bytes", b"", b"carriage return\r", b"no newline at the end"];
    let summary = cluster.user().run_with_input(&["pub", "books", "-o", "json"], &odd.join(&b'\n')).ok().object();
    assert_eq!(counts(&summary), (odd.len() as u64, 0, 0), "{summary}");

    // Everything is there, byte for byte, once.
    let messages = cluster.run(&["read", "books", "--from", "earliest", "--exit", "-o", "json"]).ok().objects();
    let mut read: Vec<Vec<u8>> = messages.iter().map(data).collect();
    let mut sent: Vec<Vec<u8>> = lines.iter().chain(&numbered).cloned().chain(odd.map(<[u8]>::to_vec)).collect();
    read.sort();
    sent.sort();
    assert_eq!(read.len(), sent.len());
    assert!(read == sent, "what was read differs from what was published");

    // Within a partition: offsets without gaps, lines in the order of the file.
    let partitions = by_partition(&messages);
    assert_eq!(partitions.len(), 6, "every partition got something");
    for (partition, messages) in partitions {
        let offsets: Vec<u64> = messages.iter().map(|message| message["offset"].as_u64().unwrap()).collect();
        let expected: Vec<u64> = (0..offsets.len() as u64).collect();
        assert_eq!(offsets, expected, "partition {partition}");
        let read: Vec<Vec<u8>> = messages.iter().copied().map(data).collect();
        let (of_second, others): (Vec<_>, Vec<_>) = read.iter().partition(|line| line.starts_with(b"line 0"));
        let of_file = others.into_iter().filter(|line| !odd.contains(&&line[..]));
        assert!(is_part_in_order(of_file, &lines), "partition {partition}: order of the file");
        assert!(is_part_in_order(of_second.into_iter(), &numbered), "partition {partition}: order of the second input");
    }
}

#[test]
fn a_client_that_knows_only_a_follower_publishes_and_reads_through_it() {
    let cluster = Cluster::start(3);
    cluster.run(&["topic", "create", "tea"]).ok();
    let leader = cluster.leader("tea", 0);
    let follower = cluster.nodes.iter().find(|node| node.id != leader).unwrap();

    cluster.run(&["--server", &follower.client, "pub", "tea", "one", "two", "-k", "cup"]).ok();
    let read =
        cluster.run(&["--server", &follower.client, "read", "tea", "--from", "earliest", "--exit", "-o", "raw"]).ok();
    assert_eq!(read.text(), "one\ntwo\n");

    // One that isn't a context's address but dead doesn't matter, as long as one is alive.
    let servers = format!("127.0.0.1:1,{}", follower.client);
    cluster.run(&["--server", &servers, "pub", "tea", "three"]).ok();
    let read = cluster.run(&["--server", &servers, "read", "tea", "--last", "1", "--exit", "-o", "raw"]).ok();
    assert_eq!(read.text(), "three\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishing_goes_on_soon_after_a_leader_is_killed() {
    let cluster = Cluster::start(3);
    cluster.run(&["topic", "create", "gap"]).ok();
    let client = Client::builder().servers(cluster.servers()).build().unwrap();
    let publisher = client.publisher("gap").build().await.unwrap();

    let mut gaps = Vec::new();
    let mut published = 0_u64;
    while gaps.len() < KILLS {
        cluster.wait_healthy();
        let leader = cluster.leader("gap", 0);
        let process = cluster.pid(leader).unwrap();
        publisher.publish(Message::new("before")).await.unwrap();

        // Only a message handed over after the kill counts: its acknowledgement needs a new leader.
        kill(process, Signal::SIGKILL).unwrap();
        let killed = Instant::now();
        publisher.publish(Message::new("after")).await.unwrap();
        gaps.push(killed.elapsed());
        published += 2;
        cluster.run(&["dev", "restart", &leader.to_string()]).ok();
    }

    let read = cluster.run(&["read", "gap", "--from", "earliest", "--exit", "-o", "json"]).ok().objects();
    assert_eq!(read.len() as u64, published, "each message once");
    gaps.sort_unstable();
    let (median, max) = (gaps[KILLS / 2], gaps[KILLS - 1]);
    show(&format!(
        "from kill -9 of the leader to the next acknowledged publish, {KILLS} kills: median {median:?}, max {max:?}"
    ));
    assert!(max < Duration::from_secs(30), "{gaps:?}");
}

/// Shows a figure also when the test passes: the macros' output is kept back then.
fn show(figure: &str) {
    std::io::stderr().write_all(format!("{figure}\n").as_bytes()).unwrap();
}

fn lines_of(bytes: &[u8]) -> Vec<Vec<u8>> {
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    body.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

fn write_lines(pipe: &mut impl Write, lines: &[Vec<u8>]) {
    for line in lines {
        pipe.write_all(line).and_then(|()| pipe.write_all(b"\n")).expect("the command reads on");
    }
}

fn counts(summary: &Value) -> (u64, u64, u64) {
    let count = |field: &str| summary[field].as_u64().unwrap_or_else(|| panic!("{field} in {summary}"));
    (count("published"), count("failed"), count("unknown"))
}

fn by_partition(messages: &[Value]) -> BTreeMap<u64, Vec<&Value>> {
    let mut partitions: BTreeMap<u64, Vec<&Value>> = BTreeMap::new();
    for message in messages {
        partitions.entry(message["partition"].as_u64().unwrap()).or_default().push(message);
    }
    partitions
}

/// Whether the parts occur in the whole, in the same order.
fn is_part_in_order<'a>(parts: impl Iterator<Item = &'a Vec<u8>>, whole: &[Vec<u8>]) -> bool {
    let mut rest = whole.iter();
    parts.into_iter().all(|part| rest.any(|line| line == part))
}

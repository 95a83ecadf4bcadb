//! What was acknowledged survives: restarts, the death of a minority, the death of all at once. And a
//! folder belongs to one process of one node of one cluster.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod support;

use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use support::{Cluster, data, finish};

const PARTITIONS: usize = 3;

#[test]
fn nothing_acknowledged_is_lost_by_restarts_and_kills() {
    let cluster = Cluster::start(3);
    cluster.run(&["topic", "create", "ledger", "--partitions", &PARTITIONS.to_string()]).ok();
    let placement = placement(&cluster);
    let mut acknowledged = Vec::new();
    publish(&cluster, "at first", &mut acknowledged);

    // Each node in turn, in order.
    for node in 1..=3 {
        cluster.run(&["dev", "restart", &node.to_string()]).ok();
        publish(&cluster, &format!("after the restart of {node}"), &mut acknowledged);
    }
    assert_eq!(read(&cluster), acknowledged, "after restarts");

    // A minority, without a word; the others go on.
    for node in 1..=3 {
        cluster.run(&["dev", "kill", &node.to_string()]).ok();
        publish(&cluster, &format!("without {node}"), &mut acknowledged);
        cluster.run(&["dev", "restart", &node.to_string()]).ok();
        cluster.wait_healthy();
    }
    assert_eq!(read(&cluster), acknowledged, "after kills of one");

    // All at once, right after an acknowledgement.
    publish(&cluster, "the last words", &mut acknowledged);
    cluster.run(&["dev", "kill", "all"]).ok();
    cluster.run(&["dev", "restart", "all"]).ok();
    cluster.wait_healthy();
    assert_eq!(read(&cluster), acknowledged, "after the kill of all");
    assert_eq!(self::placement(&cluster), placement, "the placement of partitions");
    publish(&cluster, "life goes on", &mut acknowledged);
    assert_eq!(read(&cluster), acknowledged, "and on");
}

#[test]
fn a_frozen_leader_is_replaced_and_comes_back_as_a_follower() {
    let cluster = Cluster::start(3);
    cluster.run(&["topic", "create", "ledger"]).ok();
    let mut acknowledged = Vec::new();
    publish(&cluster, "before", &mut acknowledged);

    let leader = cluster.leader("ledger", 0).to_string();
    cluster.run(&["dev", "pause", &leader]).ok();
    publish(&cluster, "while it is frozen", &mut acknowledged);
    cluster.run(&["dev", "resume", &leader]).ok();
    cluster.wait_healthy();
    assert_eq!(read(&cluster), acknowledged);
}

#[test]
fn a_folder_belongs_to_one_process_of_one_node_of_one_cluster() {
    let cluster = Cluster::start(3);
    cluster.run(&["topic", "create", "ledger"]).ok();
    let mut acknowledged = Vec::new();
    publish(&cluster, "mine", &mut acknowledged);

    // A second process on the folder of a running node.
    let config = cluster.node(1).config.display().to_string();
    let elsewhere =
        ["--set", "listen.client=127.0.0.1:0", "--set", "listen.peer=127.0.0.1:0", "--set", "listen.metrics="];
    refused(&cluster, &[&["server", "--config", &config], &elsewhere[..]].concat(), &["in use"]);

    // The folder of a node that has stopped, taken by another node, and by another cluster.
    cluster.run(&["dev", "kill", "3"]).ok();
    let folder = cluster.node(3).config.parent().map(|folder| folder.join("data")).unwrap();
    let folder = format!("node.data_dir={}", folder.display());
    let other_node = ["--set", "node.id=2", "--set", &folder];
    let config = cluster.node(2).config.display().to_string();
    refused(&cluster, &[&["server", "--config", &config], &other_node[..], &elsewhere[..]].concat(), &["node"]);
    let config = cluster.node(3).config.display().to_string();
    let other_cluster = ["--set", "cluster.name=another"];
    refused(
        &cluster,
        &[&["server", "--config", &config], &other_cluster[..], &elsewhere[..]].concat(),
        &["cluster", "another"],
    );

    // Nothing of that did any harm.
    cluster.run(&["dev", "restart", "3"]).ok();
    cluster.wait_healthy();
    assert_eq!(read(&cluster), acknowledged);
}

#[test]
fn data_outlives_the_cluster_unless_it_was_to_be_thrown_away() {
    let cluster = Cluster::start(1);
    let user = support::User::new();
    let folder = user.home().join("kept");
    let start = ["dev", "--nodes", "1", "--data", folder.to_str().unwrap(), "--detach"];
    user.run(&start).ok();
    user.run(&["topic", "create", "ledger"]).ok();
    user.run(&["pub", "ledger", "one"]).ok();

    // One cluster at a time, and none on a folder that holds something else.
    user.run(&start).fails(1, &["running already"]);
    user.run(&["dev", "stop"]).ok();
    user.run(&["dev", "status"]).fails(1, &["no development cluster"]);
    fs::write(user.home().join("thesis.txt"), "words").unwrap();
    user.run(&["dev", "--data", user.home().to_str().unwrap(), "--detach"]).fails(1, &["holds files"]);

    user.run(&start).ok();
    let text = user.run(&["read", "ledger", "--from", "earliest", "--exit", "-o", "raw"]).ok().text();
    user.run(&["dev", "stop"]).ok();
    assert_eq!(text, "one\n");

    let thrown_away: PathBuf = cluster.node(1).config.parent().and_then(|folder| folder.parent()).unwrap().into();
    assert!(thrown_away.exists());
    drop(cluster);
    assert!(!thrown_away.exists());
}

/// Publishes some messages under a label, and notes them as acknowledged.
fn publish(cluster: &Cluster, label: &str, acknowledged: &mut Vec<String>) {
    let messages: Vec<String> = (0..50).map(|number| format!("{label}: {number:02}")).collect();
    let summary = cluster.user().run_with_input(&["pub", "ledger", "-o", "json"], messages.join("\n").as_bytes()).ok();
    assert_eq!(summary.object()["published"], 50, "{}", summary.text());
    acknowledged.extend(messages);
    acknowledged.sort();
}

/// Everything in the topic, sorted: the order between partitions means nothing.
fn read(cluster: &Cluster) -> Vec<String> {
    let messages = cluster.run(&["read", "ledger", "--from", "earliest", "--exit", "-o", "json"]).ok().objects();
    let mut read: Vec<String> = messages.iter().map(|message| String::from_utf8(data(message)).unwrap()).collect();
    read.sort();
    read
}

/// Which nodes hold each partition.
fn placement(cluster: &Cluster) -> Vec<Value> {
    let topic = cluster.run(&["topic", "get", "ledger", "-o", "json"]).ok().object();
    let partitions = topic["partition_status"].as_array().unwrap().clone();
    assert_eq!(partitions.len(), PARTITIONS);
    partitions.into_iter().map(|partition| partition["replica_node_ids"].clone()).collect()
}

/// A server that must end by itself, say why, and never serve.
fn refused(cluster: &Cluster, arguments: &[&str], says: &[&str]) {
    let child = cluster.user().command(arguments).spawn().unwrap();
    finish(child, arguments).fails(1, says);
}

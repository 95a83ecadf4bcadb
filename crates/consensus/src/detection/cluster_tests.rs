//! Failure detection over real streams: three nodes in one process, with valves in the wires between them.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::raft::VoteRequest;
use quorate_model::NodeId;
use quorate_storage::EntryId;

use super::DetectionSettings;
use crate::cluster_tests::{Cluster, NODES, PATIENCE, contents, replica_of, wait_until_end};
use crate::codec;
use crate::types::Vote;

impl Cluster {
    fn others(leader: u64) -> [u64; 2] {
        let others: Vec<u64> = NODES.into_iter().filter(|node| *node != leader).collect();
        others.try_into().unwrap()
    }

    fn reaches(&self, node: u64, other: u64) -> bool {
        self.nodes[&node].groups.reachable(NodeId::new(other))
    }

    async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let reached = async {
            while !condition(self) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("in vain: {what}"));
    }

    /// Publishes through whoever leads; the text may end up in the log more than once.
    async fn publish_somewhere(&self, text: &str) {
        let published = async {
            loop {
                let leader = self.leader().await;
                // A leader that is cut off never answers.
                let attempt = tokio::time::timeout(Duration::from_secs(1), self.publish(leader, text));
                if matches!(attempt.await, Ok(Ok(_))) {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, published).await.expect("nobody takes it");
    }

    fn term(&self, node: u64) -> u64 {
        self.group(node).leadership().term
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_link_to_one_follower_moves_no_leader() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let [cut_off, witness] = Cluster::others(leader);
    let term = cluster.term(leader);

    // Cut and mended again and again, as a flapping link is; the group is idle meanwhile, so no lease protects it.
    for round in 0..3 {
        cluster.wires.cut(leader, cut_off);
        cluster.wires.cut(cut_off, leader);
        cluster.until("both sides notice", |it| !it.reaches(leader, cut_off) && !it.reaches(cut_off, leader)).await;
        assert!(cluster.reaches(witness, leader) && cluster.reaches(witness, cut_off));
        cluster.publish(leader, &format!("cut {round}")).await.unwrap();
        cluster.wires.mend();
        cluster.until("both sides are back", |it| it.reaches(leader, cut_off) && it.reaches(cut_off, leader)).await;
    }
    wait_until_end(&cluster.group(cut_off), 3).await;
    assert_eq!(contents(&cluster.group(cut_off)).await, ["cut 0", "cut 1", "cut 2"]);
    for node in NODES {
        assert_eq!(cluster.term(node), term, "node {node} saw an election");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_nobody_hears_is_replaced() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let others = Cluster::others(leader);
    cluster.publish(leader, "before").await.unwrap();
    for other in others {
        cluster.wires.cut(leader, other);
    }
    cluster.until("another one leads", |it| others.iter().any(|node| it.group(*node).leadership().is_self)).await;
    cluster.publish_somewhere("after").await;
    cluster.wires.mend();
    wait_until_end(&cluster.group(leader), 2).await;
    cluster.until("the old leader follows", |it| !it.group(leader).leadership().is_self).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_hears_nobody_is_replaced() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let others = Cluster::others(leader);
    cluster.publish(leader, "before").await.unwrap();
    for other in others {
        cluster.wires.cut(other, leader);
    }
    cluster.until("another one leads", |it| others.iter().any(|node| it.group(*node).leadership().is_self)).await;
    cluster.publish_somewhere("after").await;
    cluster.wires.mend();
    wait_until_end(&cluster.group(leader), 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_disks_are_no_reason_to_elect() {
    let fsync_ms = Arc::new(AtomicU64::new(0));
    let time = Arc::clone(&fsync_ms);
    let fsync = move |_| Duration::from_millis(time.load(Ordering::Relaxed));
    let cluster = Cluster::start_with(DetectionSettings::default(), fsync).await;
    let leader = cluster.leader().await;
    let term = cluster.term(leader);
    // Longer than the silence after which a node is suspected: heartbeats wait for no disk.
    fsync_ms.store(800, Ordering::Relaxed);
    for i in 0..3 {
        cluster.publish(leader, &format!("slow {i}")).await.unwrap();
    }
    for node in NODES {
        assert_eq!(cluster.term(node), term, "node {node} saw an election");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_restarts_unnoticed_without_its_last_entries_is_replaced() {
    let slow = Arc::new(AtomicU64::new(0));
    let slow_node = Arc::clone(&slow);
    let fsync = move |node| Duration::from_secs(if node == slow_node.load(Ordering::Relaxed) { 3_600 } else { 0 });
    // No silence is long enough to be noticed, and below, no dial is refused.
    let unnoticed = DetectionSettings { suspect_after_ms: 3_600_000, ..DetectionSettings::default() };
    let mut cluster = Cluster::start_with(unnoticed, fsync).await;
    let leader = cluster.leader().await;
    cluster.publish(leader, "everywhere").await.unwrap();
    // From now on only the followers have what is acknowledged.
    slow.store(leader, Ordering::Relaxed);
    cluster.publish(leader, "on the followers").await.unwrap();
    cluster.wires.hold_dials(true);
    cluster.kill(leader);
    slow.store(0, Ordering::Relaxed);
    cluster.start_node(leader, 100 + leader).await;
    cluster.wires.hold_dials(false);

    cluster.publish_somewhere("after").await;
    wait_until_end(&cluster.group(leader), 3).await;
    assert_eq!(contents(&cluster.group(leader)).await[..2], ["everywhere", "on the followers"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vote_is_given_once_a_term() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let [voter, other] = Cluster::others(leader);
    let voter = cluster.group(voter);
    let term = voter.leadership().term + 10;
    let longer_log = codec::entry_id_to_log_id(EntryId { term, index: 100 });
    let (low, high) = (leader.min(other), leader.max(other));
    for (candidate, granted) in [(low, true), (high, false), (low, true)] {
        voter.drop_lease().await;
        let vote = Vote::new(term, replica_of(candidate).id.get());
        let answer = voter.raft().vote(VoteRequest::new(vote, Some(longer_log))).await.unwrap();
        assert_eq!(answer.vote_granted, granted, "{candidate}: {answer:?}");
    }
}

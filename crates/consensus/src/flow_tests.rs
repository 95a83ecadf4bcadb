//! What a leader takes in: no more than its budgets, whoever it comes from and however slow its disk.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quorate_model::{Offset, Reply};

use crate::cluster_tests::{ADMISSION, Cluster, GROUP, NODES, PATIENCE, append, contents, replica_of, wait_until_end};
use crate::{DetectionSettings, Overload, ProposeError};

/// Nodes whose disk takes longer than any test.
#[derive(Clone, Default)]
struct Stalled(Arc<Mutex<BTreeSet<u64>>>);

impl Stalled {
    fn stall(&self, node: u64) {
        self.0.lock().unwrap().insert(node);
    }
}

async fn start() -> (Cluster, Stalled) {
    let stalled = Stalled::default();
    let disks = stalled.clone();
    let fsync = move |node| if disks.0.lock().unwrap().contains(&node) { 100 * PATIENCE } else { Duration::ZERO };
    (Cluster::start_with(DetectionSettings::default(), fsync).await, stalled)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_refuses_what_is_forwarded_beyond_its_budget_and_takes_it_once_there_is_room() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let follower = NODES.into_iter().find(|node| *node != leader).unwrap();
    let forward = async |text| {
        let groups = cluster.forwarding(follower, leader).await;
        groups.propose_at(replica_of(leader), GROUP, append(text), PATIENCE).await.unwrap().await
    };
    // The leader's own clients have taken all there is.
    let local = cluster.nodes[&leader].groups.admission().admit(ADMISSION.in_flight_bytes).ok();
    assert!(local.is_some());
    let refused = forward("refused").await.unwrap_err();
    assert_eq!(refused, ProposeError::Overloaded(Overload::new("limits.in_flight_bytes", ADMISSION.in_flight_bytes)));
    assert!(!refused.may_be_executed());

    drop(local);
    assert!(matches!(forward("taken").await, Ok(Reply::Partition(Ok(_)))));
    assert_eq!(contents(&cluster.group(leader)).await, ["taken"]);
    assert_eq!(cluster.nodes[&leader].groups.admission().in_flight(), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_without_a_quorum_gives_the_room_back_when_the_sender_has_given_up() {
    let (cluster, disks) = start().await;
    let leader = cluster.leader().await;
    let followers: Vec<u64> = NODES.into_iter().filter(|node| *node != leader).collect();
    cluster.publish(leader, "before").await.unwrap();
    for follower in &followers {
        disks.stall(*follower);
    }
    let groups = cluster.forwarding(followers[0], leader).await;
    let time = Duration::from_millis(100);
    let waiting = groups.propose_at(replica_of(leader), GROUP, append("late"), time).await.unwrap();
    let outcome = waiting.await.unwrap_err();
    assert!(outcome.may_be_executed(), "{outcome:?}");
    assert_eq!(cluster.nodes[&leader].groups.admission().in_flight(), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_own_disk_falls_behind_takes_no_more_than_its_queue() {
    const BYTES: usize = 100 << 10;
    let (cluster, disks) = start().await;
    let leader = cluster.leader().await;
    cluster.publish(leader, "before").await.unwrap();
    disks.stall(leader);
    // The two others are a quorum: what is committed leaves the budget of what is in flight, but not memory.
    let follower = NODES.into_iter().find(|node| *node != leader).unwrap();
    let groups = cluster.forwarding(follower, leader).await;
    let large = "x".repeat(BYTES);
    let mut outcomes = Vec::new();
    for _ in 0..5 {
        outcomes.push(groups.propose_at(replica_of(leader), GROUP, append(&large), PATIENCE).await.unwrap().await);
    }
    // 300 KiB are reached with the third, and from then on nothing gets in.
    let taken = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let limit = ADMISSION.queued_bytes;
    let refusal = ProposeError::Overloaded(Overload { setting: "limits.queued_bytes".into(), limit });
    assert_eq!((taken, &outcomes[3], &outcomes[4]), (3, &Err(refusal.clone()), &Err(refusal)), "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_shows_nothing_that_no_quorum_has() {
    let (mut cluster, disks) = start().await;
    let leader = cluster.leader().await;
    let [follower, third] = NODES.into_iter().filter(|node| *node != leader).collect::<Vec<_>>()[..] else { panic!() };
    cluster.publish(leader, "before").await.unwrap();
    let group = cluster.group(follower);
    wait_until_end(&group, 1).await;
    let before = group.status().last_log_index;

    // From now on only the follower gets anything onto a disk.
    cluster.kill(third);
    disks.stall(leader);
    drop(cluster.group(leader).submit(append("late")).await.unwrap());
    let received = async {
        while group.status().last_log_index == before {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, received).await.expect("the follower gets the entry");
    // Many times what applying takes.
    let mut progress = group.progress();
    let shown = tokio::time::timeout(Duration::from_millis(500), progress.wait_for(|now| now.end > Offset::new(1)));
    assert!(shown.await.is_err(), "a follower shows what one of three disks has");
    assert_eq!(contents(&group).await, ["before"]);
}

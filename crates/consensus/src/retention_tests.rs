//! Logs that lose their head: every replica cuts its own at the same place, whoever was away comes back to the same
//! state, and nothing is purged that nobody trimmed.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::storage::{RaftLogStorage, RaftStateMachine};
use openraft::{EntryPayload, RaftLogReader};
use quorate_model::{
    Command as ModelCommand, MachineKind, MetaCommand, NodeId, Offset, PartitionCommand, ReplicaId, Reply, Retention,
};
use quorate_storage::{
    Completion, EntryId, EntryKind, LogEntry, RaftLog, RowOp, SimDisk, StateStore, Storage, Table, TailCacheLimits,
};

use crate::apply::{Published, StateMachine};
use crate::cluster_tests::{Cluster, NODES, PARTITION, PATIENCE, append, contents, replica_of, wait_until_end};
use crate::log_store::LogStore;
use crate::snapshot::{Cut, CutPoint};
use crate::{RaftGroup, ReadError};

impl Cluster {
    async fn publish_many(&self, node: u64, numbers: std::ops::Range<u64>) {
        for n in numbers {
            assert_eq!(self.publish(node, &format!("r{n}")).await.unwrap(), Offset::new(n));
        }
    }

    /// Where the log starts after a command of retention.
    async fn retain(&self, node: u64, command: PartitionCommand) -> u64 {
        let command = ModelCommand::Partition(command).encode();
        match self.group(node).propose(command).await.unwrap() {
            Reply::LogStart(offset) => offset.get(),
            other => panic!("unexpected reply {other:?}"),
        }
    }

    async fn mark(&self, node: u64) {
        self.retain(node, PartitionCommand::Mark).await;
    }

    async fn trim(&self, node: u64, to: u64) -> u64 {
        self.retain(node, PartitionCommand::TrimTo { offset: Offset::new(to) }).await
    }

    /// Where the log of a node was cut, as its disk says.
    async fn purged(&self, node: u64) -> Option<u64> {
        let storage = self.storage_of(node);
        storage.commit(Vec::new()).await.unwrap();
        let log = RaftLog::open(storage, replica_of(node).id, TailCacheLimits::default()).await.unwrap();
        log.bounds().purged.map(|id| id.index)
    }

    async fn wait_until_purged_beyond(&self, node: u64, before: Option<u64>) -> u64 {
        let cut = async {
            loop {
                if let Some(purged) = self.purged(node).await.filter(|purged| Some(*purged) > before) {
                    return purged;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, cut).await.expect("the log is not cut")
    }
}

/// The state of a replica once it has applied what `like` has.
async fn state(group: &RaftGroup, like: &RaftGroup) -> Bytes {
    let applied = like.progress().borrow().applied_index;
    let mut progress = group.progress();
    let reached = progress.wait_for(|now| now.applied_index >= applied);
    tokio::time::timeout(PATIENCE, reached).await.expect("replica did not catch up").unwrap();
    ask(group, StateMachine::machine_bytes).await
}

pub(crate) async fn ask<T: Send + 'static>(group: &RaftGroup, question: fn(&StateMachine) -> T) -> T {
    let (answer, answered) = tokio::sync::oneshot::channel();
    let raft = group.raft();
    let asked = raft.with_state_machine(move |machine| {
        let _ = answer.send(question(machine));
        Box::pin(std::future::ready(()))
    });
    asked.await.unwrap();
    answered.await.unwrap()
}

fn records(numbers: std::ops::Range<u64>) -> Vec<String> {
    numbers.map(|n| format!("r{n}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_replica_cuts_its_log_at_the_same_mark() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    for stretch in 0..3 {
        cluster.publish_many(leader, stretch * 20..stretch * 20 + 20).await;
        cluster.mark(leader).await;
    }
    cluster.publish_many(leader, 60..70).await;
    // 45 lies between two marks: what is removed ends at the earlier one.
    assert_eq!(cluster.trim(leader, 45).await, 40);

    let cut = cluster.wait_until_purged_beyond(leader, None).await;
    for node in NODES {
        let group = cluster.group(node);
        wait_until_end(&group, 70).await;
        assert_eq!(cluster.wait_until_purged_beyond(node, None).await, cut, "node {node}");
        assert_eq!(state(&group, &cluster.group(leader)).await, state(&cluster.group(leader), &group).await);
        assert_eq!(group.progress().borrow().log_start, Offset::new(40));
        assert_eq!(contents(&group).await, records(40..70), "node {node}");
        let refused = group.read(Offset::new(39), 1).await.unwrap_err();
        assert!(
            matches!(refused, ReadError::OutOfRange { log_start, .. } if log_start == Offset::new(40)),
            "{refused}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_behind_the_log_start_comes_back_to_the_same_state() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let away = NODES.into_iter().find(|node| *node != leader).unwrap();
    cluster.publish_many(leader, 0..30).await;
    wait_until_end(&cluster.group(away), 30).await;
    cluster.kill(away);

    // It misses all of these, and the head of them is gone when it comes back.
    for stretch in 0..4 {
        cluster.publish_many(leader, 30 + stretch * 100..130 + stretch * 100).await;
        cluster.mark(leader).await;
    }
    cluster.publish_many(leader, 430..440).await;
    assert_eq!(cluster.trim(leader, 330).await, 330);
    let cut = cluster.wait_until_purged_beyond(leader, None).await;

    cluster.start_node(away, 100 + away).await;
    let (back, leading) = (cluster.group(away), cluster.group(leader));
    wait_until_end(&back, 440).await;
    assert_eq!(state(&back, &leading).await, state(&leading, &back).await);
    assert_eq!(cluster.purged(away).await, Some(cut));
    assert_eq!(back.progress().borrow().log_start, Offset::new(330));
    assert_eq!(contents(&back).await, records(330..440));

    // It is a full member: with it alone the next leader has a quorum, and it can be cut again.
    let third = NODES.into_iter().find(|node| *node != leader && *node != away).unwrap();
    cluster.kill(third);
    let leader = cluster.leader().await;
    cluster.publish_many(leader, 440..450).await;
    cluster.mark(leader).await;
    assert_eq!(cluster.trim(leader, 450).await, 450);
    let cut = cluster.wait_until_purged_beyond(leader, Some(cut)).await;
    let other = if leader == away { NODES.into_iter().find(|n| *n != away && *n != third).unwrap() } else { away };
    assert_eq!(cluster.wait_until_purged_beyond(other, Some(cut - 1)).await, cut);
    cluster.publish_many(leader, 450..455).await;
    wait_until_end(&cluster.group(other), 455).await;
    assert_eq!(contents(&cluster.group(other)).await, records(450..455));
}

/// Power goes while logs are being cut: each disk keeps a prefix of its writes, chosen at random.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_while_logs_are_cut_loses_nothing_that_was_not_trimmed() {
    let mut cluster = Cluster::start().await;
    let mut end = 0;
    let mut trimmed = 0;
    for _ in 0..5 {
        let leader = cluster.leader().await;
        for _ in 0..3 {
            cluster.publish_many(leader, end..end + 20).await;
            end += 20;
            cluster.mark(leader).await;
            trimmed = cluster.trim(leader, end.saturating_sub(30)).await.max(trimmed);
        }
        for node in NODES {
            cluster.kill(node);
        }
        for node in NODES {
            cluster.start_node(node, 100 + node).await;
        }
        let leader = cluster.leader().await;
        let group = cluster.group(leader);
        assert_eq!(group.progress().borrow().log_start, Offset::new(trimmed));
        assert_eq!(contents(&group).await, records(trimmed..end));
    }
    let group = cluster.group(cluster.leader().await);
    for node in NODES {
        assert_eq!(state(&cluster.group(node), &group).await, state(&group, &cluster.group(node)).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_applies_only_what_follows_its_checkpoint() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let (mut under_way, mut end) = (Vec::new(), 0);
    for n in 0..2_000 {
        under_way.push(cluster.group(leader).submit(append(&format!("r{n}"))).await.unwrap());
        end = n + 1;
    }
    for pending in under_way {
        pending.await.unwrap();
    }
    let node = NODES.into_iter().find(|node| *node != leader).unwrap();
    wait_until_end(&cluster.group(node), end).await;
    cluster.storage_of(node).commit(Vec::new()).await.unwrap();
    cluster.kill(node);
    cluster.start_node(node, 100 + node).await;
    wait_until_end(&cluster.group(node), end).await;
    let again = ask(&cluster.group(node), StateMachine::applied_since_checkpoint).await;
    assert!(again < 1_024, "{again} of {end} entries were applied again");
    assert_eq!(contents(&cluster.group(node)).await, records(0..end));

    // A replica that was closed in peace applies nothing again.
    let closed = cluster.group(node);
    cluster.nodes[&node].groups.shutdown().await;
    cluster.storage_of(node).commit(Vec::new()).await.unwrap();
    let before = closed.progress().borrow().applied_index;
    cluster.kill(node);
    cluster.start_node(node, 100 + node).await;
    wait_until_end(&cluster.group(node), end).await;
    let again = ask(&cluster.group(node), StateMachine::applied_since_checkpoint).await;
    let now = cluster.group(node).progress().borrow().applied_index;
    assert!(again <= now.unwrap() - before.unwrap(), "{again} entries were applied from {before:?} to {now:?}");
}

/// R6: a snapshot that isn't due, or whose checkpoint is lost, is no reason for the group to die.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_cannot_be_taken_harms_nobody() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let group = cluster.group(leader);
    cluster.publish_many(leader, 0..10).await;
    group.raft().trigger().snapshot().await.unwrap();
    cluster.mark(leader).await;
    group.raft().trigger().snapshot().await.unwrap();
    assert_eq!(cluster.purged(leader).await, None, "nothing was trimmed");

    // The checkpoint of the mark is lost, as if by an error of ours: the log can't be cut there.
    let storage = cluster.storage_of(leader);
    let kept = StateStore::new(storage, group.replica()).oldest_kept_checkpoint().await.unwrap().unwrap();
    let lost = kept.last_applied.unwrap().index;
    let key = [&group.replica().get().to_be_bytes()[..], &[2], &lost.to_be_bytes()].concat();
    storage.commit(vec![RowOp::Delete { table: Table::State, key }]).await.unwrap();
    assert_eq!(cluster.trim(leader, 10).await, 10);
    cluster.publish_many(leader, 10..20).await;
    cluster.mark(leader).await;
    assert_eq!(cluster.trim(leader, 20).await, 20);
    let cut = cluster.wait_until_purged_beyond(leader, None).await;
    assert!(cut > lost, "the log was cut at {cut}, the lost checkpoint was of {lost}");
    // Asked again, there is nothing newer.
    group.raft().trigger().snapshot().await.unwrap();
    cluster.publish_many(leader, 20..25).await;
    assert_eq!(contents(&group).await, records(20..25));
}

/// It has nothing to retain: its log is cut because it grew, and a voter that was away gets a snapshot of the present.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_the_metadata_group_does_not_grow_for_ever() {
    let mut cluster = Cluster::start_metadata().await;
    let leader = cluster.leader().await;
    let away = NODES.into_iter().find(|node| *node != leader).unwrap();
    cluster.kill(away);
    let register = |n: u64| MetaCommand::RegisterNode {
        node: NodeId::new(1 + n % 5),
        client_address: format!("a:{n}"),
        peer_address: format!("b:{n}"),
        store_id: 7,
    };
    let mut under_way = Vec::new();
    for n in 0..5_200 {
        under_way.push(cluster.group(leader).submit(register(n).encode()).await.unwrap());
    }
    for pending in under_way {
        assert!(matches!(pending.await.unwrap(), Reply::Meta(Ok(_))));
    }
    let purged = cluster.wait_until_purged_beyond(leader, None).await;
    assert!((2_000..5_200).contains(&purged), "purged to {purged}");
    cluster.start_node(away, 100 + away).await;
    let (back, leading) = (cluster.group(away), cluster.group(leader));
    assert_eq!(state(&back, &leading).await, state(&leading, &back).await);
    assert!(cluster.purged(away).await >= Some(purged));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_knows_what_retention_wants() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let group = cluster.group(leader);
    let messages = Retention { age_ms: None, bytes: None, messages: Some(32) };
    assert_eq!(group.retention_due(&messages, 1_000), None, "an empty partition wants nothing");
    cluster.publish_many(leader, 0..1).await;
    assert_eq!(group.retention_due(&messages, 1_000), Some(PartitionCommand::Mark));
    cluster.mark(leader).await;
    assert_eq!(group.retention_due(&messages, 1_000), None);
    cluster.publish_many(leader, 1..33).await;
    let trim = PartitionCommand::TrimTo { offset: Offset::new(1) };
    assert_eq!(group.retention_due(&messages, 1_000), Some(trim.clone()));
    cluster.retain(leader, trim).await;
    assert_eq!(group.retention_due(&messages, 1_000), Some(PartitionCommand::Mark));
    assert_eq!(group.progress().borrow().log_start, Offset::new(1));
}

const REPLICA: ReplicaId = ReplicaId::new(5);

async fn one_replica(storage: &Storage, entries: u64) -> (RaftLog, StateStore) {
    let log = RaftLog::open(storage, REPLICA, TailCacheLimits::default()).await.unwrap();
    let body = |index| if index == 0 { append("x") } else { Bytes::new() };
    let kind = |index| if index == 0 { EntryKind::Command } else { EntryKind::Blank };
    let entry = |index| LogEntry { id: EntryId { term: 1, index }, kind: kind(index), body: body(index) };
    log.append((0..entries).map(entry).collect(), Completion::None);
    (log, StateStore::new(storage, REPLICA))
}

/// R2 and R3: the log goes no further than the state machine allowed, and what went is hidden from Raft.
#[tokio::test]
async fn the_log_store_purges_only_what_may_go() {
    let storage = SimDisk::new(|| Duration::ZERO).open(Path::new("simulated")).unwrap();
    let (log, state) = one_replica(&storage, 10).await;
    let cut = Arc::new(Cut::default());
    let mut store = LogStore::new(log.clone(), state, Arc::clone(&cut));
    let id = |index| crate::codec::entry_id_to_log_id(EntryId { term: 1, index });
    let refused = store.purge(id(3)).await.unwrap_err();
    assert!(refused.to_string().contains("asked to purge the log up to 3"), "{refused}");
    cut.set(Some(CutPoint { index: 3, log_start: None }));
    store.purge(id(4)).await.unwrap_err();
    assert_eq!(log.bounds().purged, None, "nothing went");

    store.purge(id(3)).await.unwrap();
    let left = store.try_get_log_entries(0..).await.unwrap();
    assert_eq!(left.first().map(|entry| entry.log_id.index), Some(4));
    assert!(left.iter().all(|entry| matches!(entry.payload, EntryPayload::Blank)));
}

/// R4: a purged log without the checkpoint to go on from is not opened, and the state follows the log again from there.
#[tokio::test]
async fn a_purged_log_is_opened_only_with_its_checkpoint() {
    let storage = SimDisk::new(|| Duration::ZERO).open(Path::new("simulated")).unwrap();
    let (log, state) = one_replica(&storage, 10).await;
    let kind = MachineKind::Partition(PARTITION);
    let open = || StateMachine::open(kind, log.clone(), state.clone(), Arc::default(), Arc::new(Published::new(kind)));
    let mut machine = open().await.unwrap();
    assert!(machine.get_current_snapshot().await.unwrap().is_none());
    log.purge(EntryId { term: 1, index: 3 });
    let error = open().await.err().unwrap();
    assert_eq!(error.to_string(), "the log was purged to 3 without a checkpoint");
}

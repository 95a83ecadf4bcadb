//! Snapshots that reach a follower in the worst of moments (openraft #2116): while entries that it has not applied, and
//! a purge that waits for an earlier snapshot, are under way on a slow disk.
//!
//! The leader is made up here: it has one log that only grows, and sends parts of it, snapshots of it and
//! changes of its term in any order, without waiting for answers. So it does what hardly a leader does; no core may die of it.

#![allow(clippy::unwrap_used)]

use std::panic;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use futures::future::{BoxFuture, FutureExt};
use openraft::EntryPayload;
use openraft::raft::AppendEntriesRequest;
use openraft::vote::leader_id_std::CommittedLeaderId;
use quorate_model::{Command as ModelCommand, Machine, MachineKind, Offset, PartitionCommand};

use crate::apply::StateMachine;
use crate::cluster_tests::{Cluster, NODES, PARTITION, PATIENCE, append, replica_of, wait_until_end};
use crate::group::Running;
use crate::retention_tests::ask;
use crate::types::{Command, Entry, LogId, Snapshot, SnapshotMeta, StoredMembership, Vote};
use crate::{DetectionSettings, RaftGroup};

/// A leader with a log of its own, over what the follower had when it was left alone.
struct MadeUp {
    follower: Running,
    replica: u64,
    term: u64,
    membership: StoredMembership,
    base: LogId,
    entries: Vec<(LogId, Bytes)>,
    machine: Machine,
    /// The state after each entry.
    states: Vec<Bytes>,
    under_way: Vec<BoxFuture<'static, ()>>,
}

impl MadeUp {
    async fn over(group: &RaftGroup, replica: u64) -> Self {
        let follower = group.running();
        let machine = ask(group, StateMachine::machine_bytes).await;
        let machine = Machine::restore(MachineKind::Partition(PARTITION), &machine).unwrap();
        // openraft hears of what was applied a little later than we.
        let last_index = machine.as_partition().unwrap().last_index();
        let applied =
            follower.raft.wait(Some(PATIENCE)).applied_index_at_least(last_index, "what the machine has").await;
        let metrics = applied.unwrap();
        let (base, membership) = (metrics.last_applied.unwrap(), (*metrics.membership_config).clone());
        let (entries, states, under_way) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            follower,
            replica,
            term: base.leader_id.term + 100,
            membership,
            base,
            entries,
            machine,
            states,
            under_way,
        }
    }

    fn vote(&self) -> Vote {
        Vote::new_committed(self.term, self.replica)
    }

    fn id(&self, position: usize) -> LogId {
        position.checked_sub(1).map_or(self.base, |last| self.entries[last].0)
    }

    fn grow(&mut self, count: usize, rng: &mut Rng) {
        for _ in 0..count {
            let index = self.id(self.entries.len()).index + 1;
            let end = self.machine.as_partition().unwrap().next_offset().get();
            let command = match rng.u32(0..10) {
                0 => ModelCommand::Partition(PartitionCommand::Mark).encode(),
                1 => ModelCommand::Partition(PartitionCommand::TrimTo { offset: Offset::new(end) }).encode(),
                _ => append("x"),
            };
            self.machine.apply(index, &command);
            self.entries.push((LogId::new(CommittedLeaderId::new(self.term), index), command));
            self.states.push(self.machine.checkpoint());
        }
    }

    /// Sends and doesn't wait: the request is with the core once it was polled.
    fn send(&mut self, request: impl Future<Output = ()> + Send + 'static) {
        let mut request = request.boxed();
        if (&mut request).now_or_never().is_none() {
            self.under_way.push(request);
        }
    }

    fn append(&mut self, from: usize, to: usize, commit: usize) {
        let entry = |(id, command): &(LogId, Bytes)| Entry {
            log_id: *id,
            payload: EntryPayload::Normal(Command(command.clone())),
        };
        let request = AppendEntriesRequest {
            vote: self.vote(),
            prev_log_id: Some(self.id(from)),
            entries: self.entries[from..to].iter().map(entry).collect(),
            leader_commit: Some(self.id(commit)),
        };
        let raft = self.follower.raft.clone();
        self.send(async move { drop(raft.append_entries(request).await) });
    }

    fn install(&mut self, position: usize) {
        let meta = SnapshotMeta { last_log_id: Some(self.id(position)), last_membership: self.membership.clone() };
        let snapshot = Snapshot { meta, snapshot: self.states[position - 1].clone() };
        let (follower, vote) = (self.follower.clone(), self.vote());
        self.send(async move { drop(follower.install(vote, snapshot).await) });
    }
}

/// Where openraft panics from now on, as `file:line`.
fn watch_openraft() -> Arc<Mutex<Vec<String>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (noted, before) = (Arc::clone(&seen), panic::take_hook());
    panic::set_hook(Box::new(move |info| {
        if let Some(place) = info.location().filter(|place| place.file().contains("openraft")) {
            noted.lock().unwrap().push(format!("{}:{}", place.file(), place.line()));
        }
        before(info);
    }));
    seen
}

/// The Raft of the group, once it runs.
async fn running(group: &RaftGroup) -> Running {
    let running = async {
        loop {
            let running = group.running();
            if running.raft.is_initialized().await.is_ok() {
                return running;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, running).await.expect("the core is not rebuilt")
}

/// One random thing that a leader might do.
fn act(made_up: &mut MadeUp, rng: &mut Rng) {
    made_up.grow(rng.usize(1..4), rng);
    let end = made_up.entries.len();
    match rng.u32(0..12) {
        // Entries whose commit is not known yet, again and again: those that don't fit are refused.
        0..6 => {
            let from = rng.usize(0..end).max(end.saturating_sub(12));
            made_up.append(from, end, from.saturating_sub(rng.usize(0..8)));
        }
        6 => made_up.append(end.saturating_sub(2), end, end),
        7 | 8 => made_up.install(end),
        9 => {
            // Two at once: the second finds the purge of the first waiting.
            made_up.grow(2, rng);
            made_up.install(end + 1);
            made_up.append(end + 1, end + 2, 0);
            made_up.install(end + 2);
        }
        10 => made_up.term += 1,
        _ => {
            let raft = made_up.follower.raft.clone();
            made_up.send(async move { drop(raft.trigger().snapshot().await) });
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_among_unapplied_entries_and_waiting_purges_are_survived() {
    let panics = watch_openraft();
    for seed in 0..3 {
        let mut rng = Rng::with_seed(seed);
        let latency_us = Arc::new(AtomicU64::new(0));
        let reading = Arc::clone(&latency_us);
        let fsync = move |_| Duration::from_micros(reading.load(Ordering::Relaxed));
        let mut cluster = Cluster::start_with(DetectionSettings::default(), fsync).await;
        let leader = cluster.leader().await;
        cluster.publish(leader, "before").await.unwrap();
        let follower = NODES.into_iter().find(|node| *node != leader).unwrap();
        wait_until_end(&cluster.group(follower), 1).await;
        for node in NODES {
            if node != follower {
                cluster.kill(node);
            }
        }

        let group = cluster.group(follower);
        let mut made_up = MadeUp::over(&group, replica_of(leader).id.get()).await;
        for _ in 0..100 {
            if group.stop_reason().is_some() {
                made_up.under_way.clear();
                made_up.follower = running(&group).await;
            }
            latency_us.store(if rng.u32(0..4) == 0 { rng.u64(0..4_000) } else { 0 }, Ordering::Relaxed);
            act(&mut made_up, &mut rng);
            tokio::time::sleep(Duration::from_micros(rng.u64(100..1_500))).await;
        }
        latency_us.store(0, Ordering::Relaxed);

        // Whatever happened, the follower can be brought to the leader's state.
        made_up.grow(1, &mut rng);
        let end = made_up.entries.len();
        let last = Some(made_up.id(end).index);
        let brought = async {
            while group.progress().borrow().applied_index < last {
                made_up.follower = running(&group).await;
                made_up.install(end);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, brought).await.expect("the last snapshot is not installed");
        assert_eq!(ask(&group, StateMachine::machine_bytes).await, made_up.states[end - 1], "seed {seed}");
    }
    let panics = panics.lock().unwrap();
    assert!(panics.is_empty(), "{panics:?}");
}

//! What the disks hold after a run: the log of every replica, by group, and the state that a restart would make of it.

use std::collections::BTreeMap;

use quorate_model::{ClusterMap, Machine, MachineKind, NodeId, Replica, ReplicaId};
use quorate_storage::{EntryKind, LogEntry, RaftLog, StateStore, Storage, StorageError, TailCacheLimits};

use crate::checker::{GroupLogs, LogLine};
use crate::trace::hash;

/// Bytes of a log that are read at a time.
const PIECE_BYTES: u64 = 4 << 20;

/// Reads all logs. `open` opens what a node's disk holds, which nobody else may have open.
pub(crate) fn read(nodes: &[u64], open: impl Fn(u64) -> Result<Storage, String>) -> Result<Vec<GroupLogs>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let opened = nodes.iter().map(|node| Ok((NodeId::new(*node), open(*node)?)));
        all(&opened.collect::<Result<_, String>>()?).await
    })
}

async fn all(storages: &BTreeMap<NodeId, Storage>) -> Result<Vec<GroupLogs>, String> {
    let metadata: Vec<Replica> =
        storages.keys().map(|node| Replica { id: ReplicaId::of_metadata_voter(*node), node: *node }).collect();
    let mut groups = vec![group("metadata", MachineKind::Meta, &metadata, storages).await?];
    let map = cluster_map(storages).await.map_err(|error| error.to_string())?;
    for topic in map.topics.values() {
        for (id, state) in topic.partition_ids() {
            let label = format!("{}/{}", topic.name, id.index);
            groups.push(group(&label, MachineKind::Partition(id), &state.replicas, storages).await?);
        }
    }
    Ok(groups)
}

async fn group(
    label: &str,
    kind: MachineKind,
    replicas: &[Replica],
    storages: &BTreeMap<NodeId, Storage>,
) -> Result<GroupLogs, String> {
    let mut group = GroupLogs { group: label.to_owned(), replicas: BTreeMap::new(), states: BTreeMap::new() };
    for replica in replicas {
        let Some(storage) = storages.get(&replica.node) else { continue };
        let broken = |error: String| format!("{label} on node {}: {error}", replica.node);
        let mut machine = restored(storage, replica.id, kind).await.map_err(broken)?;
        let mut lines = BTreeMap::new();
        let each = |entry: &LogEntry| {
            machine.go_on(entry);
            lines.insert(entry.id.index, line(entry));
        };
        each_entry(storage, replica.id, each).await.map_err(|error| broken(error.to_string()))?;
        group.replicas.insert(replica.node.get(), lines);
        group.states.insert(replica.node.get(), hash(&machine.machine.checkpoint()));
    }
    Ok(group)
}

/// A machine, and the index from which on the log still has to be applied to it.
struct Restored {
    machine: Machine,
    next: u64,
}

/// What a restart of a replica begins with.
async fn restored(storage: &Storage, replica: ReplicaId, kind: MachineKind) -> Result<Restored, String> {
    let checkpoint = StateStore::new(storage, replica).load_checkpoint().await.map_err(|error| error.to_string())?;
    let Some(checkpoint) = checkpoint else { return Ok(Restored { machine: Machine::new(kind), next: 0 }) };
    let machine = Machine::restore(kind, &checkpoint.machine).map_err(|error| error.to_string())?;
    Ok(Restored { machine, next: checkpoint.last_applied.map_or(0, |last| last.index + 1) })
}

impl Restored {
    fn go_on(&mut self, entry: &LogEntry) {
        let index = entry.id.index;
        if index < self.next {
            return;
        }
        match entry.kind {
            EntryKind::Command => _ = self.machine.apply(index, &entry.body),
            EntryKind::Blank | EntryKind::Membership => _ = self.machine.skip(index),
        }
    }
}

fn line(entry: &LogEntry) -> LogLine {
    let mut content = vec![entry.kind as u8];
    content.extend_from_slice(&entry.body);
    LogLine { term: entry.id.term, content: hash(&content) }
}

/// Goes through a log, a piece at a time: it may be larger than the memory.
async fn each_entry(
    storage: &Storage,
    replica: ReplicaId,
    mut each: impl FnMut(&LogEntry),
) -> Result<(), StorageError> {
    let log = RaftLog::open(storage, replica, TailCacheLimits::default()).await?;
    let bounds = log.bounds();
    let end = bounds.last.map_or(0, |last| last.index + 1);
    let mut next = 0;
    while next < end {
        let entries = log.read(next..end, PIECE_BYTES).await?;
        let Some(last) = entries.last() else { break };
        next = last.id.index + 1;
        entries.iter().for_each(&mut each);
    }
    Ok(())
}

/// The cluster map, as the longest metadata log gives it.
async fn cluster_map(storages: &BTreeMap<NodeId, Storage>) -> Result<ClusterMap, StorageError> {
    let mut longest = Vec::new();
    for (node, storage) in storages {
        let mut log = Vec::new();
        each_entry(storage, ReplicaId::of_metadata_voter(*node), |entry| log.push(entry.clone())).await?;
        if log.len() > longest.len() {
            longest = log;
        }
    }
    let mut machine = Machine::new(MachineKind::Meta);
    for entry in longest {
        if entry.kind == EntryKind::Command {
            machine.apply(entry.id.index, &entry.body);
        }
    }
    Ok(machine.as_meta().map(|meta| meta.cluster_map()).unwrap_or_default())
}

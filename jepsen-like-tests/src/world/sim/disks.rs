//! What the disks hold after a run: the log of every replica, by group.

use std::collections::BTreeMap;
use std::path::Path;

use quorate_model::{ClusterMap, Machine, MachineKind, NodeId, Replica, ReplicaId};
use quorate_storage::{EntryKind, LogEntry, RaftLog, SimDisk, Storage, StorageError, TailCacheLimits};

use super::NODES;
use crate::checker::{GroupLogs, LogLine};
use crate::trace::hash;

/// The entries of one log, by index.
type Log = BTreeMap<u64, LogEntry>;

/// Reads all logs. Nobody else may have the disks open.
pub(super) fn logs(disks: &[SimDisk]) -> Result<Vec<GroupLogs>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|error| error.to_string())?;
    runtime.block_on(read(disks))
}

async fn read(disks: &[SimDisk]) -> Result<Vec<GroupLogs>, String> {
    let mut storages = BTreeMap::new();
    for (node, disk) in NODES.into_iter().zip(disks) {
        let storage = disk.open(Path::new("simulated")).map_err(|error| error.to_string())?;
        storages.insert(NodeId::new(node), storage);
    }
    let metadata: Vec<Replica> =
        storages.keys().map(|node| Replica { id: ReplicaId::of_metadata_voter(*node), node: *node }).collect();
    let mut groups = vec![group("metadata", &metadata, &storages).await?];
    let map = cluster_map(&storages).await.map_err(|error| error.to_string())?;
    for topic in map.topics.values() {
        for (id, state) in topic.partition_ids() {
            let label = format!("{}/{}", topic.name, id.index);
            groups.push(group(&label, &state.replicas, &storages).await?);
        }
    }
    Ok(groups)
}

async fn group(label: &str, replicas: &[Replica], storages: &BTreeMap<NodeId, Storage>) -> Result<GroupLogs, String> {
    let mut logs = BTreeMap::new();
    for replica in replicas {
        let Some(storage) = storages.get(&replica.node) else { continue };
        let log =
            log(storage, replica.id).await.map_err(|error| format!("{label} on node {}: {error}", replica.node))?;
        let lines = log.into_iter().map(|(index, entry)| (index, line(&entry)));
        logs.insert(replica.node.get(), lines.collect());
    }
    Ok(GroupLogs { group: label.to_owned(), replicas: logs })
}

fn line(entry: &LogEntry) -> LogLine {
    let mut content = vec![entry.kind as u8];
    content.extend_from_slice(&entry.body);
    LogLine { term: entry.id.term, content: hash(&content) }
}

async fn log(storage: &Storage, replica: ReplicaId) -> Result<Log, StorageError> {
    let log = RaftLog::open(storage, replica, TailCacheLimits::default()).await?;
    let end = log.bounds().last.map_or(0, |last| last.index + 1);
    let entries = log.read(0..end, u64::MAX).await?;
    Ok(entries.into_iter().map(|entry| (entry.id.index, entry)).collect())
}

/// The cluster map, as the longest metadata log gives it.
async fn cluster_map(storages: &BTreeMap<NodeId, Storage>) -> Result<ClusterMap, StorageError> {
    let mut longest = Log::new();
    for (node, storage) in storages {
        let log = log(storage, ReplicaId::of_metadata_voter(*node)).await?;
        if log.len() > longest.len() {
            longest = log;
        }
    }
    let mut machine = Machine::new(MachineKind::Meta);
    for (index, entry) in longest {
        if entry.kind == EntryKind::Command {
            machine.apply(index, &entry.body);
        }
    }
    Ok(machine.as_meta().map(|meta| meta.cluster_map()).unwrap_or_default())
}

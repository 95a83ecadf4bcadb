//! What the disks hold after a run: the log of every replica, by group.

use std::collections::BTreeMap;

use quorate_model::{ClusterMap, Machine, MachineKind, NodeId, Replica, ReplicaId};
use quorate_storage::{EntryKind, LogEntry, RaftLog, Storage, StorageError, TailCacheLimits};

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
    let mut groups = vec![group("metadata", &metadata, storages).await?];
    let map = cluster_map(storages).await.map_err(|error| error.to_string())?;
    for topic in map.topics.values() {
        for (id, state) in topic.partition_ids() {
            let label = format!("{}/{}", topic.name, id.index);
            groups.push(group(&label, &state.replicas, storages).await?);
        }
    }
    Ok(groups)
}

async fn group(label: &str, replicas: &[Replica], storages: &BTreeMap<NodeId, Storage>) -> Result<GroupLogs, String> {
    let mut logs = BTreeMap::new();
    for replica in replicas {
        let Some(storage) = storages.get(&replica.node) else { continue };
        let mut lines = BTreeMap::new();
        let each = |entry: &LogEntry| _ = lines.insert(entry.id.index, line(entry));
        let read = each_entry(storage, replica.id, each).await;
        read.map_err(|error| format!("{label} on node {}: {error}", replica.node))?;
        logs.insert(replica.node.get(), lines);
    }
    Ok(GroupLogs { group: label.to_owned(), replicas: logs })
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

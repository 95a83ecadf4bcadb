//! openraft's state machine over [`Machine`]: committed entries in, replies and index rows out.
//!
//! State lives in memory. A checkpoint of it is written now and then through the same first-in-first-out
//! writer as the log, so a durable checkpoint never speaks of entries that aren't durable (rule R1 of
//! ADR 0002); a restart loads the newest and applies the log behind it again. Applying is deterministic and
//! its rows are idempotent, so applying twice changes nothing.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use quorate_model::{Applied, Change, ClusterMap, IndexSegment, Machine, MachineKind, Reply};
use quorate_storage::{Checkpoint, RaftLog, StateStore};
use tokio::sync::watch;

use crate::codec;
use crate::group::Progress;
use crate::log_store::storage_io;
use crate::types::{Command, Entry, LogId, Snapshot, SnapshotMeta, StoredMembership, Types};

/// A checkpoint is due after this many entries …
const CHECKPOINT_ENTRIES: u64 = 1024;
/// … or this many bytes of commands, whichever comes first: the bound on what a restart applies again.
const CHECKPOINT_BYTES: u64 = 8 << 20;
/// Entries applied before their replies are sent and progress is published.
const APPLY_CHUNK: usize = 256;

/// What the rest of the node sees of a machine's progress. Outlives the machine: a rebuilt group goes on
/// publishing to the same watchers.
pub(crate) struct Published {
    pub(crate) progress: watch::Sender<Progress>,
    /// Of the metadata group only.
    pub(crate) map: Option<watch::Sender<Arc<ClusterMap>>>,
}

impl Published {
    pub(crate) fn new(kind: MachineKind) -> Self {
        Self {
            progress: watch::Sender::new(Progress::default()),
            map: matches!(kind, MachineKind::Meta).then(|| watch::Sender::new(Arc::new(ClusterMap::default()))),
        }
    }
}

pub(crate) struct StateMachine {
    kind: MachineKind,
    machine: Machine,
    last_applied: Option<LogId>,
    membership: StoredMembership,
    log: RaftLog,
    store: StateStore,
    published: Arc<Published>,
    /// Entries and bytes applied since the last checkpoint.
    unsaved_entries: u64,
    unsaved_bytes: u64,
    /// The newest snapshot built or installed: what a follower behind the log start would get.
    snapshot: Option<(SnapshotMeta, Bytes)>,
}

impl StateMachine {
    /// Loads the newest checkpoint.
    pub(crate) async fn open(
        kind: MachineKind,
        log: RaftLog,
        store: StateStore,
        published: Arc<Published>,
    ) -> io::Result<Self> {
        let mut this = Self {
            kind,
            machine: Machine::new(kind),
            last_applied: None,
            membership: StoredMembership::default(),
            log,
            store,
            published,
            unsaved_entries: 0,
            unsaved_bytes: 0,
            snapshot: None,
        };
        if let Some(checkpoint) = this.store.load_checkpoint().await.map_err(storage_io)? {
            let meta = SnapshotMeta {
                last_log_id: checkpoint.last_applied.map(codec::entry_id_to_log_id),
                last_membership: codec::stored_membership_from_bytes(&checkpoint.membership)?,
            };
            this.restore(&meta, &checkpoint.machine)?;
            // A log that begins behind a purge can only be followed from a snapshot; any checkpoint is one.
            this.snapshot = this.log.bounds().purged.map(|_| (meta, checkpoint.machine));
        }
        this.publish(true);
        Ok(this)
    }

    /// Writes a checkpoint of the current state behind everything that was written before.
    pub(crate) fn save_checkpoint(&mut self) -> Checkpoint {
        let checkpoint = self.checkpoint();
        self.store.save_checkpoint(&checkpoint);
        self.unsaved_entries = 0;
        self.unsaved_bytes = 0;
        checkpoint
    }

    fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            last_applied: self.last_applied.as_ref().map(codec::log_id_to_entry_id),
            membership: codec::stored_membership_to_bytes(&self.membership),
            machine: self.machine.checkpoint(),
        }
    }

    fn restore(&mut self, meta: &SnapshotMeta, machine: &Bytes) -> io::Result<()> {
        self.machine = Machine::restore(self.kind, machine).map_err(io::Error::other)?;
        self.last_applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        Ok(())
    }

    /// Applies one entry; returns its reply, if it is a command, and the index segments it closed.
    fn apply_entry(&mut self, entry: Entry, segments: &mut Vec<IndexSegment>) -> Option<Reply> {
        let index = entry.log_id.index;
        self.last_applied = Some(entry.log_id);
        self.unsaved_entries += 1;
        let (reply, changes) = match entry.payload {
            EntryPayload::Blank => (None, self.machine.skip(index)),
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(self.last_applied, membership);
                (None, self.machine.skip(index))
            }
            EntryPayload::Normal(Command(bytes)) => {
                self.unsaved_bytes += bytes.len() as u64;
                let Applied { reply, changes, .. } = self.machine.apply(index, &bytes);
                (Some(reply), changes)
            }
        };
        segments.extend(changes.into_iter().map(|Change::Segment(segment)| segment));
        reply
    }

    fn publish(&self, map_changed: bool) {
        let applied_index = self.last_applied.as_ref().map(|id| id.index);
        match &self.machine {
            Machine::Partition(partition) => {
                self.published.progress.send_replace(Progress {
                    applied_index,
                    log_start: partition.log_start(),
                    end: partition.next_offset(),
                    bytes: partition.bytes(),
                    open_segment: Some(*partition.open_segment()),
                });
            }
            Machine::Meta(meta) => {
                self.published.progress.send_replace(Progress { applied_index, ..Progress::default() });
                if let (true, Some(map)) = (map_changed, &self.published.map) {
                    map.send_replace(Arc::new(meta.cluster_map()));
                }
            }
        }
    }

    fn snapshot_of(meta: &SnapshotMeta, data: &Bytes) -> Snapshot {
        Snapshot { meta: meta.clone(), snapshot: data.clone() }
    }
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.last_applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        let mut chunks = entries.ready_chunks(APPLY_CHUNK);
        while let Some(chunk) = chunks.next().await {
            let mut segments = Vec::new();
            let mut replies = Vec::with_capacity(chunk.len());
            for item in chunk {
                let (entry, responder) = item?;
                let reply = self.apply_entry(entry, &mut segments);
                replies.extend(responder.map(|responder| (responder, reply)));
            }
            if !segments.is_empty() {
                self.store.put_segments(segments);
            }
            // Publish before replying: whoever was told of a record can read it here.
            self.publish(true);
            for (responder, reply) in replies {
                responder.send(reply);
            }
            if self.unsaved_entries >= CHECKPOINT_ENTRIES || self.unsaved_bytes >= CHECKPOINT_BYTES {
                self.save_checkpoint();
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let data = self.save_checkpoint().machine;
        let meta = SnapshotMeta { last_log_id: self.last_applied, last_membership: self.membership.clone() };
        self.snapshot = Some((meta.clone(), data.clone()));
        Builder { meta, data }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: Bytes) -> io::Result<()> {
        self.restore(meta, &data)?;
        // Checkpoint and purge are one write: a state ahead of its log would look like a log that lost its end.
        self.store.install_checkpoint(&self.log, &self.checkpoint()).await.map_err(storage_io)?;
        self.snapshot = Some((meta.clone(), data));
        self.publish(true);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        Ok(self.snapshot.as_ref().map(|(meta, data)| Self::snapshot_of(meta, data)))
    }
}

/// A snapshot is a few kilobytes and is taken with the machine at hand: nothing is left to build.
pub(crate) struct Builder {
    meta: SnapshotMeta,
    data: Bytes,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        Ok(StateMachine::snapshot_of(&self.meta, &self.data))
    }
}

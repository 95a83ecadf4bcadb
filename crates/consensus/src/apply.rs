//! openraft's state machine over [`Machine`]: committed entries in, replies and index rows out.
//!
//! State lives in memory. A checkpoint of it is written now and then through the same first-in-first-out
//! writer as the log, so a durable checkpoint never speaks of entries that aren't durable (rule R1 of
//! ADR 0002); a restart loads the newest and applies the log behind it again. Applying is deterministic and
//! its rows are idempotent, so applying twice changes nothing.
//!
//! A partition's snapshot is not its newest checkpoint but the one that was kept where the log begins: a follower
//! that the log no longer reaches gets that one and then the log, as any other follower does (ADR 0011).

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use quorate_model::sabotage::{Bug, is_planted};
use quorate_model::{Applied, Change, ClusterMap, IndexSegment, Machine, MachineKind, Offset, Reply, Stretches};
use quorate_storage::{Checkpoint, RaftLog, StateStore};
use tokio::sync::watch;

use crate::codec;
use crate::group::Progress;
use crate::log_store::storage_io;
use crate::snapshot::{Cut, CutPoint};
use crate::types::{Command, Entry, LogId, Snapshot, SnapshotMeta, StoredMembership, Types};

/// A checkpoint is due after this many entries …
const CHECKPOINT_ENTRIES: u64 = 1024;
/// … or this many bytes of commands, whichever comes first …
const CHECKPOINT_BYTES: u64 = 8 << 20;
/// … but not before the log has grown by this many times the size of the last one: a partition with thousands of
/// producers would write more checkpoints than records. Together the bound on what a restart applies again.
const CHECKPOINT_SHARE: u64 = 8;
/// What an entry weighs in that comparison besides its command.
const ENTRY_BYTES: u64 = 64;
/// Entries applied before their replies are sent and progress is published.
const APPLY_CHUNK: usize = 256;

/// What the rest of the node sees of a machine's progress. Outlives the machine: a rebuilt group goes on
/// publishing to the same watchers.
pub(crate) struct Published {
    /// The state itself, for a look at it. Locked for a few lines at a time.
    machine: Mutex<Machine>,
    pub(crate) progress: watch::Sender<Progress>,
    /// Of a partition: where its log may be cut.
    pub(crate) stretches: watch::Sender<Arc<Stretches>>,
    /// Of the metadata group only.
    pub(crate) map: Option<watch::Sender<Arc<ClusterMap>>>,
}

impl Published {
    pub(crate) fn new(kind: MachineKind) -> Self {
        Self {
            machine: Mutex::new(Machine::new(kind)),
            progress: watch::Sender::new(Progress::default()),
            stretches: watch::Sender::new(Arc::default()),
            map: matches!(kind, MachineKind::Meta).then(|| watch::Sender::new(Arc::new(ClusterMap::default()))),
        }
    }
}

impl Published {
    pub(crate) fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) struct StateMachine {
    kind: MachineKind,
    last_applied: Option<LogId>,
    membership: StoredMembership,
    log: RaftLog,
    store: StateStore,
    published: Arc<Published>,
    /// How far the log may be purged, for the log store.
    cut: Arc<Cut>,
    /// Log index of the mark at which the log should be cut, for whoever asks openraft to do it.
    trimmed: watch::Sender<Option<u64>>,
    /// Entries and bytes applied since the last checkpoint.
    unsaved_entries: u64,
    unsaved_bytes: u64,
    /// The newest checkpoint: the index of its last entry and its size.
    saved_index: Option<u64>,
    saved_bytes: u64,
    /// The newest snapshot built or installed: what a follower behind the log start gets. Its rows are in the store.
    snapshot: Option<SnapshotMeta>,
    /// The log holds no records below this offset, whatever a machine that was restored from an older state says.
    floor: Offset,
}

impl StateMachine {
    /// Loads the newest checkpoint.
    pub(crate) async fn open(
        kind: MachineKind,
        log: RaftLog,
        store: StateStore,
        cut: Arc<Cut>,
        published: Arc<Published>,
    ) -> io::Result<Self> {
        *published.machine() = Machine::new(kind);
        let mut this = Self {
            kind,
            last_applied: None,
            membership: StoredMembership::default(),
            log,
            store,
            published,
            cut,
            trimmed: watch::Sender::new(None),
            unsaved_entries: 0,
            unsaved_bytes: 0,
            saved_index: None,
            saved_bytes: 0,
            snapshot: None,
            floor: Offset::ZERO,
        };
        if let Some(checkpoint) = this.store.load_checkpoint().await.map_err(storage_io)? {
            let meta = meta_of(&checkpoint)?;
            this.restore(&meta, &checkpoint.machine)?;
            this.saved_index = index_of(&meta);
            this.saved_bytes = checkpoint.machine.len() as u64;
        }
        if let Some(purged) = this.log.bounds().purged {
            this.load_snapshot(purged.index).await?;
        }
        this.trimmed.send_replace(this.trimmed_index());
        this.publish_stretches();
        this.publish(true);
        Ok(this)
    }

    /// A log that was purged can only be followed from the checkpoint that was kept there.
    async fn load_snapshot(&mut self, purged: u64) -> io::Result<()> {
        let kept = self.store.oldest_kept_checkpoint().await.map_err(storage_io)?;
        let kept = kept.filter(|kept| kept.last_applied.is_some_and(|id| id.index >= purged));
        let kept =
            kept.ok_or_else(|| io::Error::other(format!("the log was purged to {purged} without a checkpoint")))?;
        let meta = meta_of(&kept)?;
        let machine = Machine::restore(self.kind, &kept.machine).map_err(io::Error::other)?;
        self.floor = machine.as_partition().map_or(Offset::ZERO, |partition| partition.next_offset());
        self.adopt_snapshot(meta);
        Ok(())
    }

    /// From now on followers may be given this snapshot, and the log may be purged up to it.
    fn adopt_snapshot(&mut self, meta: SnapshotMeta) {
        let log_start = self.machine().as_partition().map(|partition| partition.log_start().max(self.floor));
        self.cut.set(index_of(&meta).map(|index| CutPoint { index, log_start }));
        self.snapshot = Some(meta);
    }

    /// Follows the log index of the mark at which the log should be cut.
    pub(crate) fn watch_trims(&self) -> watch::Receiver<Option<u64>> {
        self.trimmed.subscribe()
    }

    fn trimmed_index(&self) -> Option<u64> {
        self.machine().as_partition()?.retained().stretches.trimmed_index()
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.published.machine()
    }

    #[cfg(test)]
    pub(crate) fn applied_since_checkpoint(&self) -> u64 {
        self.unsaved_entries
    }

    #[cfg(test)]
    pub(crate) fn machine_bytes(&self) -> Bytes {
        self.machine().checkpoint()
    }

    /// Writes a checkpoint of the current state behind everything that was written before.
    pub(crate) fn save_checkpoint(&mut self) -> Checkpoint {
        let checkpoint = self.checkpoint();
        self.store.save_checkpoint(&checkpoint);
        self.unsaved_entries = 0;
        self.unsaved_bytes = 0;
        self.saved_index = checkpoint.last_applied.map(|id| id.index);
        self.saved_bytes = checkpoint.machine.len() as u64;
        checkpoint
    }

    fn checkpoint_is_due(&self) -> bool {
        let enough = self.unsaved_entries >= CHECKPOINT_ENTRIES || self.unsaved_bytes >= CHECKPOINT_BYTES;
        let grown = self.unsaved_bytes + self.unsaved_entries * ENTRY_BYTES;
        enough && grown >= self.saved_bytes * CHECKPOINT_SHARE
    }

    fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            last_applied: self.last_applied.as_ref().map(codec::log_id_to_entry_id),
            membership: codec::stored_membership_to_bytes(&self.membership),
            machine: self.machine().checkpoint(),
        }
    }

    fn restore(&mut self, meta: &SnapshotMeta, machine: &Bytes) -> io::Result<()> {
        *self.machine() = Machine::restore(self.kind, machine).map_err(io::Error::other)?;
        self.last_applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        Ok(())
    }

    /// Applies one entry; returns its reply, if it is a command, and the index segments it closed.
    fn apply_entry(&mut self, entry: Entry, segments: &mut Vec<IndexSegment>) -> Option<Reply> {
        let index = entry.log_id.index;
        self.last_applied = Some(entry.log_id);
        self.unsaved_entries += 1;
        let before = is_planted(Bug::SnapshotLacksLastEntry).then(|| self.machine().checkpoint());
        let (reply, changes) = match entry.payload {
            EntryPayload::Blank => (None, self.machine().skip(index)),
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(self.last_applied, membership);
                (None, self.machine().skip(index))
            }
            EntryPayload::Normal(Command(bytes)) => {
                self.unsaved_bytes += bytes.len() as u64;
                let Applied { reply, changes, .. } = self.machine().apply(index, &bytes);
                (Some(reply), changes)
            }
        };
        for change in changes {
            match change {
                Change::Segment(segment) => segments.push(segment),
                Change::Lanes(positions) => self.store.put_places(&positions),
                Change::LanesTrimmed(trimmed) => self.store.trim_lanes(&trimmed),
                Change::Checkpoint => {
                    let mut checkpoint = self.checkpoint();
                    if let Some(before) = &before {
                        checkpoint.machine = before.clone();
                    }
                    self.store.keep_checkpoint(&checkpoint);
                    self.publish_stretches();
                }
            }
        }
        reply
    }

    /// After retention moved the log start: the log can be cut once no restart needs what goes.
    fn follow_log_start(&mut self) {
        let trimmed = self.trimmed_index();
        if *self.trimmed.borrow() == trimmed {
            return;
        }
        if self.saved_index < trimmed {
            self.save_checkpoint();
        }
        self.publish_stretches();
        self.trimmed.send_replace(trimmed);
    }

    fn publish_stretches(&self) {
        if let Machine::Partition(partition) = &*self.machine() {
            self.published.stretches.send_replace(Arc::new(partition.retained().stretches.clone()));
        }
    }

    fn publish(&self, map_changed: bool) {
        let applied_index = self.last_applied.as_ref().map(|id| id.index);
        match &*self.machine() {
            Machine::Partition(partition) => {
                let retained = partition.retained();
                self.published.progress.send_replace(Progress {
                    applied_index,
                    log_start: partition.log_start().max(self.floor),
                    end: partition.next_offset(),
                    bytes: partition.bytes(),
                    seeks: partition.subscriptions().seeks(),
                    deletions: partition.deleted().deletions(),
                    deleted: partition.deleted().count(),
                    open_segment: Some(*partition.open_segment()),
                    appended_bytes: retained.appended_bytes,
                    open_since_ms: retained.open_since_ms,
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
                if let (None, Machine::Partition(partition)) = (&responder, &mut *self.machine()) {
                    partition.sabotage_followers();
                }
                replies.extend(responder.map(|responder| (responder, reply)));
            }
            if !segments.is_empty() {
                self.store.put_segments(segments);
            }
            self.follow_log_start();
            // Publish before replying: whoever was told of a record can read it here.
            self.publish(true);
            for (responder, reply) in replies {
                responder.send(reply);
            }
            if self.checkpoint_is_due() {
                self.save_checkpoint();
            }
        }
        Ok(())
    }

    /// A snapshot of the present. Of a partition only where nothing was trimmed: the log would be purged up to it.
    async fn get_snapshot_builder(&mut self) -> Builder {
        let checkpoint = self.save_checkpoint();
        let meta = SnapshotMeta { last_log_id: self.last_applied, last_membership: self.membership.clone() };
        if meta.last_log_id.is_some() {
            self.store.keep_checkpoint(&checkpoint);
            self.adopt_snapshot(meta.clone());
        }
        Builder { meta, data: checkpoint.machine }
    }

    /// The metadata group's snapshot is its present, a partition's the checkpoint at which the log should be cut; none
    /// if the newest snapshot is that already. Whatever is wrong with it is no reason to stop the group, as an
    /// error of the builder would be: the log only stays longer.
    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<Builder> {
        if self.machine().as_meta().is_some() {
            return Some(self.get_snapshot_builder().await);
        }
        let trimmed = self.trimmed_index().filter(|index| self.snapshot.as_ref().and_then(index_of) < Some(*index))?;
        let kept = self.store.kept_checkpoint(trimmed).await.map_err(storage_io);
        let found = kept.and_then(|kept| kept.ok_or_else(|| io::Error::other("there is none")));
        match found.and_then(|checkpoint| Ok((meta_of(&checkpoint)?, checkpoint.machine))) {
            Ok((meta, data)) => {
                self.adopt_snapshot(meta.clone());
                Some(Builder { meta, data })
            }
            Err(error) => {
                tracing::error!(%error, trimmed, "the checkpoint at the log start can't be read; the log is not cut");
                None
            }
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: Bytes) -> io::Result<()> {
        self.restore(meta, &data)?;
        let end = self.machine().as_partition().map_or(Offset::ZERO, |partition| partition.next_offset());
        self.floor = end;
        // Checkpoint and purge are one write: a state ahead of its log would look like a log that lost its end.
        self.store.install_checkpoint(&self.log, &self.checkpoint()).await.map_err(storage_io)?;
        (self.unsaved_entries, self.unsaved_bytes) = (0, 0);
        (self.saved_index, self.saved_bytes) = (index_of(meta), data.len() as u64);
        self.adopt_snapshot(meta.clone());
        self.trimmed.send_replace(self.trimmed_index());
        self.publish_stretches();
        self.publish(true);
        let (replica, index, log_start) = (self.store.replica(), self.saved_index, self.floor);
        tracing::info!(%replica, index, %log_start, "left behind by the log, went on from the leader's snapshot");
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let Some(meta) = self.snapshot.clone() else { return Ok(None) };
        let Some(index) = index_of(&meta) else { return Ok(None) };
        let kept = self.store.kept_checkpoint(index).await.map_err(storage_io)?;
        let kept = kept.ok_or_else(|| io::Error::other(format!("the checkpoint kept at {index} is gone")))?;
        Ok(Some(Snapshot { meta, snapshot: kept.machine }))
    }
}

fn meta_of(checkpoint: &Checkpoint) -> io::Result<SnapshotMeta> {
    Ok(SnapshotMeta {
        last_log_id: checkpoint.last_applied.map(codec::entry_id_to_log_id),
        last_membership: codec::stored_membership_from_bytes(&checkpoint.membership)?,
    })
}

fn index_of(meta: &SnapshotMeta) -> Option<u64> {
    meta.last_log_id.as_ref().map(|id| id.index)
}

/// A snapshot is a checkpoint that was read when the builder was made: nothing is left to build.
pub(crate) struct Builder {
    meta: SnapshotMeta,
    data: Bytes,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        Ok(Snapshot { meta: self.meta.clone(), snapshot: self.data.clone() })
    }
}

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use quorate_model::ReplicaId;

use crate::engine::{Direction, Durability, LogDevice, RowOp, RowReader, ScanLimit, Table};
use crate::entry::{EntryId, LogEntry};
use crate::error::{OpenError, StorageError};
use crate::keys;
use crate::storage::{EngineControl, Storage};

/// A disk in memory that can lose power. It outlives the node that uses it; cloning gives another
/// handle to the same disk.
///
/// ```text
///   commits:  ─────── synced ───────┤──── not synced yet ────┤
///   crash:    all of them stay      │ a prefix, chosen at random, stays
/// ```
///
/// A commit is never torn: that is what a write-ahead log with checksums gives, and the engine of
/// production is one. The random choice comes from `fastrand`, which the simulation seeds.
#[derive(Clone)]
pub struct SimDisk {
    disk: Arc<Mutex<Disk>>,
    latency: Arc<dyn Fn() -> Duration + Send + Sync>,
}

type Rows = BTreeMap<(Table, Bytes), Bytes>;

#[derive(Default)]
struct Disk {
    /// What survives a power loss for certain.
    synced: Rows,
    /// What a reader sees: the synced rows and all commits after them.
    visible: Rows,
    /// Commits in order that a power loss may take.
    unsynced: Vec<Vec<RowOp>>,
    /// Commits before the first of them, over the disk's life.
    synced_commits: u64,
    /// How long the sync follows after its acknowledgement; none on an honest disk.
    lateness: Option<Duration>,
    /// Counts openings and crashes; a storage of an earlier one is dead.
    generation: u64,
    in_use: bool,
    commits_to_failure: Option<u64>,
}

impl SimDisk {
    /// An empty disk. `latency` is asked how long each synced commit takes.
    pub fn new(latency: impl Fn() -> Duration + Send + Sync + 'static) -> SimDisk {
        SimDisk { disk: Arc::default(), latency: Arc::new(latency) }
    }

    /// Opens the disk, with its writer as a task of the current runtime. `dir` is only for messages.
    ///
    /// What is found is durable from then on, as with the engine of production, which writes what it
    /// recovers to files and syncs them: a node must be able to rely on the vote it has just read.
    pub fn open(&self, dir: &Path) -> Result<Storage, OpenError> {
        let generation = {
            let mut disk = self.lock();
            if disk.in_use {
                return Err(OpenError::InUse { dir: dir.to_owned() });
            }
            disk.in_use = true;
            let recovered = disk.commits();
            disk.sync(recovered);
            disk.generation += 1;
            disk.generation
        };
        let handle = SimHandle { sim: self.clone(), generation };
        Ok(Storage::on_this_runtime(handle.clone(), Arc::new(handle.clone()), Arc::new(handle)))
    }

    /// Power loss: the synced commits stay, and a random prefix of the others. Every open storage is dead.
    /// Returns how many commits are lost.
    pub fn crash(&self) -> usize {
        let mut disk = self.lock();
        disk.detach();
        let unsynced = disk.unsynced.len();
        let kept = if disk.lateness.is_some() { 0 } else { fastrand::usize(..=unsynced) };
        let upto = disk.synced_commits + kept as u64;
        disk.sync(upto);
        disk.unsynced.clear();
        disk.visible = disk.synced.clone();
        unsynced - kept
    }

    /// The process dies and the machine stays up: the page cache keeps every commit. Every open storage
    /// is dead.
    pub fn kill(&self) {
        self.lock().detach();
    }

    /// Whether a power loss now would leave an entry of a replica's log, or what stands for the beginning of the log that
    /// held it; `None` if it would leave nothing of the replica, not even a vote. The disk may be in use.
    pub fn would_keep(&self, replica: ReplicaId, id: EntryId) -> Option<bool> {
        let disk = self.lock();
        let row = |table, key: Vec<u8>| disk.synced.get(&(table, Bytes::from(key)));
        row(Table::Raft, keys::vote(replica))?;
        let purged = row(Table::Raft, keys::purged(replica)).and_then(|row| EntryId::from_bytes(row));
        let entry = row(Table::Log, keys::entry(replica, id.index));
        let entry = entry.and_then(|row| LogEntry::from_row(id.index, row).ok());
        Some(purged.is_some_and(|purged| purged.index >= id.index) || entry.is_some_and(|entry| entry.id == id))
    }

    /// Lets `commits` more commits succeed; the one after them fails, and what it leaves is unknown.
    pub fn fail_after(&self, commits: u64) {
        self.lock().commits_to_failure = Some(commits);
    }

    /// From now on the disk lies, as some do to look fast: it acknowledges a synced commit `lateness` before
    /// it is synced. For tests that show that tests would notice. A power loss takes all that isn't synced then,
    /// so that disks which lie alike and lose their power together go back to one moment of the past.
    pub fn acknowledge_early(&self, lateness: Duration) {
        self.lock().lateness = Some(lateness);
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk {
    fn detach(&mut self) {
        self.generation += 1;
        self.in_use = false;
        self.commits_to_failure = None;
    }

    /// Commits over the disk's life, those that a power loss took not counted.
    fn commits(&self) -> u64 {
        self.synced_commits + self.unsynced.len() as u64
    }

    /// Makes the first `commits` of the disk's life durable.
    fn sync(&mut self, commits: u64) {
        while self.synced_commits < commits && !self.unsynced.is_empty() {
            apply(&mut self.synced, &self.unsynced.remove(0));
            self.synced_commits += 1;
        }
    }
}

fn apply(rows: &mut Rows, ops: &[RowOp]) {
    for op in ops {
        match op {
            RowOp::Put { table, key, value } => {
                rows.insert((*table, Bytes::copy_from_slice(key)), value.clone());
            }
            RowOp::Delete { table, key } => {
                rows.remove(&(*table, Bytes::copy_from_slice(key)));
            }
            RowOp::DeleteRange { table, from, to } => {
                let range = bounds(*table, from, to);
                let gone: Vec<_> = rows.range(range).map(|(key, _)| key.clone()).collect();
                for key in gone {
                    rows.remove(&key);
                }
            }
        }
    }
}

/// An empty range where the end lies before the start, which a map would refuse.
fn bounds(table: Table, from: &[u8], to: &[u8]) -> Range<(Table, Bytes)> {
    let key = |bytes: &[u8]| (table, Bytes::copy_from_slice(bytes));
    key(from)..key(to.max(from))
}

/// The disk as one opening of it sees it.
#[derive(Clone)]
struct SimHandle {
    sim: SimDisk,
    generation: u64,
}

impl SimHandle {
    fn lock(&self) -> Result<MutexGuard<'_, Disk>, StorageError> {
        let disk = self.sim.lock();
        if disk.generation == self.generation { Ok(disk) } else { Err(StorageError::Closed) }
    }
}

impl SimHandle {
    async fn sync_later(self, commits: u64, lateness: Duration) {
        tokio::time::sleep(lateness).await;
        // A disk that has lost its power meanwhile syncs nothing any more.
        if let Ok(mut disk) = self.lock() {
            disk.sync(commits);
        }
    }
}

impl LogDevice for SimHandle {
    async fn commit(&mut self, ops: Vec<RowOp>, durability: Durability) -> Result<(), StorageError> {
        // Only what is there when the sync begins is synced by it.
        let (captured, lateness) = {
            let mut disk = self.lock()?;
            apply(&mut disk.visible, &ops);
            disk.unsynced.push(ops);
            match disk.commits_to_failure.as_mut() {
                Some(0) => return Err(StorageError::Io { detail: "injected failure".to_owned() }),
                Some(left) => *left -= 1,
                None => {}
            }
            (disk.commits(), disk.lateness)
        };
        if durability == Durability::Synced {
            tokio::time::sleep((self.sim.latency)()).await;
            match lateness {
                None => self.lock()?.sync(captured),
                Some(lateness) => drop(tokio::spawn(self.clone().sync_later(captured, lateness))),
            }
        }
        Ok(())
    }
}

impl RowReader for SimHandle {
    fn get(&self, table: Table, key: Vec<u8>) -> BoxFuture<'static, Result<Option<Bytes>, StorageError>> {
        let row = self.lock().map(|disk| disk.visible.get(&(table, Bytes::from(key))).cloned());
        async move { row }.boxed()
    }

    fn scan(
        &self,
        table: Table,
        range: Range<Vec<u8>>,
        limit: ScanLimit,
        direction: Direction,
    ) -> BoxFuture<'static, Result<Vec<(Bytes, Bytes)>, StorageError>> {
        let rows = self.lock().map(|disk| {
            let all = disk.visible.range(bounds(table, &range.start, &range.end));
            match direction {
                Direction::Forward => take(all, limit),
                Direction::Backward => take(all.rev(), limit),
            }
        });
        async move { rows }.boxed()
    }
}

fn take<'a>(rows: impl Iterator<Item = (&'a (Table, Bytes), &'a Bytes)>, limit: ScanLimit) -> Vec<(Bytes, Bytes)> {
    let mut taken = Vec::new();
    let mut bytes = 0;
    for ((_, key), value) in rows.take(limit.rows.max(1)) {
        bytes += value.len() as u64;
        taken.push((key.clone(), value.clone()));
        if bytes >= limit.bytes {
            break;
        }
    }
    taken
}

impl EngineControl for SimHandle {
    fn properties(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        if let Ok(mut disk) = self.lock() {
            disk.detach();
        }
        async {}.boxed()
    }
}

#[cfg(test)]
#[path = "sim_tests.rs"]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::thread;

use futures::future::BoxFuture;
use quorate_model::ReplicaId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::engine::{Direction, Durability, LogDevice, RowOp, RowReader, ScanLimit, Table};
use crate::error::{OpenError, StorageError};
use crate::identity::NodeIdentity;
use crate::keys;
use crate::log_writer::{BatchReport, Completion, LogWriter};
use crate::rocks::{self, RocksOptions};
use crate::tail_cache::TailBudget;

/// One node's disk: a writer, a reader, and all replicas' rows. Cloning gives another handle.
#[derive(Clone)]
pub struct Storage {
    writer: LogWriter,
    reader: Arc<dyn RowReader>,
    control: Arc<dyn EngineControl>,
    tails: Arc<TailBudget>,
    catch_up: Arc<Semaphore>,
}

/// Readers of records that may be at the disk at the same time: one less than there are threads to read it, so
/// that a follower's catching up, or a replica's, never waits behind all the consumers that are far behind.
const CATCH_UP_READS: usize = 1;

/// What an engine offers besides rows.
pub(crate) trait EngineControl: Send + Sync + 'static {
    /// Named gauges.
    fn properties(&self) -> Vec<(&'static str, u64)>;

    /// Called after the writer has stopped; frees all that keeps the folder in use.
    fn close(&self) -> BoxFuture<'static, ()>;
}

/// Counters since the storage was opened, and gauges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageMetrics {
    /// Commits, synced or not.
    pub commits: u64,
    /// Commits that ended with an fsync.
    pub syncs: u64,
    /// Row operations committed.
    pub ops: u64,
    /// Bytes of keys and values committed.
    pub bytes: u64,
    /// Bytes enqueued and not yet committed.
    pub queued_bytes: u64,
    /// Bytes in the tail caches of all replicas.
    pub tail_cache_bytes: u64,
    /// The engine's own gauges, by its own names; empty in simulation.
    pub engine: Vec<(&'static str, u64)>,
}

impl Storage {
    /// Opens or creates the database in `dir` and starts its writer and reader threads.
    pub fn open_rocks(dir: &Path, options: &RocksOptions) -> Result<Storage, OpenError> {
        let parts = rocks::open(dir, options)?;
        let reader = parts.control.reader();
        let (writer, run) = LogWriter::new(parts.device);
        thread::Builder::new()
            .name("quorate-log-writer".to_owned())
            .spawn(move || futures::executor::block_on(run))
            .map_err(|error| OpenError::Io { dir: dir.to_owned(), detail: error.to_string() })?;
        Ok(Storage::of(writer, reader, Arc::new(parts.control)))
    }

    /// Joins a device and a reader of the same rows, with the writer as a task of the current runtime.
    pub(crate) fn on_this_runtime(
        device: impl LogDevice,
        reader: Arc<dyn RowReader>,
        control: Arc<dyn EngineControl>,
    ) -> Storage {
        let (writer, run) = LogWriter::new(device);
        tokio::spawn(run);
        Storage::of(writer, reader, control)
    }

    fn of(writer: LogWriter, reader: Arc<dyn RowReader>, control: Arc<dyn EngineControl>) -> Storage {
        let (tails, catch_up) = (Arc::new(TailBudget::new()), Arc::new(Semaphore::new(CATCH_UP_READS)));
        Storage { writer, reader, control, tails, catch_up }
    }

    /// Bounds the bytes that the tail caches of all replicas hold together; 64 MiB unless this is called. Entries
    /// that are not durable yet are kept beyond it.
    pub fn limit_tail_caches(&self, bytes: u64) {
        self.tails.set_bytes_max(bytes);
    }

    pub(crate) fn tails(&self) -> &Arc<TailBudget> {
        &self.tails
    }

    /// A reader's turn at the disk: readers take turns, first come first served, and a turn is one bounded read.
    /// Nothing that consensus waits for needs one.
    pub(crate) async fn catch_up_turn(&self) -> Option<OwnedSemaphorePermit> {
        // Never closed, so that there is always a turn.
        Arc::clone(&self.catch_up).acquire_owned().await.ok()
    }

    /// Whose disk this is; none if it is new.
    pub async fn load_identity(&self) -> Result<Option<NodeIdentity>, StorageError> {
        let row = self.reader.get(Table::Node, keys::identity()).await?;
        row.map(|row| NodeIdentity::from_row(&row)).transpose()
    }

    /// Makes this the disk of a node, durably.
    pub async fn save_identity(&self, identity: &NodeIdentity) -> Result<(), StorageError> {
        self.commit(vec![RowOp::Put { table: Table::Node, key: keys::identity(), value: identity.to_row() }]).await
    }

    /// Enqueues rows. They are committed atomically, after all that was enqueued before, and are
    /// durable when `done` runs.
    pub fn write(&self, ops: Vec<RowOp>, done: Completion) {
        self.writer.write(ops, Durability::Synced, done);
    }

    /// Enqueues rows whose order matters but whose loss in a crash does not. `done` runs when they can
    /// be read; they cause no fsync, and are durable as soon as anything enqueued after them is.
    pub fn write_ordered(&self, ops: Vec<RowOp>, done: Completion) {
        self.writer.write(ops, Durability::Ordered, done);
    }

    /// Like [`Storage::write`], and waits. If the future is dropped the rows are still written.
    pub async fn commit(&self, ops: Vec<RowOp>) -> Result<(), StorageError> {
        let (done, committed) = oneshot::channel();
        // The caller may be gone when the write is done; there is nobody to tell then.
        self.write(ops, Completion::call(move |result| drop(done.send(result))));
        committed.await.unwrap_or(Err(StorageError::Closed))
    }

    /// Reads rows that have been committed.
    pub fn reader(&self) -> &Arc<dyn RowReader> {
        &self.reader
    }

    /// Bytes enqueued and not yet committed. The queue itself has no bound, so that nothing that also
    /// answers heartbeats waits for a disk: whoever admits payload bounds it by this.
    pub fn queued_bytes(&self) -> u64 {
        self.writer.queued_bytes()
    }

    /// Counters and gauges.
    pub fn metrics(&self) -> StorageMetrics {
        let totals = self.writer.totals();
        StorageMetrics {
            commits: totals.commits,
            syncs: totals.syncs,
            ops: totals.ops,
            bytes: totals.bytes,
            queued_bytes: self.queued_bytes(),
            tail_cache_bytes: self.tails.used(),
            engine: self.control.properties(),
        }
    }

    /// Calls `observer` on the writer after every commit; it must be short. There can be one: true if
    /// it is this one.
    pub fn on_commit(&self, observer: impl Fn(BatchReport) + Send + Sync + 'static) -> bool {
        self.writer.observe(Box::new(observer))
    }

    /// Resolves with the first write error, after which every write fails: the process should stop.
    /// Never resolves otherwise.
    pub async fn failed(&self) -> StorageError {
        self.writer.failed().await
    }

    /// Every replica that has rows here.
    pub async fn list_replicas(&self) -> Result<Vec<ReplicaId>, StorageError> {
        let mut found = Vec::new();
        for table in REPLICA_TABLES {
            let mut next = Some(ReplicaId::new(0));
            while let Some(from) = next {
                // One row of each replica is enough: then the search jumps over the rest of its rows.
                let range = keys::replica_rows(from).start..keys::replica_rows(ReplicaId::new(u64::MAX)).end;
                let rows = self.reader.scan(table, range, ScanLimit { rows: 1, bytes: 1 }, Direction::Forward).await?;
                let replica = rows.first().and_then(|(key, _)| keys::replica_of(key));
                found.extend(replica);
                next = replica.and_then(|replica| replica.get().checked_add(1)).map(ReplicaId::new);
            }
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Deletes every row of a replica, durably. The replica must be closed; its id is never used again.
    pub async fn destroy_replica(&self, replica: ReplicaId) -> Result<(), StorageError> {
        let rows = keys::replica_rows(replica);
        let delete = |table| RowOp::DeleteRange { table, from: rows.start.clone(), to: rows.end.clone() };
        self.commit(REPLICA_TABLES.into_iter().map(delete).collect()).await
    }

    /// Commits what is queued, syncs, and closes the database, also if other handles are left: theirs
    /// then fail with [`StorageError::Closed`].
    pub async fn close(self) {
        self.writer.close().await;
        self.control.close().await;
    }
}

/// The tables whose keys begin with a replica id.
const REPLICA_TABLES: [Table; 4] = [Table::Raft, Table::Log, Table::Index, Table::State];

use std::sync::Arc;

use rocksdb::{DB, WriteBatch, WriteOptions};

use super::Families;
use super::floor::Floor;
use super::reclaim::Trims;
use super::wal;
use crate::engine::{Durability, LogDevice, RowOp};
use crate::error::StorageError;

/// Blocks inside `commit`: it runs on the writer's own thread, which has nothing else to do.
pub(crate) struct RocksDevice {
    /// Before the database: it is written once more when it is dropped, still under the database's lock.
    floor: Floor,
    trims: Trims,
    /// Everything up to this number has been synced.
    synced: u64,
    db: Arc<DB>,
}

impl RocksDevice {
    pub(super) fn new(db: Arc<DB>, floor: Floor, trims: Trims) -> RocksDevice {
        // What recovery found it has written to files and synced.
        let synced = db.latest_sequence_number();
        RocksDevice { floor, trims, synced, db }
    }

    fn write(&mut self, ops: &[RowOp], durability: Durability) -> Result<(), StorageError> {
        let families = Families::of(&self.db)?;
        let mut batch = WriteBatch::default();
        // First, where `wal` looks for it; kept by the write-ahead log only.
        batch.put_log_data(wal::mark(self.synced));
        for op in ops {
            match op {
                RowOp::Put { table, key, value } => batch.put_cf(families.get(*table), key, value),
                RowOp::Delete { table, key } => batch.delete_cf(families.get(*table), key),
                RowOp::DeleteRange { table, from, to } => batch.delete_range_cf(families.get(*table), from, to),
            }
        }
        let synced = durability == Durability::Synced;
        if synced && ops.is_empty() {
            // An empty batch would not reach the WAL, and so would not sync the writes before it.
            self.db.flush_wal(true)?;
        } else {
            let mut options = WriteOptions::default();
            options.set_sync(synced);
            self.db.write_opt(batch, &options)?;
        }
        if synced {
            self.synced = self.db.latest_sequence_number();
            self.floor.raise(self.synced)?;
        }
        self.trims.note(ops);
        Ok(())
    }
}

impl Drop for RocksDevice {
    /// No flush and no compaction may end after the floor was written for the last time: the floor wouldn't know of it.
    fn drop(&mut self) {
        self.db.cancel_all_background_work(true);
    }
}

impl LogDevice for RocksDevice {
    async fn commit(&mut self, ops: Vec<RowOp>, durability: Durability) -> Result<(), StorageError> {
        self.write(&ops, durability)
    }
}

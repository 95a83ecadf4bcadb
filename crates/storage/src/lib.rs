//! Durable memory: one database per node, one writer loop, rows for every Raft group.
//!
//! This crate is the only one that names `rocksdb`. It knows rows, not commands: it neither decides
//! what an entry means nor when one is committed. What it promises is order and durability: rows are
//! applied in the order they were enqueued, a prefix of them survives any crash, and that prefix
//! contains every write whose completion has run. Every row is described in `docs/data-layout.md`.
//!
//! - `engine` — the narrow byte-row traits: `LogDevice` writes, `RowReader` reads
//! - `rocks` — the engine of production, and `sim` — a disk that can lose power
//! - `keys` — every key layout and tag byte
//! - `log_writer` — one loop that turns all groups' writes into few fsyncs
//! - `storage` — the handle that joins a writer and a reader, and knows whose disk this is
//! - `raft_log`, `entry`, `tail_cache` — one replica's log
//! - `state_store`, `checkpoint` — one replica's checkpoint and offset index
//! - `records` — message batches, read straight out of the log
//!
//! A storage error is never worth a retry: after the first one the writer stops for good, because
//! nobody can say what a failed fsync left on the disk. The process is expected to stop as well.

mod checkpoint;
mod engine;
mod entry;
mod error;
mod identity;
mod keys;
mod lanes;
mod log_writer;
mod raft_log;
mod records;
mod rocks;
mod sim;
mod state_store;
mod storage;
mod tail_cache;

pub use checkpoint::Checkpoint;
pub use engine::{Direction, Durability, LogDevice, RowOp, RowReader, ScanLimit, Table};
pub use entry::{EntryId, EntryKind, LogEntry};
pub use error::{OpenError, StorageError};
pub use identity::NodeIdentity;
pub use log_writer::{BatchReport, Completion};
pub use raft_log::{LogBounds, PurgeOutcome, RaftLog};
pub use records::{ReadRecordsError, RecordReader, StoredBatch};
pub use rocks::RocksOptions;
pub use sim::SimDisk;
pub use state_store::StateStore;
pub use storage::{Storage, StorageMetrics};
pub use tail_cache::TailCacheLimits;

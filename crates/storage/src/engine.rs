use std::future::Future;
use std::ops::Range;

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::error::StorageError;

/// A family of rows. Each is a column family of its own, because they want different treatment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Whose disk this is.
    Node,
    /// Votes, purge points and commit points.
    Raft,
    /// Log entries with their payloads; payloads live in blob files and are never compacted.
    Log,
    /// The offset index.
    Index,
    /// Checkpoints of the state machines.
    State,
}

impl Table {
    /// Every table, in the order of their column families.
    pub const ALL: [Table; 5] = [Table::Node, Table::Raft, Table::Log, Table::Index, Table::State];

    /// The name of the column family. Persisted: never change one.
    pub fn name(self) -> &'static str {
        match self {
            Table::Node => "node",
            Table::Raft => "raft",
            Table::Log => "log",
            Table::Index => "index",
            Table::State => "state",
        }
    }
}

/// One change of one row, or of a range of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowOp {
    /// Write a row, replacing an older one.
    Put {
        /// The table.
        table: Table,
        /// The whole key.
        key: Vec<u8>,
        /// The whole value.
        value: Bytes,
    },
    /// Remove a row.
    Delete {
        /// The table.
        table: Table,
        /// The whole key.
        key: Vec<u8>,
    },
    /// Remove every row in `from..to`.
    DeleteRange {
        /// The table.
        table: Table,
        /// The first key that goes.
        from: Vec<u8>,
        /// The first key that stays.
        to: Vec<u8>,
    },
}

impl RowOp {
    /// Bytes of key and value, for bounds and metrics.
    pub fn len_bytes(&self) -> u64 {
        let len = match self {
            RowOp::Put { key, value, .. } => key.len() + value.len(),
            RowOp::Delete { key, .. } => key.len(),
            RowOp::DeleteRange { from, to, .. } => from.len() + to.len(),
        };
        len as u64
    }
}

/// How much a commit promises when it resolves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The rows are readable and ordered before every later commit, but a power loss may take them.
    Ordered,
    /// The rows, and all rows committed before them, survive a power loss.
    Synced,
}

/// The one place where rows are written. A commit is atomic, and commits keep their order across a crash.
pub trait LogDevice: Send + 'static {
    /// Applies `ops` in order. After an error the device must not be used again.
    fn commit(
        &mut self,
        ops: Vec<RowOp>,
        durability: Durability,
    ) -> impl Future<Output = Result<(), StorageError>> + Send;
}

/// Bounds of one scan. A scan returns at least one row where there is one, whatever its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanLimit {
    /// Most rows to return.
    pub rows: usize,
    /// Stop after the row that reaches this many bytes of values.
    pub bytes: u64,
}

/// The order of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the start of the range upwards.
    Forward,
    /// From the end of the range downwards.
    Backward,
}

/// Reads committed rows, never on the caller's thread in production.
pub trait RowReader: Send + Sync + 'static {
    /// One row.
    fn get(&self, table: Table, key: Vec<u8>) -> BoxFuture<'static, Result<Option<Bytes>, StorageError>>;

    /// The rows of a half-open range of keys.
    fn scan(
        &self,
        table: Table,
        range: Range<Vec<u8>>,
        limit: ScanLimit,
        direction: Direction,
    ) -> BoxFuture<'static, Result<Vec<(Bytes, Bytes)>, StorageError>>;
}

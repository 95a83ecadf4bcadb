use std::path::PathBuf;

use quorate_model::ReplicaId;

use crate::engine::Table;
use crate::entry::EntryId;

/// Why a read or a write failed. None is worth a retry: the replica, or the whole process, must stop.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// The engine found bytes that do not match their checksum, or structures that contradict each other.
    #[error("the database is corrupt: {detail}")]
    Corruption {
        /// The engine's own words.
        detail: String,
    },
    /// The file system is full.
    #[error("no space left on the disk: {detail}")]
    DiskFull {
        /// The engine's own words.
        detail: String,
    },
    /// The operating system refused a read, a write or a sync.
    #[error("disk input or output failed: {detail}")]
    Io {
        /// The engine's own words.
        detail: String,
    },
    /// A row was read back intact but does not have the form this version writes.
    #[error("a row of table {} is malformed: {why}", table.name())]
    MalformedRow {
        /// Where the row lives.
        table: Table,
        /// What is wrong with it.
        why: String,
    },
    /// The log of a replica lacks an entry between its first and its last one.
    #[error("the log of replica {replica} has a hole: entry {expected} is missing")]
    Hole {
        /// Whose log.
        replica: ReplicaId,
        /// The index that should have been there.
        expected: u64,
    },
    /// The state of a replica is ahead of its log, so entries that were durable once have been lost.
    #[error(
        "replica {replica} had applied entry {} but its log ends {}: durable entries were lost, \
         so this replica must be rebuilt under a new replica id",
        applied.index, last.map_or("before the first".to_owned(), |last| format!("at {}", last.index))
    )]
    AppliedBeyondLog {
        /// Whose log.
        replica: ReplicaId,
        /// The last entry that the checkpoint contains.
        applied: EntryId,
        /// The last entry of the log.
        last: Option<EntryId>,
    },
    /// The offset index of a replica lacks a segment below the open one.
    #[error("the offset index of replica {replica} has no segment for offset {offset}")]
    MissingSegment {
        /// Whose index.
        replica: ReplicaId,
        /// The offset that should have been covered.
        offset: u64,
    },
    /// The storage was closed, or its writer thread ended.
    #[error("the storage is closed")]
    Closed,
}

impl StorageError {
    pub(crate) fn malformed(table: Table, why: impl Into<String>) -> StorageError {
        StorageError::MalformedRow { table, why: why.into() }
    }
}

/// Why a data folder could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another part of this one, has the folder open.
    #[error("the data folder {} is in use by another process; stop that one first, or choose another folder", dir.display())]
    InUse {
        /// The data folder.
        dir: PathBuf,
    },
    /// The database in the folder is damaged.
    #[error("the data folder {} is corrupt: {detail}; rebuild this node from its peers, do not repair it", dir.display())]
    Corrupt {
        /// The data folder.
        dir: PathBuf,
        /// The engine's own words.
        detail: String,
    },
    /// Recovery ended before writes that were known to be durable.
    #[error(
        "the data folder {} lost durable writes: {recovered} were recovered where at least {floor} had been synced; \
         rebuild this node from its peers", dir.display()
    )]
    LostWrites {
        /// The data folder.
        dir: PathBuf,
        /// Writes known to have been durable.
        floor: u64,
        /// Writes found again.
        recovered: u64,
    },
    /// The folder was written by a version with another data layout.
    #[error("the data folder {} has layout version {found}, and this version reads {supported}", dir.display())]
    Layout {
        /// The data folder.
        dir: PathBuf,
        /// The version on disk.
        found: u8,
        /// The version this program writes.
        supported: u8,
    },
    /// The operating system refused.
    #[error("cannot open the data folder {}: {detail}", dir.display())]
    Io {
        /// The data folder.
        dir: PathBuf,
        /// The engine's or the system's own words.
        detail: String,
    },
}

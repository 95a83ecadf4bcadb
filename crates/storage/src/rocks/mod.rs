//! The engine of production: one RocksDB for all groups of a node.
//!
//! ```text
//! DIR/db/       the database: column families node, raft, log, index, state, and one WAL for all
//! DIR/floor     how many writes are known to be durable (see `floor`)
//! ```

mod device;
mod floor;
mod manifest;
mod open;
mod reader;
mod reclaim;
mod records;
mod settings;
mod wal;

pub(crate) use open::open;
pub use settings::RocksOptions;

use rocksdb::{ColumnFamily, DB};

use crate::engine::Table;
use crate::error::StorageError;

/// The handles of all column families, looked up once per commit or read rather than once per row.
struct Families<'db>([&'db ColumnFamily; Table::ALL.len()]);

impl<'db> Families<'db> {
    fn of(db: &'db DB) -> Result<Families<'db>, StorageError> {
        let missing = |table: Table| StorageError::Corruption { detail: format!("no column family {}", table.name()) };
        let handle = |table: Table| db.cf_handle(table.name()).ok_or_else(|| missing(table));
        let [node, raft, log, index, state] = Table::ALL.map(handle);
        Ok(Families([node?, raft?, log?, index?, state?]))
    }

    fn get(&self, table: Table) -> &'db ColumnFamily {
        self.0[table as usize]
    }
}

impl From<rocksdb::Error> for StorageError {
    fn from(error: rocksdb::Error) -> StorageError {
        let kind = error.kind();
        let detail = error.into_string();
        match kind {
            rocksdb::ErrorKind::Corruption => StorageError::Corruption { detail },
            rocksdb::ErrorKind::ShutdownInProgress => StorageError::Closed,
            _ if detail.contains("No space left") => StorageError::DiskFull { detail },
            _ => StorageError::Io { detail },
        }
    }
}

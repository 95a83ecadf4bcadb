use std::path::Path;
use std::sync::{Arc, Weak};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode, Options, WriteOptions,
};

use super::Families;
use super::device::RocksDevice;
use super::floor::Floor;
use super::reader::RocksReader;
use crate::engine::Table;
use crate::error::{OpenError, StorageError};
use crate::keys;
use crate::storage::EngineControl;

/// What an operator may want to change about the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RocksOptions {
    /// Memory in which the log collects before it is written to blob files.
    pub log_buffer_bytes: usize,
    /// Memory for blocks of index, state and key files, shared by all of them.
    pub block_cache_bytes: usize,
    /// Threads that read rows.
    pub reader_threads: usize,
}

impl Default for RocksOptions {
    fn default() -> Self {
        RocksOptions { log_buffer_bytes: 64 << 20, block_cache_bytes: 32 << 20, reader_threads: 2 }
    }
}

/// The version of all that `docs/data-layout.md` describes.
const LAYOUT_VERSION: u8 = 1;
/// Below this a value stays with its key: a blob of its own would cost more than it saves.
const BLOB_BYTES_MIN: u64 = 1 << 10;
const BLOB_FILE_BYTES: u64 = 64 << 20;
/// The small tables are written rarely: without this bound they would pin old WAL files for ever.
const WAL_BYTES_MAX: u64 = 256 << 20;
const SMALL_BUFFER_BYTES: usize = 4 << 20;

/// What a storage is put together from.
pub(crate) struct RocksParts {
    pub(crate) device: RocksDevice,
    pub(crate) control: RocksControl,
}

/// Opens or creates the database in `dir`.
pub(crate) fn open(dir: &Path, options: &RocksOptions) -> Result<RocksParts, OpenError> {
    let io = |error: std::io::Error| OpenError::Io { dir: dir.to_owned(), detail: error.to_string() };
    let database = dir.join("db");
    std::fs::create_dir_all(&database).map_err(io)?;

    let families = column_families(options);
    let db =
        DB::open_cf_descriptors(&database_options(), &database, families).map_err(|error| open_error(dir, error))?;
    check_layout(dir, &db)?;

    // Only now, under the database's lock, is the floor ours to read and write.
    let floor = Floor::open(&dir.join("floor")).map_err(io)?;
    let recovered = db.latest_sequence_number();
    if recovered < floor.noted() {
        return Err(OpenError::LostWrites { dir: dir.to_owned(), floor: floor.noted(), recovered });
    }

    let db = Arc::new(db);
    let reader = Arc::new(RocksReader::start(&db, options.reader_threads).map_err(io)?);
    let control = RocksControl { db: Arc::downgrade(&db), reader };
    Ok(RocksParts { device: RocksDevice::new(db, floor), control })
}

/// Durability first; each line is argued in `docs/data-layout.md`.
fn database_options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_paranoid_checks(true);
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_track_and_verify_wals_in_manifest(true);
    // Recycled WAL files are faster, but their recovery had a hole once; off until a crash test of ours says otherwise.
    options.set_recycle_log_file_num(0);
    options.set_max_total_wal_size(WAL_BYTES_MAX);
    options.set_max_background_jobs(2);
    options.set_keep_log_file_num(4);
    options.set_stats_dump_period_sec(0);
    options
}

fn column_families(options: &RocksOptions) -> Vec<ColumnFamilyDescriptor> {
    let cache = Cache::new_lru_cache(options.block_cache_bytes);
    Table::ALL
        .into_iter()
        .map(|table| {
            let mut blocks = BlockBasedOptions::default();
            blocks.set_block_cache(&cache);
            let mut family = Options::default();
            family.set_block_based_table_factory(&blocks);
            match table {
                Table::Log => log_family(&mut family, options),
                Table::Node | Table::Raft => small_family(&mut family, DBCompressionType::None),
                Table::Index | Table::State => small_family(&mut family, DBCompressionType::Lz4),
            }
            ColumnFamilyDescriptor::new(table.name(), family)
        })
        .collect()
}

/// Payloads go to blob files, which compaction does not rewrite: each byte is written to the WAL and
/// to one blob file, and never again. They are not compressed here because batches come compressed.
fn log_family(family: &mut Options, options: &RocksOptions) {
    family.set_write_buffer_size(options.log_buffer_bytes);
    family.set_compression_type(DBCompressionType::None);
    family.set_enable_blob_files(true);
    family.set_min_blob_size(BLOB_BYTES_MIN);
    family.set_blob_file_size(BLOB_FILE_BYTES);
    family.set_blob_compression_type(DBCompressionType::None);
    // A blob file is deleted once all its entries are purged; collecting half-dead files would
    // rewrite payloads.
    family.set_enable_blob_gc(false);
}

fn small_family(family: &mut Options, compression: DBCompressionType) {
    family.set_write_buffer_size(SMALL_BUFFER_BYTES);
    family.set_compression_type(compression);
}

fn open_error(dir: &Path, error: rocksdb::Error) -> OpenError {
    let dir = dir.to_owned();
    // The engine has no kind of its own for a lock that somebody holds; these are its two sentences,
    // for a lock held by another process and by this one.
    let text = error.to_string();
    if text.contains("While lock file") || text.contains("lock hold by current process") {
        return OpenError::InUse { dir };
    }
    match StorageError::from(error) {
        StorageError::Corruption { detail } => OpenError::Corrupt { dir, detail },
        other => OpenError::Io { dir, detail: other.to_string() },
    }
}

/// Refuses a folder of another layout version; gives a new folder the current one.
fn check_layout(dir: &Path, db: &DB) -> Result<(), OpenError> {
    let check = || -> Result<Option<u8>, StorageError> {
        let node = Families::of(db)?.get(Table::Node);
        if let Some(row) = db.get_cf(node, keys::layout())? {
            return Ok(row.first().copied());
        }
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        db.put_cf_opt(node, keys::layout(), [LAYOUT_VERSION], &synced)?;
        Ok(Some(LAYOUT_VERSION))
    };
    let dir = dir.to_owned();
    match check() {
        Ok(Some(LAYOUT_VERSION)) => Ok(()),
        Ok(found) => Err(OpenError::Layout { dir, found: found.unwrap_or(0), supported: LAYOUT_VERSION }),
        Err(StorageError::Corruption { detail }) => Err(OpenError::Corrupt { dir, detail }),
        Err(error) => Err(OpenError::Io { dir, detail: error.to_string() }),
    }
}

/// What the storage may ask of the engine besides rows.
pub(crate) struct RocksControl {
    /// Weak, so that the database closes with its writer and readers.
    db: Weak<DB>,
    reader: Arc<RocksReader>,
}

impl RocksControl {
    pub(crate) fn reader(&self) -> Arc<dyn crate::engine::RowReader> {
        Arc::clone(&self.reader) as _
    }
}

/// Summed over the column families.
const FAMILY_PROPERTIES: [&str; 6] = [
    "rocksdb.cur-size-all-mem-tables",
    "rocksdb.total-sst-files-size",
    "rocksdb.total-blob-file-size",
    "rocksdb.live-blob-file-size",
    "rocksdb.estimate-pending-compaction-bytes",
    "rocksdb.num-immutable-mem-table",
];
/// Properties of the database as a whole.
const DATABASE_PROPERTIES: [&str; 5] = [
    "rocksdb.num-running-flushes",
    "rocksdb.num-running-compactions",
    "rocksdb.background-errors",
    "rocksdb.actual-delayed-write-rate",
    "rocksdb.is-write-stopped",
];

impl EngineControl for RocksControl {
    fn properties(&self) -> Vec<(&'static str, u64)> {
        let Some(db) = self.db.upgrade() else { return Vec::new() };
        let Ok(families) = Families::of(&db) else { return Vec::new() };
        let family_sum = |name| {
            let value = |table| db.property_int_value_cf(families.get(table), name).ok().flatten();
            (name, Table::ALL.into_iter().filter_map(value).sum())
        };
        let whole = |name| Some((name, db.property_int_value(name).ok().flatten()?));
        let sums = FAMILY_PROPERTIES.into_iter().map(family_sum);
        sums.chain(DATABASE_PROPERTIES.into_iter().filter_map(whole)).collect()
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        let reader = Arc::clone(&self.reader);
        async move { reader.close().await }.boxed()
    }
}

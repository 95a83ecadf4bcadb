//! The settings of the engine. Durability first; each is argued in `docs/data-layout.md`, those of the log
//! from the measurements in `docs/adr/0010-log-space.md`.

use std::time::Duration;

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode, Options, WriteBufferManager,
};

use crate::engine::Table;

/// What an operator may want to change about the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RocksOptions {
    /// Memory for write buffers and cached blocks together, in bytes; at least [`RocksOptions::MEMORY_BYTES_MIN`]
    /// is used. Half of it at most collects writes; what that half doesn't need caches blocks of key files.
    pub memory_bytes: usize,
    /// Threads that read rows.
    pub reader_threads: usize,
    /// How long deleted log entries wait for others, before their space is taken back together.
    pub reclaim_delay: Duration,
}

impl RocksOptions {
    /// The least memory the engine works with, in bytes.
    pub const MEMORY_BYTES_MIN: usize = 1 << 20;

    pub(super) fn memory(&self) -> usize {
        self.memory_bytes.max(RocksOptions::MEMORY_BYTES_MIN)
    }

    /// Payload that collects in memory before it is written to blob files: the larger, the fewer flushes, and
    /// the longer the runs of one replica in them.
    pub(super) fn log_buffer_bytes(&self) -> usize {
        // Two of them exist while one is flushed, and the small tables need theirs.
        (self.memory() / 4).min(LOG_BUFFER_BYTES_MAX)
    }

    /// Small against the buffer, because a flush sorts by replica: then most files hold one replica's entries
    /// alone, and die whole with them.
    fn blob_file_bytes(&self) -> u64 {
        self.log_buffer_bytes() as u64 / 32
    }

    fn small_buffer_bytes(&self) -> usize {
        self.log_buffer_bytes() / 16
    }
}

impl Default for RocksOptions {
    fn default() -> Self {
        RocksOptions { memory_bytes: 256 << 20, reader_threads: 2, reclaim_delay: Duration::from_secs(10) }
    }
}

/// Larger buffers gained nothing that could be measured.
const LOG_BUFFER_BYTES_MAX: usize = 64 << 20;
/// Below this a value stays with its key: a blob of its own would cost more than it saves.
const BLOB_BYTES_MIN: u64 = 512;
/// Keys and places of some thousand entries: what one step of moving payloads takes on at least.
const LOG_KEY_FILE_BYTES: u64 = 256 << 10;
/// The small tables are written rarely: without this bound they would pin old WAL files for ever. It also bounds
/// what opening reads.
const WAL_BYTES_MAX: u64 = 256 << 20;
/// Blob files are small and therefore many; those that aren't read needn't stay open.
const OPEN_FILES_MAX: i32 = 4096;

pub(super) fn database_options(settings: &RocksOptions, cache: &Cache, direct_io: bool) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_paranoid_checks(true);
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_track_and_verify_wals_in_manifest(true);
    // Recycled files gained nothing that could be measured any more, and would mix records of two lives.
    options.set_recycle_log_file_num(0);
    options.set_max_total_wal_size(WAL_BYTES_MAX);
    // Counted against the cache: one budget for both. Never stalls a commit; the number of buffers does, in time.
    let buffers = settings.memory() / 2;
    let manager = WriteBufferManager::new_write_buffer_manager_with_cache(buffers, false, cache.clone());
    options.set_write_buffer_manager(&manager);
    options.set_max_open_files(OPEN_FILES_MAX);
    // What is flushed was written a moment ago and is in the tail caches: another copy of it in the page cache costs
    // a third of the processor time of publishing, and drives out what readers need (docs/adr/0013-direct-io.md).
    options.set_use_direct_io_for_flush_and_compaction(direct_io);
    options.set_max_background_jobs(2);
    options.set_keep_log_file_num(4);
    options.set_stats_dump_period_sec(0);
    options
}

pub(super) fn column_families(settings: &RocksOptions, cache: &Cache) -> Vec<ColumnFamilyDescriptor> {
    let family = |table: Table| {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(cache);
        // So that they are within the budget too.
        blocks.set_cache_index_and_filter_blocks(true);
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
        let mut family = Options::default();
        family.set_block_based_table_factory(&blocks);
        match table {
            Table::Log => log_family(&mut family, settings),
            Table::Node | Table::Raft => small_family(&mut family, settings, DBCompressionType::None),
            Table::Index | Table::State => small_family(&mut family, settings, DBCompressionType::Lz4),
        }
        ColumnFamilyDescriptor::new(table.name(), family)
    };
    Table::ALL.into_iter().map(family).collect()
}

/// Payloads go to blob files, which compaction does not rewrite: each byte is written to the WAL and to one
/// blob file. They are not compressed here because batches come compressed.
fn log_family(family: &mut Options, settings: &RocksOptions) {
    family.set_write_buffer_size(settings.log_buffer_bytes());
    family.set_compression_type(DBCompressionType::None);
    family.set_target_file_size_base(LOG_KEY_FILE_BYTES);
    family.set_max_compaction_bytes(LOG_KEY_FILE_BYTES);
    family.set_enable_blob_files(true);
    family.set_min_blob_size(BLOB_BYTES_MIN);
    family.set_blob_file_size(settings.blob_file_bytes());
    family.set_blob_compression_type(DBCompressionType::None);
    // `reclaim` turns it on when garbage is too much, and off again.
    family.set_enable_blob_gc(false);
}

fn small_family(family: &mut Options, settings: &RocksOptions, compression: DBCompressionType) {
    family.set_write_buffer_size(settings.small_buffer_bytes());
    family.set_compression_type(compression);
}

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, Weak};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use nix::fcntl::OFlag;
use quorate_model::sabotage::{Bug, is_planted};
use rocksdb::{Cache, DB, WriteOptions};

use super::Families;
use super::device::RocksDevice;
use super::floor::Floor;
use super::manifest::{Manifest, ManifestFloor};
use super::reader::RocksReader;
use super::reclaim::Reclaimer;
use super::settings::{RocksOptions, column_families, database_options};
use super::wal;
use crate::engine::Table;
use crate::error::{OpenError, StorageError};
use crate::keys;
use crate::storage::EngineControl;

/// The version of all that `docs/data-layout.md` describes.
const LAYOUT_VERSION: u8 = 2;

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
    check_whole(dir, &database)?;
    // Before recovery, which replaces these files by what it found in them.
    let proved = wal::proved(&database).map_err(io)?;

    let cache = Cache::new_lru_cache(options.memory());
    let families = column_families(options, &cache);
    let direct_io = takes_direct_io(dir).map_err(io)?;
    let db = DB::open_cf_descriptors(&database_options(options, &cache, direct_io), &database, families)
        .map_err(|error| open_error(dir, error))?;
    check_layout(dir, &db)?;
    check_blob_files(dir, &database, &db)?;

    // Only now, under the database's lock, is the floor ours to read and write.
    let mut floor = Floor::open(&dir.join("floor")).map_err(io)?;
    let recovered = db.latest_sequence_number();
    if (recovered < floor.noted() || recovered < proved) && !is_planted(Bug::FlipTakenForTornTail) {
        // Recovery has dropped the proof, and the next attempt must be refused as well.
        floor.keep(proved).map_err(io)?;
        return Err(OpenError::LostWrites { dir: dir.to_owned(), floor: floor.noted(), recovered });
    }

    floor.watch(Manifest::of(&database)).map_err(io)?;

    let db = Arc::new(db);
    let reader = Arc::new(RocksReader::start(&db, options.reader_threads).map_err(io)?);
    let reclaimer =
        Arc::new(Reclaimer::start(&db, options.reclaim_delay, options.log_buffer_bytes() as u64).map_err(io)?);
    let device = RocksDevice::new(Arc::clone(&db), floor, reclaimer.trims());
    Ok(RocksParts { device, control: RocksControl { db: Arc::downgrade(&db), reader, reclaimer } })
}

/// Whether files in `dir` can bypass the page cache. Some file systems, such as older tmpfs, have nothing else.
fn takes_direct_io(dir: &Path) -> std::io::Result<bool> {
    let probe = dir.join("direct-io-probe");
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).custom_flags(OFlag::O_DIRECT.bits());
    match options.open(&probe) {
        Ok(_) => std::fs::remove_file(&probe).map(|()| true),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
            // The file may have been made before the flag was refused.
            std::fs::remove_file(&probe).or_else(|gone| match gone.kind() {
                std::io::ErrorKind::NotFound => Ok(()),
                _ => Err(gone),
            })?;
            tracing::warn!(dir = %dir.display(), "the file system has no direct I/O: flushes go through the page cache");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Refuses a folder that the engine would take for a new one although it isn't: it would write an empty
/// database over the rest of the old one.
fn check_whole(dir: &Path, database: &Path) -> Result<(), OpenError> {
    let io = |error: std::io::Error| OpenError::Io { dir: dir.to_owned(), detail: error.to_string() };
    let corrupt = |missing: &str| {
        let detail = format!("the file {missing} is missing from a database that is not new");
        Err(OpenError::Corrupt { dir: dir.to_owned(), detail })
    };
    let current = database.join("CURRENT").try_exists().map_err(io)?;
    let floor = dir.join("floor").try_exists().map_err(io)?;
    // The floor is made after the database and never removed; its first number is noted with the first sync.
    if current && !floor && has_data(database).map_err(io)? {
        return corrupt("floor");
    }
    if current && floor {
        return check_manifest(dir, database);
    }
    if !current && (floor || has_data(database).map_err(io)?) {
        return corrupt("db/CURRENT");
    }
    Ok(())
}

/// Refuses a manifest whose intact beginning is shorter than it was, or an older one.
fn check_manifest(dir: &Path, database: &Path) -> Result<(), OpenError> {
    let io = |error: std::io::Error| OpenError::Io { dir: dir.to_owned(), detail: error.to_string() };
    let corrupt = |detail| OpenError::Corrupt { dir: dir.to_owned(), detail };
    let noted = Floor::open(&dir.join("floor")).map_err(io)?.manifest();
    let found = ManifestFloor::found(database).map_err(|error| corrupt(format!("the manifest: {error}")))?;
    if found.number < noted.number || (found.number == noted.number && found.bytes < noted.bytes) {
        return Err(corrupt(format!(
            "manifest {} with {} intact bytes is there, where manifest {} with at least {} should be",
            found.number, found.bytes, noted.number, noted.bytes
        )));
    }
    Ok(())
}

/// Whether there are tables or blobs, which a database has from its second opening on.
fn has_data(database: &Path) -> std::io::Result<bool> {
    let mut files = std::fs::read_dir(database)?.collect::<Result<Vec<_>, _>>()?.into_iter();
    let data = |extension: &std::ffi::OsStr| extension == "sst" || extension == "blob";
    Ok(files.any(|file| file.path().extension().is_some_and(data)))
}

/// The engine looks for its tables when it opens, and for blob files only when they are read.
fn check_blob_files(dir: &Path, database: &Path, db: &DB) -> Result<(), OpenError> {
    let corrupt = |detail| OpenError::Corrupt { dir: dir.to_owned(), detail };
    let known = || -> Result<(u64, u64), StorageError> {
        let log = Families::of(db)?.get(Table::Log);
        let property = |name: &str| db.property_int_value_cf(log, name);
        Ok((property("rocksdb.num-blob-files")?.unwrap_or(0), property("rocksdb.live-blob-file-size")?.unwrap_or(0)))
    };
    let known = || known().map_err(|error| corrupt(error.to_string()));
    let mut expected = known()?;
    loop {
        let found = blob_files(database).map_err(|error| corrupt(error.to_string()))?;
        // Compactions after opening may remove files under our eyes, but then they aren't expected any more.
        let still_expected = known()?;
        if still_expected != expected {
            expected = still_expected;
        } else if found.0 < expected.0 || found.1 < expected.1 {
            return Err(corrupt(format!(
                "{} blob files of {} bytes are there, where {} of {} bytes should be",
                found.0, found.1, expected.0, expected.1
            )));
        } else {
            return Ok(());
        }
    }
}

/// How many there are, and their bytes.
fn blob_files(database: &Path) -> std::io::Result<(u64, u64)> {
    let (mut files, mut bytes) = (0, 0);
    for entry in std::fs::read_dir(database)? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|extension| extension == "blob")
            && let Ok(metadata) = entry.metadata()
        {
            files += 1;
            bytes += metadata.len();
        }
    }
    Ok((files, bytes))
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
    reclaimer: Arc<Reclaimer>,
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
        let (reclaimer, db) = (Arc::clone(&self.reclaimer), self.db.upgrade());
        async move {
            reclaimer.close(db).await;
            reader.close().await;
        }
        .boxed()
    }
}

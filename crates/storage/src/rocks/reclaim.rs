use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use quorate_model::ReplicaId;
use rocksdb::{BottommostLevelCompaction, CompactOptions, DB};
use tokio::sync::oneshot;
use tracing::{debug, warn};

use super::Families;
use crate::engine::{RowOp, Table};
use crate::error::StorageError;
use crate::keys;

/// Gives the space of deleted log entries back to the file system, in two steps that are both driven by need.
///
/// ```text
///   range deletion ──▶ memtable ─ 1. flush, compact keys ─▶ the blob files of its entries are garbage:
///                                                    whole files are deleted, at the cost of keys only
///                                                    parts of files: counted
///                                2. too much is garbage ─▶ payloads that live among it move out
/// ```
///
/// Without the first step the deletion of a log on an idle node would lie in the memtable for ever; without
/// the second a few entries kept for long would hold the files of all that was written beside them.
pub(super) struct Reclaimer {
    shared: Arc<Shared>,
    ended: Mutex<Option<oneshot::Receiver<()>>>,
}

/// The writer's side: tells which rows went.
#[derive(Clone)]
pub(super) struct Trims(Arc<Shared>);

/// The keys that went, one range for each replica.
type Trimmed = BTreeMap<ReplicaId, Range<Vec<u8>>>;

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// How long a deletion waits for others to share its compaction.
    delay: Duration,
    /// Trims are left to the next flush as long as they hold less than this.
    bytes_min: u64,
}

/// What one pass shall do.
struct Task {
    trimmed: Trimmed,
    whatever_its_size: bool,
    garbage_share_max: f64,
}

#[derive(Default)]
struct State {
    trimmed: Trimmed,
    /// When the oldest of `trimmed` came.
    since: Option<Instant>,
    /// Whole replicas went.
    deleted: bool,
    /// Nobody knows what went before the last stop.
    fresh: bool,
    closing: bool,
}

/// Above this share of garbage in the blob files, payloads are moved. It bounds both prices: the files are at
/// most half as large again as what they hold, and moving writes at most two bytes for each one it frees.
const GARBAGE_SHARE_MAX: f64 = 1.0 / 3.0;
/// The same after the deletion of whole replicas: rare, and asked for by somebody who may need the space.
const GARBAGE_SHARE_AFTER_DELETION: f64 = 1.0 / 8.0;
/// How often to look whether enough has been moved.
const POLL_EVERY: Duration = Duration::from_millis(50);

impl Trims {
    /// Notes what a commit deleted from the log.
    pub(super) fn note(&self, ops: &[RowOp]) {
        for op in ops {
            if let RowOp::DeleteRange { table: Table::Log, from, to } = op
                && let Some(replica) = keys::replica_of(from)
                // The end of a log that is taken back was short, and is written again at once.
                && keys::entry_index(to) != Some(u64::MAX)
            {
                let whole = *to == keys::replica_rows(replica).end;
                self.0.note(replica, from, to, whole);
            }
        }
    }
}

impl Shared {
    fn note(&self, replica: ReplicaId, from: &[u8], to: &[u8], whole: bool) {
        let mut state = self.lock();
        let range = state.trimmed.entry(replica).or_insert_with(|| from.to_vec()..to.to_vec());
        range.start = range.start.as_slice().min(from).to_vec();
        range.end = range.end.as_slice().max(to).to_vec();
        state.since.get_or_insert_with(Instant::now);
        state.deleted |= whole;
        self.changed.notify_one();
    }

    /// Waits until something has been deleted and has waited long enough; none when the storage closes.
    fn next(&self) -> Option<Task> {
        let mut state = self.lock();
        loop {
            if state.closing {
                return None;
            }
            let left = state.since.map(|since| self.delay.saturating_sub(since.elapsed()));
            state = match left {
                Some(Duration::ZERO) => break,
                Some(left) => self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        state.since = None;
        let deleted = std::mem::take(&mut state.deleted);
        let fresh = std::mem::take(&mut state.fresh);
        let garbage_share_max = if deleted { GARBAGE_SHARE_AFTER_DELETION } else { GARBAGE_SHARE_MAX };
        Some(Task { trimmed: state.trimmed.clone(), whatever_its_size: deleted || fresh, garbage_share_max })
    }

    /// A task that failed is tried again after the usual wait.
    fn again(&self, task: &Task) {
        let mut state = self.lock();
        state.since.get_or_insert_with(Instant::now);
        state.fresh |= task.whatever_its_size;
        state.deleted |= task.garbage_share_max == GARBAGE_SHARE_AFTER_DELETION;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reclaimer {
    pub(super) fn start(db: &Arc<DB>, delay: Duration, bytes_min: u64) -> io::Result<Reclaimer> {
        // What went shortly before the last stop is not known any more, so the first pass looks at everything.
        let state = State { since: Some(Instant::now()), fresh: true, ..State::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), delay, bytes_min });
        let (end, ended) = oneshot::channel();
        // Weak, so that a storage that is dropped without being closed doesn't live on in this thread.
        let (db, work) = (Arc::downgrade(db), Arc::clone(&shared));
        thread::Builder::new().name("quorate-reclaim".to_owned()).spawn(move || {
            while let Some(task) = work.next()
                && let Some(db) = db.upgrade()
            {
                match reclaim(&db, &task, &work) {
                    Ok(true) => work.lock().trimmed.retain(|replica, range| task.trimmed.get(replica) != Some(range)),
                    Ok(false) => {}
                    Err(StorageError::Closed) => break,
                    // The rows are gone for every reader, only their space is not. The writer finds out by
                    // itself if the disk has failed.
                    Err(error) => {
                        warn!(%error, "the space of deleted entries did not come back yet");
                        work.again(&task);
                    }
                }
            }
            // Nobody waits for the end if the storage was dropped without being closed.
            let _ = end.send(());
        })?;
        Ok(Reclaimer { shared, ended: Mutex::new(Some(ended)) })
    }

    pub(super) fn trims(&self) -> Trims {
        Trims(Arc::clone(&self.shared))
    }

    /// Ends the thread; compactions under way are given up, and cost nothing but their work.
    pub(super) async fn close(&self, db: Option<Arc<DB>>) {
        self.shared.lock().closing = true;
        self.shared.changed.notify_one();
        if let Some(db) = db {
            db.cancel_all_background_work(false);
        }
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(ended) = ended {
            let _ = ended.await;
        }
    }
}

/// True if the rows were worth a compaction.
fn reclaim(db: &DB, task: &Task, shared: &Shared) -> Result<bool, StorageError> {
    let families = Families::of(db)?;
    let log = families.get(Table::Log);
    let property = |name: &str| db.property_int_value_cf(log, name).ok().flatten().unwrap_or(0);
    let key_bytes = property("rocksdb.total-sst-files-size");
    if !task.whatever_its_size {
        let ranges: Vec<_> = task.trimmed.values().map(|range| rocksdb::Range::new(&range.start, &range.end)).collect();
        let trimmed_key_bytes: u64 = db.get_approximate_sizes_cf(log, &ranges).into_iter().sum();
        let blob_bytes = property("rocksdb.live-blob-file-size");
        let share = trimmed_key_bytes as f64 / (key_bytes as f64).max(1.0);
        // Compacting the keys must not cost more than it gives back.
        if blob_bytes as f64 * share < shared.bytes_min.max(key_bytes) as f64 {
            return Ok(false);
        }
    }

    let started = Instant::now();
    let blob_bytes = property("rocksdb.total-blob-file-size");
    db.flush_cf(log)?;
    let mut options = CompactOptions::default();
    options.set_exclusive_manual_compaction(false);
    options.set_bottommost_level_compaction(BottommostLevelCompaction::Skip);
    db.compact_range_cf_opt(log, None::<&[u8]>, None::<&[u8]>, &options);

    let garbage_share = || {
        let garbage = property("rocksdb.live-blob-file-garbage-size") as f64;
        garbage / (property("rocksdb.live-blob-file-size") as f64).max(1.0)
    };
    let garbage = garbage_share();
    if garbage > task.garbage_share_max {
        let enough = || shared.lock().closing || garbage_share() <= task.garbage_share_max;
        move_payloads(db, &families, task.garbage_share_max, enough)?;
    }
    debug!(
        bytes = blob_bytes.saturating_sub(property("rocksdb.total-blob-file-size")),
        garbage_before = garbage,
        garbage_after = garbage_share(),
        elapsed_ms = started.elapsed().as_millis(),
        "took back the space of deleted entries"
    );
    Ok(true)
}

/// Lets the engine compact away the garbage, oldest files first, until it is below the bound.
fn move_payloads(
    db: &DB,
    families: &Families<'_>,
    share_max: f64,
    enough: impl Fn() -> bool,
) -> Result<(), StorageError> {
    let log = families.get(Table::Log);
    let force = share_max.to_string();
    // Only for as long as it is needed: ordinary compactions would otherwise move every payload they meet.
    let on = [
        ("blob_garbage_collection_age_cutoff", "1.0"),
        ("blob_garbage_collection_force_threshold", &force),
        ("enable_blob_garbage_collection", "true"),
    ];
    db.set_options_cf(log, &on)?;
    let busy = || {
        let jobs = ["rocksdb.num-running-compactions", "rocksdb.compaction-pending"];
        jobs.into_iter().any(|name| db.property_int_value_cf(log, name).ok().flatten().unwrap_or(0) > 0)
    };
    // The engine schedules these compactions by itself and has no call to wait for them alone.
    while !enough() && busy() {
        thread::sleep(POLL_EVERY);
    }
    db.set_options_cf(log, &[("enable_blob_garbage_collection", "false")])?;
    Ok(())
}

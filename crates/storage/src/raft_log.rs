use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use quorate_model::ReplicaId;
use quorate_model::sabotage::{Bug, is_planted};
use tokio::sync::oneshot;
use tracing::warn;

use crate::checkpoint::Checkpoint;
use crate::engine::{Direction, RowOp, ScanLimit, Table};
use crate::entry::{EntryId, LogEntry};
use crate::error::StorageError;
use crate::keys;
use crate::log_writer::Completion;
use crate::storage::Storage;
use crate::tail_cache::{SharedTail, TailCacheLimits};

/// One replica's log and its vote. Cloning gives another handle to the same log.
///
/// ```text
///      purged          first kept                    last
///  0 ────┤                 ├───────────┬───────────────┤
///          gone for good     on disk     in the tail cache, the end of it not yet durable
/// ```
///
/// Writes are enqueued and never awaited, except the vote; what was appended can be read at once.
#[derive(Clone)]
pub struct RaftLog {
    storage: Storage,
    replica: ReplicaId,
    state: Arc<Mutex<LogState>>,
}

/// Where a log begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBounds {
    /// The last entry that was purged.
    pub purged: Option<EntryId>,
    /// The last entry; the purged one if no other is left.
    pub last: Option<EntryId>,
}

/// What a purge did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PurgeOutcome {
    /// The entries had been purged before.
    Unchanged,
    /// Entries at the head of the log are gone.
    Trimmed,
    /// The purge reached beyond the end, so the whole log is gone. Right after a snapshot from the
    /// leader; anywhere else a reason for alarm.
    BeyondEnd,
}

/// Changed under the lock together with the queue, so that memory and disk see one order.
struct LogState {
    bounds: LogBounds,
    /// The index of the first entry that is left, if any is.
    first: u64,
    vote: Option<Bytes>,
    committed: Option<EntryId>,
    cache: SharedTail,
    /// Counts purges and truncations, so that a read from disk can tell a hole from a race with one.
    removals: u64,
}

/// Rows fetched from disk at a time.
const SCAN_ROWS: usize = 256;

impl RaftLog {
    /// Reads the bounds of a replica's log; a replica without rows has an empty one.
    ///
    /// Fails if the replica's checkpoint is ahead of its log. Checkpoints follow the log through the same
    /// queue, so this means that durable entries were lost, and a log repaired by purging up to the
    /// checkpoint would silently drop every message that is left.
    pub async fn open(storage: &Storage, replica: ReplicaId, cache: TailCacheLimits) -> Result<RaftLog, StorageError> {
        let reader = storage.reader();
        let vote = reader.get(Table::Raft, keys::vote(replica)).await?;
        let purged = load_entry_id(storage, keys::purged(replica)).await?;
        let committed = load_entry_id(storage, keys::committed(replica)).await?;
        let first = load_end(storage, replica, Direction::Forward).await?;
        let last = load_end(storage, replica, Direction::Backward).await?;
        let after_purged = purged.map(|purged| purged.index + 1);
        if let (Some(expected), Some(first)) = (after_purged, first)
            && first.index != expected
        {
            return Err(StorageError::Hole { replica, expected });
        }
        let bounds = LogBounds { purged, last: last.or(purged) };

        if let Some(row) = reader.get(Table::State, keys::checkpoint(replica)).await?
            && let Some(applied) = Checkpoint::from_row(&row)?.last_applied
            && bounds.last.is_none_or(|last| applied.index > last.index)
        {
            return Err(StorageError::AppliedBeyondLog { replica, applied, last: bounds.last });
        }
        let first = index_of(first).or(after_purged).unwrap_or(0);
        let cache = storage.tails().cache(cache);
        let state = LogState { bounds, first, vote, committed, cache, removals: 0 };
        Ok(RaftLog { storage: storage.clone(), replica, state: Arc::new(Mutex::new(state)) })
    }

    /// Whose log it is.
    pub fn replica(&self) -> ReplicaId {
        self.replica
    }

    pub(crate) fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Where the log begins and ends, entries that are not durable yet included.
    pub fn bounds(&self) -> LogBounds {
        self.lock().bounds
    }

    /// The last vote that was saved.
    pub fn vote(&self) -> Option<Bytes> {
        self.lock().vote.clone()
    }

    /// Saves a vote, and returns once it is durable: a vote that was given and forgotten elects two leaders.
    pub async fn save_vote(&self, vote: Bytes) -> Result<(), StorageError> {
        let (done, saved) = oneshot::channel();
        let state = Arc::clone(&self.state);
        let op = RowOp::Put { table: Table::Raft, key: keys::vote(self.replica), value: vote.clone() };
        let completion = Completion::call(move |result| {
            if result.is_ok() {
                lock(&state).vote = Some(vote);
            }
            // The caller may have given up; the vote is saved all the same.
            let _ = done.send(result);
        });
        if is_planted(Bug::VoteNotSynced) {
            self.storage.write_ordered(vec![op], completion);
        } else {
            self.storage.write(vec![op], completion);
        }
        saved.await.unwrap_or(Err(StorageError::Closed))
    }

    /// The last entry known to be committed when the node was last alive.
    pub fn committed(&self) -> Option<EntryId> {
        self.lock().committed
    }

    /// Notes the commit point. Causes no fsync: after a crash an older one is as good.
    pub fn save_committed(&self, committed: Option<EntryId>) {
        let mut state = self.lock();
        state.committed = committed;
        let (table, key) = (Table::Raft, keys::committed(self.replica));
        let op = match committed {
            Some(id) => RowOp::Put { table, key, value: Bytes::copy_from_slice(&id.to_bytes()) },
            None => RowOp::Delete { table, key },
        };
        self.storage.write_ordered(vec![op], Completion::None);
    }

    /// Appends entries after the last one. They can be read when this returns, and `done` runs when they
    /// are durable, after the completions of all earlier appends. It may run at once, on this thread, if
    /// the storage has failed; it must not call into this log.
    ///
    /// # Panics
    /// If the entries do not continue the log without a gap.
    pub fn append(&self, entries: Vec<LogEntry>, done: Completion) {
        let mut state = self.lock();
        let mut expected = state.bounds.last.map(|last| last.index + 1);
        let mut ops = Vec::with_capacity(entries.len());
        let mut cached = Vec::with_capacity(entries.len());
        for entry in entries {
            let id = entry.id;
            assert!(
                expected.is_none_or(|index| index == id.index),
                "replica {} appends entry {} where {expected:?} belongs",
                self.replica,
                id.index,
            );
            if expected.is_none() {
                state.first = id.index;
            }
            expected = Some(id.index + 1);
            state.bounds.last = Some(id);
            let (row, entry) = entry.into_row();
            ops.push(RowOp::Put { table: Table::Log, key: keys::entry(self.replica, id.index), value: row });
            cached.push(entry);
        }
        let append = state.cache.append(cached);
        let cache = state.cache.clone();
        let completion = Completion::call(move |result| {
            if result.is_ok() {
                cache.durable(append);
            }
            done.run(result);
        });
        self.storage.write(ops, completion);
    }

    /// Removes every entry after `last`, or all of them. Nothing happens if the log ends there already.
    pub fn truncate_after(&self, last: Option<EntryId>) {
        let mut state = self.lock();
        // What has been purged was applied; it can't be taken back.
        let keep = if index_of(last) > index_of(state.bounds.purged) { last } else { state.bounds.purged };
        if index_of(keep) >= index_of(state.bounds.last) {
            return;
        }
        let from = keep.map_or(0, |id| id.index + 1);
        state.bounds.last = keep;
        if !is_planted(Bug::TruncatedEntriesCached) {
            state.cache.lock().truncate_from(from);
        }
        state.removals += 1;
        self.storage.write_ordered(vec![self.delete(from..u64::MAX)], Completion::None);
    }

    /// Deletes every entry up to and including `upto` and remembers it as the last purged one. The state
    /// that makes these entries dispensable must have been enqueued before.
    pub fn purge(&self, upto: EntryId) -> PurgeOutcome {
        self.purge_and(upto, Vec::new())
    }

    /// Like [`RaftLog::purge`], in one atomic write with `rows`, unless the entries had been purged before.
    pub(crate) fn purge_and(&self, upto: EntryId, rows: Vec<RowOp>) -> PurgeOutcome {
        let mut state = self.lock();
        let (outcome, mut ops) = self.purge_ops(&mut state, upto);
        ops.extend(rows);
        if outcome == PurgeOutcome::BeyondEnd {
            warn!(replica = %self.replica, upto = upto.index, "the log was purged beyond its end");
        }
        if outcome != PurgeOutcome::Unchanged {
            self.storage.write_ordered(ops, Completion::None);
        }
        outcome
    }

    /// Purges up to `upto` in one atomic write with `rows`, and returns once both are durable.
    pub(crate) async fn purge_with(&self, upto: EntryId, mut rows: Vec<RowOp>) -> Result<PurgeOutcome, StorageError> {
        let (done, purged) = oneshot::channel();
        let outcome = {
            let mut state = self.lock();
            let (outcome, ops) = self.purge_ops(&mut state, upto);
            rows.extend(ops);
            let completion = Completion::call(move |result| drop(done.send(result)));
            self.storage.write(rows, completion);
            outcome
        };
        purged.await.unwrap_or(Err(StorageError::Closed))?;
        Ok(outcome)
    }

    /// The entries of `range` that the log has, in order. Stops after the entry that reaches `bytes_max`,
    /// so the answer is empty only if the log holds nothing of the range.
    pub async fn read(&self, range: Range<u64>, bytes_max: u64) -> Result<Vec<LogEntry>, StorageError> {
        loop {
            if let Some(entries) = self.try_read(range.clone(), bytes_max).await? {
                return Ok(entries);
            }
        }
    }

    /// What [`RaftLog::read`] would return, if that takes no disk: none if the first entry is not in memory.
    pub fn cached(&self, range: Range<u64>, bytes_max: u64) -> Option<Vec<LogEntry>> {
        let state = self.lock();
        let held = state.held(range);
        if held.is_empty() {
            return Some(Vec::new());
        }
        let mut cache = state.cache.lock();
        let in_memory = cache.first_index().is_some_and(|first| first <= held.start);
        in_memory.then(|| cache.read(held, bytes_max))
    }

    /// None if a purge or a truncation came between: entries read before it don't belong with those after.
    async fn try_read(&self, range: Range<u64>, bytes_max: u64) -> Result<Option<Vec<LogEntry>>, StorageError> {
        let removals = self.lock().removals;
        let mut entries = Vec::new();
        let mut next = range.start;
        let mut bytes_left = bytes_max;
        loop {
            let on_disk = {
                let state = self.lock();
                if state.removals != removals {
                    return Ok(None);
                }
                let held = state.held(next..range.end);
                if held.is_empty() {
                    return Ok(Some(entries));
                }
                let mut cache = state.cache.lock();
                match cache.first_index() {
                    Some(first) if first <= held.start => {
                        entries.extend(cache.read(held, bytes_left));
                        return Ok(Some(entries));
                    }
                    first => held.start..first.unwrap_or(u64::MAX).min(held.end),
                }
            };
            let scanned = self.scan(on_disk.clone(), bytes_left).await?;
            if self.lock().removals != removals {
                return Ok(None);
            }
            if scanned.is_empty() {
                return Err(StorageError::Hole { replica: self.replica, expected: on_disk.start });
            }
            next = on_disk.start + scanned.len() as u64;
            bytes_left = bytes_left.saturating_sub(scanned.iter().map(|entry| entry.body.len() as u64).sum());
            entries.extend(scanned);
            if bytes_left == 0 {
                return Ok(Some(entries));
            }
        }
    }

    /// Consecutive entries from the start of `wanted`; none if the first one is missing.
    async fn scan(&self, wanted: Range<u64>, bytes: u64) -> Result<Vec<LogEntry>, StorageError> {
        let limit = ScanLimit { rows: SCAN_ROWS, bytes };
        let keys = keys::entries(self.replica, wanted.clone());
        let rows = self.storage.reader().scan(Table::Log, keys, limit, Direction::Forward).await?;
        let mut entries = Vec::with_capacity(rows.len());
        for (index, (key, row)) in (wanted.start..).zip(rows) {
            if keys::entry_index(&key) != Some(index) {
                break;
            }
            entries.push(LogEntry::from_row(index, &row)?);
        }
        Ok(entries)
    }

    fn purge_ops(&self, state: &mut LogState, upto: EntryId) -> (PurgeOutcome, Vec<RowOp>) {
        let from = match state.bounds.purged {
            Some(purged) if purged.index >= upto.index => return (PurgeOutcome::Unchanged, Vec::new()),
            Some(purged) => purged.index + 1,
            None => 0,
        };
        let beyond = state.bounds.last.is_none_or(|last| last.index < upto.index);
        state.bounds.purged = Some(upto);
        state.first = state.first.max(upto.index + 1);
        if beyond {
            state.bounds.last = Some(upto);
        }
        state.cache.lock().purge(upto.index);
        state.removals += 1;
        let value = Bytes::copy_from_slice(&upto.to_bytes());
        let ops = vec![
            RowOp::Put { table: Table::Raft, key: keys::purged(self.replica), value },
            self.delete(from..upto.index + 1),
        ];
        (if beyond { PurgeOutcome::BeyondEnd } else { PurgeOutcome::Trimmed }, ops)
    }

    fn delete(&self, indices: Range<u64>) -> RowOp {
        let Range { start, end } = keys::entries(self.replica, indices);
        RowOp::DeleteRange { table: Table::Log, from: start, to: end }
    }

    fn lock(&self) -> MutexGuard<'_, LogState> {
        lock(&self.state)
    }
}

impl LogState {
    /// The part of `range` that lies in the log.
    fn held(&self, range: Range<u64>) -> Range<u64> {
        let end = self.bounds.last.map_or(0, |last| last.index + 1);
        range.start.max(self.first)..range.end.min(end)
    }
}

fn lock(state: &Mutex<LogState>) -> MutexGuard<'_, LogState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn index_of(id: Option<EntryId>) -> Option<u64> {
    id.map(|id| id.index)
}

async fn load_entry_id(storage: &Storage, key: Vec<u8>) -> Result<Option<EntryId>, StorageError> {
    let Some(row) = storage.reader().get(Table::Raft, key).await? else { return Ok(None) };
    let id = EntryId::from_bytes(&row).ok_or_else(|| StorageError::malformed(Table::Raft, "not an entry id"))?;
    Ok(Some(id))
}

/// The first or the last entry on disk.
async fn load_end(storage: &Storage, replica: ReplicaId, end: Direction) -> Result<Option<EntryId>, StorageError> {
    let keys = keys::entries(replica, 0..u64::MAX);
    let rows = storage.reader().scan(Table::Log, keys, ScanLimit { rows: 1, bytes: 1 }, end).await?;
    let Some((key, row)) = rows.first() else { return Ok(None) };
    let index = keys::entry_index(key).ok_or_else(|| StorageError::malformed(Table::Log, "a key without an index"))?;
    Ok(Some(LogEntry::from_row(index, row)?.id))
}

#[cfg(test)]
#[path = "raft_log_tests.rs"]
mod tests;

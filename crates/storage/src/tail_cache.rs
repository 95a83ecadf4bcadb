use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::entry::LogEntry;

/// Bounds of one replica's tail cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TailCacheLimits {
    /// Bytes of durable entries to keep. Entries that are not durable yet are kept beyond it, since
    /// they can be read from nowhere else.
    pub bytes: u64,
}

impl Default for TailCacheLimits {
    fn default() -> Self {
        TailCacheLimits { bytes: 8 << 20 }
    }
}

/// Bytes that the tail caches of a node hold together unless told otherwise.
const NODE_BYTES_DEFAULT: u64 = 64 << 20;

/// A full budget is brought down to this much below its bound, in sixteenths of it, so that not every append
/// has to look for something to evict.
const RECLAIM_SIXTEENTHS: u64 = 1;

/// The tail caches of all replicas of a node, and the bytes that they may hold together: a bound per replica
/// alone would let the node's memory grow with its replicas.
pub(crate) struct TailBudget {
    bytes_max: AtomicU64,
    used: AtomicU64,
    /// Counts uses of all caches: how long ago one was used is measured in uses of the others.
    uses: AtomicU64,
    caches: Mutex<Vec<Weak<Mutex<TailCache>>>>,
}

impl TailBudget {
    pub(crate) fn new() -> TailBudget {
        TailBudget {
            bytes_max: AtomicU64::new(NODE_BYTES_DEFAULT),
            used: AtomicU64::new(0),
            uses: AtomicU64::new(0),
            caches: Mutex::default(),
        }
    }

    pub(crate) fn set_bytes_max(&self, bytes: u64) {
        self.bytes_max.store(bytes, Ordering::Relaxed);
        self.reclaim();
    }

    /// Bytes of all entries in all caches.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// A cache for one more replica.
    pub(crate) fn cache(self: &Arc<Self>, limits: TailCacheLimits) -> SharedTail {
        let cache = Arc::new(Mutex::new(TailCache::new(limits, Arc::clone(self))));
        let mut caches = self.caches.lock().unwrap_or_else(PoisonError::into_inner);
        caches.retain(|cache| cache.strong_count() > 0);
        caches.push(Arc::downgrade(&cache));
        SharedTail { cache, budget: Arc::clone(self) }
    }

    /// Evicts what is durable where most of it has been unused longest, until the bound is kept or nothing more
    /// may go. Must be called without the lock of any cache.
    fn reclaim(&self) {
        let bytes_max = self.bytes_max.load(Ordering::Relaxed);
        if self.used() <= bytes_max {
            return;
        }
        // Whoever is at it already does it for everyone.
        let Ok(caches) = self.caches.try_lock() else { return };
        let goal = bytes_max - bytes_max / 16 * RECLAIM_SIXTEENTHS;
        let now = self.uses.load(Ordering::Relaxed);
        let mut candidates: Vec<(u64, Arc<Mutex<TailCache>>)> = caches
            .iter()
            .filter_map(Weak::upgrade)
            .map(|cache| {
                let weight = lock(&cache).dispensable(now);
                (weight, cache)
            })
            .filter(|(weight, _)| *weight > 0)
            .collect();
        drop(caches);
        candidates.sort_unstable_by_key(|(weight, _)| std::cmp::Reverse(*weight));
        for (_, cache) in candidates {
            let excess = self.used().saturating_sub(goal);
            if excess == 0 {
                return;
            }
            lock(&cache).give_back(excess);
        }
    }

    fn use_one(&self) -> u64 {
        self.uses.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// One replica's tail cache, shared between its log and the node's budget. Its lock is the innermost one.
#[derive(Clone)]
pub(crate) struct SharedTail {
    cache: Arc<Mutex<TailCache>>,
    budget: Arc<TailBudget>,
}

impl SharedTail {
    pub(crate) fn lock(&self) -> MutexGuard<'_, TailCache> {
        lock(&self.cache)
    }

    /// See [`TailCache::append`].
    pub(crate) fn append(&self, entries: Vec<LogEntry>) -> u64 {
        let append = self.lock().append(entries);
        self.budget.reclaim();
        append
    }

    /// See [`TailCache::durable`].
    pub(crate) fn durable(&self, append: u64) {
        self.lock().durable(append);
        self.budget.reclaim();
    }
}

fn lock(cache: &Mutex<TailCache>) -> MutexGuard<'_, TailCache> {
    cache.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The newest entries of a log, without gaps, up to the log's end.
///
/// Followers, the state machine and consumers read each entry soon after it was appended; and until
/// the writer has committed it, this is the only place that has it.
pub(crate) struct TailCache {
    entries: VecDeque<Cached>,
    bytes: u64,
    limits: TailCacheLimits,
    budget: Arc<TailBudget>,
    /// When it was last appended to or read, in uses of all caches.
    used_at: u64,
    /// Appends are numbered, because an index can be appended again after a truncation: the
    /// completion of the first append must not make the second one look durable.
    appends: u64,
    appends_durable: u64,
}

struct Cached {
    append: u64,
    entry: LogEntry,
}

impl TailCache {
    fn new(limits: TailCacheLimits, budget: Arc<TailBudget>) -> TailCache {
        let entries = VecDeque::new();
        TailCache { entries, bytes: 0, limits, budget, used_at: 0, appends: 0, appends_durable: 0 }
    }

    /// Adds entries that follow the last one, and names the append for [`TailCache::durable`].
    fn append(&mut self, entries: Vec<LogEntry>) -> u64 {
        self.appends += 1;
        self.used_at = self.budget.use_one();
        for entry in entries {
            if let Some(last) = self.entries.back() {
                assert_eq!(last.entry.id.index + 1, entry.id.index, "the tail of a log has no gaps");
            }
            self.bytes += entry.weight();
            self.budget.used.fetch_add(entry.weight(), Ordering::Relaxed);
            self.entries.push_back(Cached { append: self.appends, entry });
        }
        self.evict();
        self.appends
    }

    /// The append and all before it can be read from the disk, so they may be evicted.
    fn durable(&mut self, append: u64) {
        self.appends_durable = self.appends_durable.max(append);
        self.evict();
    }

    /// Forgets the entries from `index` on.
    pub(crate) fn truncate_from(&mut self, index: u64) {
        while self.entries.back().is_some_and(|cached| cached.entry.id.index >= index) {
            let gone = self.entries.pop_back();
            self.release(gone);
        }
    }

    /// Forgets the entries up to and including `index`.
    pub(crate) fn purge(&mut self, index: u64) {
        while self.entries.front().is_some_and(|cached| cached.entry.id.index <= index) {
            self.pop_front();
        }
    }

    /// The index of the first entry here; everything older is on disk.
    pub(crate) fn first_index(&self) -> Option<u64> {
        self.entries.front().map(|cached| cached.entry.id.index)
    }

    /// The entries of `range` that are here, stopping after the one that reaches `bytes_max`.
    pub(crate) fn read(&mut self, range: Range<u64>, bytes_max: u64) -> Vec<LogEntry> {
        let Some(first) = self.first_index() else { return Vec::new() };
        self.used_at = self.budget.use_one();
        let position = |index: u64| usize::try_from(index.saturating_sub(first)).unwrap_or(usize::MAX);
        let end = position(range.end).min(self.entries.len());
        let start = position(range.start).min(end);
        let mut bytes = 0;
        let mut taken = Vec::new();
        for cached in self.entries.range(start..end) {
            bytes += cached.entry.body.len() as u64;
            taken.push(cached.entry.clone());
            if bytes >= bytes_max {
                break;
            }
        }
        taken
    }

    /// How dispensable the cache is next to the others: its bytes times the uses of others since its own; 0 if
    /// nothing here may go. Of caches in equal use the largest goes first, of equally large ones the idlest.
    fn dispensable(&self, now: u64) -> u64 {
        let idle = now.saturating_sub(self.used_at) + 1;
        if self.first_is_durable() { self.bytes.saturating_mul(idle) } else { 0 }
    }

    /// Evicts durable entries, oldest first, until `bytes` are free or none is left.
    fn give_back(&mut self, bytes: u64) {
        let goal = self.bytes.saturating_sub(bytes);
        while self.bytes > goal && self.first_is_durable() {
            self.pop_front();
        }
    }

    fn evict(&mut self) {
        while self.bytes > self.limits.bytes && self.first_is_durable() {
            self.pop_front();
        }
    }

    fn first_is_durable(&self) -> bool {
        self.entries.front().is_some_and(|cached| cached.append <= self.appends_durable)
    }

    fn pop_front(&mut self) {
        let gone = self.entries.pop_front();
        self.release(gone);
    }

    fn release(&mut self, gone: Option<Cached>) {
        let weight = gone.map_or(0, |cached| cached.entry.weight());
        self.bytes -= weight;
        self.budget.used.fetch_sub(weight, Ordering::Relaxed);
    }
}

impl Drop for TailCache {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
    use bytes::Bytes;

    use super::*;
    use crate::entry::{EntryId, EntryKind};

    fn entries(range: Range<u64>) -> Vec<LogEntry> {
        range
            .map(|index| {
                let id = EntryId { term: 1, index };
                LogEntry { id, kind: EntryKind::Command, body: Bytes::from(vec![0; 100]) }
            })
            .collect()
    }

    fn cache_of(entries_kept: u64) -> TailCache {
        let weight = entries(0..1)[0].weight();
        TailCache::new(TailCacheLimits { bytes: entries_kept * weight }, Arc::new(TailBudget::new()))
    }

    fn indices(cache: &mut TailCache) -> Vec<u64> {
        cache.read(0..u64::MAX, u64::MAX).iter().map(|entry| entry.id.index).collect()
    }

    #[test]
    fn only_durable_entries_are_evicted() {
        let mut cache = cache_of(2);
        let first = cache.append(entries(0..3));
        let second = cache.append(entries(3..6));
        assert_eq!(indices(&mut cache), [0, 1, 2, 3, 4, 5], "nothing is durable, so nothing may go");
        cache.durable(first);
        assert_eq!(indices(&mut cache), [3, 4, 5], "the limit is passed, but the rest is not durable");
        cache.durable(second);
        assert_eq!(indices(&mut cache), [4, 5]);
    }

    #[test]
    fn the_limit_is_exact() {
        let mut cache = cache_of(2);
        let append = cache.append(entries(0..2));
        cache.durable(append);
        assert_eq!(indices(&mut cache), [0, 1], "at the limit");
        cache.append(entries(2..3));
        assert_eq!(indices(&mut cache), [1, 2], "one past it");
    }

    #[test]
    fn an_old_completion_does_not_cover_an_index_that_was_appended_again() {
        let mut cache = cache_of(0);
        let first = cache.append(entries(0..4));
        cache.truncate_from(1);
        let second = cache.append(entries(1..4));
        cache.durable(first);
        assert_eq!(indices(&mut cache), [1, 2, 3]);
        cache.durable(second);
        assert_eq!(indices(&mut cache), [0; 0]);
    }

    #[test]
    fn purge_and_truncate_meet_in_the_middle() {
        let mut cache = cache_of(100);
        cache.append(entries(5..15));
        cache.purge(7);
        cache.truncate_from(12);
        assert_eq!(indices(&mut cache), [8, 9, 10, 11]);
        cache.purge(20);
        assert_eq!((cache.first_index(), cache.bytes), (None, 0));
    }

    /// A budget of so many entries, and caches that alone would keep them all.
    fn node_of(entries_kept: u64, caches: usize) -> (Arc<TailBudget>, Vec<SharedTail>) {
        let budget = Arc::new(TailBudget::new());
        budget.set_bytes_max(entries_kept * entries(0..1)[0].weight());
        let caches = (0..caches).map(|_| budget.cache(TailCacheLimits { bytes: u64::MAX })).collect();
        (budget, caches)
    }

    fn held(cache: &SharedTail) -> Vec<u64> {
        let mut cache = cache.lock();
        indices(&mut cache)
    }

    #[test]
    fn the_caches_of_a_node_share_one_bound_exactly() {
        let (budget, caches) = node_of(4, 2);
        for cache in &caches {
            let append = cache.append(entries(0..2));
            cache.durable(append);
        }
        assert_eq!((held(&caches[0]).len(), held(&caches[1]).len()), (2, 2), "at the bound");
        caches[1].append(entries(2..3));
        assert!(budget.used() <= 4 * entries(0..1)[0].weight(), "one past it");
    }

    #[test]
    fn the_idlest_cache_gives_first() {
        let (_, caches) = node_of(4, 2);
        for cache in &caches {
            let append = cache.append(entries(0..2));
            cache.durable(append);
        }
        // Both hold as much, but somebody reads the first.
        held(&caches[0]);
        caches[0].append(entries(2..3));
        assert_eq!(held(&caches[0]), [0, 1, 2]);
        assert!(held(&caches[1]).len() < 2);
    }

    #[test]
    fn what_is_not_durable_stays_whatever_the_budget() {
        let (budget, caches) = node_of(1, 2);
        let first = caches[0].append(entries(0..3));
        let second = caches[1].append(entries(0..3));
        assert_eq!((held(&caches[0]).len(), held(&caches[1]).len()), (3, 3));
        caches[0].durable(first);
        assert_eq!((held(&caches[0]).len(), held(&caches[1]).len()), (0, 3));
        caches[1].durable(second);
        assert!(budget.used() <= entries(0..1)[0].weight());
    }

    #[test]
    fn a_closed_log_gives_its_bytes_back() {
        let (budget, mut caches) = node_of(10, 2);
        caches[0].append(entries(0..3));
        caches[1].append(entries(0..2));
        caches.remove(0);
        assert_eq!(budget.used(), 2 * entries(0..1)[0].weight());
        caches[0].lock().truncate_from(1);
        caches[0].lock().purge(0);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_read_stops_after_the_entry_that_reaches_the_bound() {
        let mut cache = cache_of(100);
        cache.append(entries(5..15));
        assert_eq!(cache.read(6..12, 1).len(), 1);
        assert_eq!(cache.read(6..12, 200).len(), 2);
        assert_eq!(cache.read(6..12, 201).len(), 3);
        assert_eq!(cache.read(6..12, u64::MAX).len(), 6);
        assert_eq!(cache.read(12..12, u64::MAX).len(), 0);
    }
}

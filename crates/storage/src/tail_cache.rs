use std::collections::VecDeque;
use std::ops::Range;

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

/// The newest entries of a log, without gaps, up to the log's end.
///
/// Followers, the state machine and consumers read each entry soon after it was appended; and until
/// the writer has committed it, this is the only place that has it.
pub(crate) struct TailCache {
    entries: VecDeque<Cached>,
    bytes: u64,
    limits: TailCacheLimits,
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
    pub(crate) fn new(limits: TailCacheLimits) -> TailCache {
        TailCache { entries: VecDeque::new(), bytes: 0, limits, appends: 0, appends_durable: 0 }
    }

    /// Adds entries that follow the last one, and names the append for [`TailCache::durable`].
    pub(crate) fn append(&mut self, entries: Vec<LogEntry>) -> u64 {
        self.appends += 1;
        for entry in entries {
            if let Some(last) = self.entries.back() {
                assert_eq!(last.entry.id.index + 1, entry.id.index, "the tail of a log has no gaps");
            }
            self.bytes += entry.weight();
            self.entries.push_back(Cached { append: self.appends, entry });
        }
        self.evict();
        self.appends
    }

    /// The append and all before it can be read from the disk, so they may be evicted.
    pub(crate) fn durable(&mut self, append: u64) {
        self.appends_durable = self.appends_durable.max(append);
        self.evict();
    }

    /// Forgets the entries from `index` on.
    pub(crate) fn truncate_from(&mut self, index: u64) {
        while self.entries.back().is_some_and(|cached| cached.entry.id.index >= index) {
            let gone = self.entries.pop_back();
            self.bytes -= gone.map_or(0, |cached| cached.entry.weight());
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
    pub(crate) fn read(&self, range: Range<u64>, bytes_max: u64) -> Vec<LogEntry> {
        let Some(first) = self.first_index() else { return Vec::new() };
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

    fn evict(&mut self) {
        while self.bytes > self.limits.bytes
            && self.entries.front().is_some_and(|cached| cached.append <= self.appends_durable)
        {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        let gone = self.entries.pop_front();
        self.bytes -= gone.map_or(0, |cached| cached.entry.weight());
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
                let id = EntryId { term: 1, leader: 1, index };
                LogEntry { id, kind: EntryKind::Command, body: Bytes::from(vec![0; 100]) }
            })
            .collect()
    }

    fn cache_of(entries_kept: u64) -> TailCache {
        let weight = entries(0..1)[0].weight();
        TailCache::new(TailCacheLimits { bytes: entries_kept * weight })
    }

    fn indices(cache: &TailCache) -> Vec<u64> {
        cache.read(0..u64::MAX, u64::MAX).iter().map(|entry| entry.id.index).collect()
    }

    #[test]
    fn only_durable_entries_are_evicted() {
        let mut cache = cache_of(2);
        let first = cache.append(entries(0..3));
        let second = cache.append(entries(3..6));
        assert_eq!(indices(&cache), [0, 1, 2, 3, 4, 5], "nothing is durable, so nothing may go");
        cache.durable(first);
        assert_eq!(indices(&cache), [3, 4, 5], "the limit is passed, but the rest is not durable");
        cache.durable(second);
        assert_eq!(indices(&cache), [4, 5]);
    }

    #[test]
    fn the_limit_is_exact() {
        let mut cache = cache_of(2);
        let append = cache.append(entries(0..2));
        cache.durable(append);
        assert_eq!(indices(&cache), [0, 1], "at the limit");
        cache.append(entries(2..3));
        assert_eq!(indices(&cache), [1, 2], "one past it");
    }

    #[test]
    fn an_old_completion_does_not_cover_an_index_that_was_appended_again() {
        let mut cache = cache_of(0);
        let first = cache.append(entries(0..4));
        cache.truncate_from(1);
        let second = cache.append(entries(1..4));
        cache.durable(first);
        assert_eq!(indices(&cache), [1, 2, 3]);
        cache.durable(second);
        assert_eq!(indices(&cache), [0; 0]);
    }

    #[test]
    fn purge_and_truncate_meet_in_the_middle() {
        let mut cache = cache_of(100);
        cache.append(entries(5..15));
        cache.purge(7);
        cache.truncate_from(12);
        assert_eq!(indices(&cache), [8, 9, 10, 11]);
        cache.purge(20);
        assert_eq!((cache.first_index(), cache.bytes), (None, 0));
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

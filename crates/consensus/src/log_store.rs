//! openraft's log storage over [`RaftLog`].
//!
//! `append` only enqueues: the entries are readable at once through the tail cache, and openraft is told
//! of their durability by the log writer, first in, first out, after the fsync that covers all groups.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

use futures::stream::{self, Stream, StreamExt};
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use quorate_model::sabotage::{Bug, is_planted};
use quorate_storage::{Completion, LogEntry, RaftLog, StateStore, StorageError};

use crate::codec;
use crate::snapshot::Cut;
use crate::types::{Entry, LogId, Types, Vote};

/// Most bytes of entries that one AppendEntries message carries (one larger entry may exceed it).
const APPEND_BYTES_MAX: u64 = 1 << 20;
/// Most bytes of entries read at once for applying.
const APPLY_BYTES_MAX: u64 = 4 << 20;

#[derive(Clone)]
pub(crate) struct LogStore {
    log: RaftLog,
    store: StateStore,
    cut: Arc<Cut>,
}

impl LogStore {
    pub(crate) fn new(log: RaftLog, store: StateStore, cut: Arc<Cut>) -> Self {
        Self { log, store, cut }
    }

    async fn read_some(&self, start: u64, end: u64, bytes_max: u64) -> io::Result<Vec<Entry>> {
        let stored = match self.log.cached(start..end, bytes_max) {
            Some(entries) => entries,
            None => self.log.read(start..end, bytes_max).await.map_err(storage_io)?,
        };
        stored.into_iter().map(codec::stored_to_entry).collect()
    }

    /// Whether the vote is for another replica.
    fn follows(&self) -> io::Result<bool> {
        let vote = self.log.vote().map(|bytes| codec::vote_from_bytes(&bytes)).transpose()?;
        Ok(vote.is_some_and(|vote| vote.leader_id.voted_for != self.log.replica().get()))
    }

    /// The indices that the log holds.
    fn held(&self) -> Range<u64> {
        let bounds = self.log.bounds();
        let first = bounds.purged.map_or(0, |id| id.index + 1);
        first..bounds.last.map_or(first, |id| id.index + 1)
    }
}

/// A range as its first index and the one after its last.
fn asked(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&start) => start + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&end) => end + 1,
        Bound::Excluded(&end) => end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let (held, asked) = (self.held(), asked(&range));
        let (mut start, end) = (asked.start.max(held.start), asked.end.min(held.end));
        let mut entries = Vec::new();
        while start < end {
            let some = self.read_some(start, end, u64::MAX).await?;
            let Some(last) = some.last() else { break };
            start = last.log_id.index + 1;
            entries.extend(some);
        }
        Ok(entries)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        self.log.vote().map(|bytes| codec::vote_from_bytes(&bytes)).transpose()
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let entries = self.read_some(start, end, APPEND_BYTES_MAX).await?;
        // openraft takes the first entry for `start`: one that begins later, behind a purge, would leave a gap.
        match entries.first().map(|entry| entry.log_id.index) {
            Some(first) if first != start => {
                Err(io::Error::other(format!("asked for the entries from {start} on, the log begins at {first}")))
            }
            _ => Ok(entries),
        }
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        // An entry that is missing here would be taken for an applied one: every index up to the log's end must be
        // there, and one that was purged is an error too.
        let Range { start, end } = asked(&range);
        let end = end.min(self.held().end);
        let store = self.clone();
        let chunks = stream::try_unfold(start, move |next| {
            let store = store.clone();
            async move {
                if next >= end {
                    return Ok(None);
                }
                let entries = store.read_some(next, end, APPLY_BYTES_MAX).await?;
                let expected = next..next + entries.len() as u64;
                if entries.is_empty() || !expected.clone().eq(entries.iter().map(|entry| entry.log_id.index)) {
                    return Err(io::Error::other(format!("the log lacks entries of {expected:?}, up to {end}")));
                }
                Ok(Some((entries, expected.end)))
            }
        });
        Box::pin(chunks.flat_map(|chunk: io::Result<Vec<Entry>>| match chunk {
            Ok(entries) => stream::iter(entries.into_iter().map(Ok).collect::<Vec<_>>()),
            Err(error) => stream::iter(vec![Err(error)]),
        }))
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let bounds = self.log.bounds();
        let purged = bounds.purged.map(codec::entry_id_to_log_id);
        Ok(LogState { last_purged_log_id: purged, last_log_id: bounds.last.map(codec::entry_id_to_log_id).or(purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.log.save_vote(codec::vote_to_bytes(vote)).await.map_err(storage_io)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.log.save_committed(committed.as_ref().map(codec::log_id_to_entry_id));
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.log.committed().map(codec::entry_id_to_log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<LogEntry> = entries.into_iter().map(codec::entry_to_stored).collect();
        if is_planted(Bug::FollowersDoNotSync) && self.follows()? {
            self.log.append(entries, Completion::None);
            callback.io_completed(Ok(()));
            return Ok(());
        }
        let done = Completion::call(move |result| callback.io_completed(result.map_err(storage_io)));
        self.log.append(entries, done);
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        self.log.truncate_after(last_log_id.as_ref().map(codec::log_id_to_entry_id));
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        let cut = self.cut.get();
        let Some(cut) = cut.filter(|cut| log_id.index <= cut.index) else {
            let why = format!("asked to purge the log up to {}, where its snapshot allows {cut:?}", log_id.index);
            return Err(io::Error::other(why));
        };
        // The index of records goes only with all of them: an older purge leaves it to the newer one.
        let log_start = cut.log_start.filter(|_| log_id.index == cut.index);
        self.store.purge(&self.log, codec::log_id_to_entry_id(&log_id), log_start);
        Ok(())
    }
}

/// openraft speaks `io::Error`; the storage error stays inside as its source.
pub(crate) fn storage_io(error: StorageError) -> io::Error {
    io::Error::other(error)
}

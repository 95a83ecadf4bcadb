//! Committed batches of one partition as a stream: out of this node's replica, or from the node that leads.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use quorate_consensus::{Leadership, Progress, RaftGroup};
use quorate_model::sabotage::{Bug, is_planted};
use quorate_model::{
    BatchError, ClusterMap, NodeId, Offset, PartitionMachine, Reason, RecordBatch, RecordBatchBuilder,
};
use quorate_proto::internal::{self, fetch_response, fetch_start};
use quorate_storage::StoredBatch;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::api::error::ApiError;
use crate::leaders::known;
use crate::limits::LEADER_DOUBT;
use crate::peers::PeerClient;
use crate::reads::{Ahead, Reads};

/// Where in a partition to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// At an offset within the log, its end included.
    Offset(Offset),
    /// At the first record whose time isn't earlier, in milliseconds since the epoch.
    Time(u64),
    /// At the oldest record kept.
    Earliest,
    /// After the newest record.
    Latest,
    /// So many records before the end, or as many as there are.
    Last(u64),
}

/// Whose word counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consistency {
    /// The leader's: everything that was acknowledged before the call is included.
    Leader,
    /// Any replica's: what it knows to be committed, which may be less.
    Local,
}

/// What to fetch, and how.
#[derive(Clone)]
pub(crate) struct FetchOptions {
    pub(crate) start: Start,
    pub(crate) consistency: Consistency,
    /// End after what was committed at the beginning, instead of waiting for more.
    pub(crate) stop_at_end: bool,
    /// Bytes read from the log at a time.
    pub(crate) bytes_max: u64,
    /// The node's bounds on reading.
    pub(crate) reads: Reads,
    /// Ends the stream when the topic is deleted.
    pub(crate) map: watch::Receiver<Arc<ClusterMap>>,
    /// Ends the stream when the node shuts down.
    pub(crate) draining: CancellationToken,
}

/// A partition's batches from `start` on. The first one may begin before it.
pub(crate) struct Fetch {
    pub(crate) start: Offset,
    pub(crate) content: BoxStream<'static, Result<Fetched, ApiError>>,
}

/// An item of a fetch.
#[derive(Clone, Debug)]
pub(crate) enum Fetched {
    Batch(StoredBatch),
    /// These records were deleted.
    Deleted(Range<Offset>),
    /// With `stop_at_end`: everything before this offset has been delivered. Nothing follows.
    End(Offset),
}

/// Reads from the replica of this node. Unless its word is enough, it must lead: only the leader knows, after a round to its followers,
/// where the log ends. What follows is committed and may be read whoever leads by then, but whether more is to come
/// only the leader knows: a reader that waits is sent on when this replica leads no more.
pub(crate) async fn local(group: RaftGroup, what: String, options: FetchOptions) -> Result<Fetch, ApiError> {
    let place = options.reads.enter()?;
    let believed = is_planted(Bug::StaleLeaderReads) && group.leadership().is_self;
    if options.consistency == Consistency::Leader && !believed {
        group.read_barrier().await.map_err(|error| ApiError::from_barrier(error, &what))?;
    }
    let (progress, leadership) = (group.progress(), group.watch_leadership());
    let now = *progress.borrow();
    let start = resolve(&group, &now, &what, &options).await?;
    let stop = options.stop_at_end.then_some(now.end);
    let tail = LogTail {
        group,
        what,
        progress,
        leadership,
        next: start,
        stop,
        ready: VecDeque::new(),
        left: VecDeque::new(),
        ahead: None,
        options,
        ended: false,
        _place: place,
    };
    let content = stream::unfold(tail, |mut tail| async move {
        let item = tail.next().await?;
        Some((item, tail))
    });
    Ok(Fetch { start, content: content.boxed() })
}

/// Reads through the node that leads.
pub(crate) async fn remote(
    node: NodeId,
    mut client: PeerClient,
    request: internal::FetchRequest,
    reads: &Reads,
) -> Result<Fetch, ApiError> {
    let place = reads.enter()?;
    let broken = move |status: tonic::Status| ApiError::from_peer(node, &status);
    let mut responses = client.fetch(request).await.map_err(broken)?.into_inner();
    let first = responses.message().await.map_err(broken)?.and_then(|response| response.content);
    let Some(fetch_response::Content::StartOffset(start)) = first else {
        return Err(ApiError::internal(format!("node {node} didn't say where its fetch starts")));
    };
    let content = responses.map(move |response| {
        let _held = &place;
        match response.map_err(broken)?.content {
            Some(fetch_response::Content::Batch(received)) => stored(received).map(Fetched::Batch),
            Some(fetch_response::Content::Deleted(deleted)) => {
                Ok(Fetched::Deleted(Offset::new(deleted.base_offset)..Offset::new(deleted.end_offset)))
            }
            Some(fetch_response::Content::EndOffset(end)) => Ok(Fetched::End(Offset::new(end))),
            _ => Err(ApiError::internal(format!("node {node} sent a response out of turn"))),
        }
    });
    Ok(Fetch { start: Offset::new(start), content: content.boxed() })
}

/// The position that was asked for as an offset, checked against what the log holds.
async fn resolve(group: &RaftGroup, now: &Progress, what: &str, options: &FetchOptions) -> Result<Offset, ApiError> {
    match options.start {
        Start::Earliest => Ok(now.log_start),
        Start::Latest => Ok(now.end),
        Start::Last(count) => Ok(Offset::new(now.end.get().saturating_sub(count)).max(now.log_start)),
        Start::Time(ms) => {
            let found = group.offset_for_time(ms).await.map_err(|error| ApiError::from_read(error, what))?;
            Ok(found.clamp(now.log_start, now.end))
        }
        Start::Offset(offset) if (now.log_start..=now.end).contains(&offset) => Ok(offset),
        // This replica may be behind the one that the reader has read from before: the record will come.
        Start::Offset(offset) if offset > now.end && options.consistency == Consistency::Local => Ok(offset),
        Start::Offset(offset) => Err(ApiError::out_of_range(what, offset, now.log_start, now.end)),
    }
}

/// A reader that moves along the log of this node's replica.
struct LogTail {
    group: RaftGroup,
    /// What is read, for messages to people.
    what: String,
    progress: watch::Receiver<Progress>,
    leadership: watch::Receiver<Leadership>,
    /// The next offset to deliver.
    next: Offset,
    /// Where to end.
    stop: Option<Offset>,
    /// Read, not yet delivered.
    ready: VecDeque<StoredBatch>,
    /// What is left of a batch of which messages were deleted.
    left: VecDeque<Fetched>,
    /// The room that this takes.
    ahead: Option<Ahead>,
    options: FetchOptions,
    ended: bool,
    _place: OwnedSemaphorePermit,
}

impl LogTail {
    /// The next item; `None` after the last one or an error.
    async fn next(&mut self) -> Option<Result<Fetched, ApiError>> {
        if self.ended {
            return None;
        }
        let item = self.advance().await;
        self.ended = !matches!(item, Ok(Fetched::Batch(_) | Fetched::Deleted(_)));
        Some(item)
    }

    async fn advance(&mut self) -> Result<Fetched, ApiError> {
        loop {
            if let Some(part) = self.left.pop_front() {
                return Ok(part);
            }
            if let Some(stop) = self.stop.filter(|stop| self.next >= *stop) {
                return Ok(Fetched::End(stop));
            }
            if self.options.draining.is_cancelled() {
                return Err(ApiError::draining());
            }
            if let Some(batch) = self.ready.pop_front() {
                let end = end_of(&batch)?;
                let whole = batch.base_offset..end;
                let kept = self.group.kept(whole.clone());
                if kept != [whole] {
                    self.left = self.parts(&batch, self.next..end, kept)?.into();
                }
                self.next = end;
                if self.left.is_empty() {
                    return Ok(Fetched::Batch(batch));
                }
                continue;
            }
            self.ahead = None;
            self.wait_for_records().await?;
            let (next, end) = (self.next, self.progress.borrow().end);
            self.next = self.group.first_kept(next).min(end).max(next);
            if self.next > next {
                return Ok(Fetched::Deleted(next..self.next));
            }
            let mut ahead = self.options.reads.ahead(self.options.bytes_max);
            match self.group.read(self.next, ahead.bytes).await {
                Ok(read) => {
                    ahead.keep(read.iter().map(|batch| batch.batch.len() as u64).sum());
                    self.ready = read.into();
                    self.ahead = Some(ahead);
                }
                Err(error) => {
                    // The rows of a deleted topic are missing without anything being broken.
                    self.still_there()?;
                    let now = *self.progress.borrow();
                    if self.next < now.log_start {
                        return Err(ApiError::out_of_range(&self.what, self.next, now.log_start, now.end));
                    }
                    return Err(ApiError::from_read(error, &self.what));
                }
            }
        }
    }

    /// What is left of a part of a batch, in batches of their own, and what was deleted of it.
    fn parts(
        &self,
        stored: &StoredBatch,
        whole: Range<Offset>,
        kept: Vec<Range<Offset>>,
    ) -> Result<Vec<Fetched>, ApiError> {
        let kept: Vec<Range<Offset>> = kept
            .into_iter()
            .map(|range| range.start.max(whole.start)..range.end)
            .filter(|range| !range.is_empty())
            .collect();
        if kept.is_empty() {
            return Ok(vec![Fetched::Deleted(whole)]);
        }
        let damaged = |error: BatchError| corrupt(stored.base_offset, &error.to_string());
        let partition = self.group.look(PartitionMachine::partition).ok_or_else(ApiError::out_of_turn)?;
        let batch = RecordBatch::decode(stored.batch.clone(), partition).map_err(damaged)?;
        let records = batch.records().map_err(damaged)?;
        let mut records = (stored.base_offset.get()..).map(Offset::new).zip(records).peekable();
        let (mut parts, mut from) = (Vec::new(), whole.start);
        for range in kept {
            let mut part = RecordBatchBuilder::new(partition, batch.header().codec, None);
            while let Some((offset, record)) = records.next_if(|(offset, _)| *offset < range.end) {
                if offset >= range.start {
                    part.push(record).map_err(damaged)?;
                }
            }
            if from < range.start {
                parts.push(Fetched::Deleted(from..range.start));
            }
            from = range.end;
            let part = part.build().map_err(damaged)?;
            let (count, batch) = (part.header().count, part.bytes().clone());
            parts.push(Fetched::Batch(StoredBatch { base_offset: range.start, count, batch }));
        }
        if from < whole.end {
            parts.push(Fetched::Deleted(from..whole.end));
        }
        Ok(parts)
    }

    /// Returns once there is something to read at `next`.
    async fn wait_for_records(&mut self) -> Result<(), ApiError> {
        let draining = self.options.draining.clone();
        loop {
            let now = *self.progress.borrow_and_update();
            if self.next < now.log_start {
                return Err(ApiError::out_of_range(&self.what, self.next, now.log_start, now.end));
            }
            if self.next < now.end {
                return Ok(());
            }
            let leads = self.options.consistency == Consistency::Leader;
            if leads {
                self.still_leading()?;
            }
            tokio::select! {
                biased;
                changed = self.progress.changed() => changed.map_err(|_| ApiError::no_leader(&self.what))?,
                _ = self.options.map.changed() => self.still_there()?,
                () = draining.cancelled() => return Err(ApiError::draining()),
                changed = self.leadership.changed(), if leads => changed.map_err(|_| ApiError::no_leader(&self.what))?,
                () = sleep(LEADER_DOUBT), if leads => self.still_confirmed().await?,
            }
        }
    }

    /// A replica that doesn't lead may be cut off from its group: whoever waits here would wait for ever.
    fn still_leading(&mut self) -> Result<(), ApiError> {
        let now = *self.leadership.borrow_and_update();
        if now.is_self {
            return Ok(());
        }
        // A group that is closed because it was buried doesn't lead either.
        self.still_there()?;
        match known(&now) {
            Some(leader) => Err(ApiError::not_leader(&self.what, leader, &self.options.map.borrow())),
            None => Err(ApiError::no_leader(&self.what)),
        }
    }

    /// A leader that is cut off from its group doesn't know that there is another: it hears of no record, and of no
    /// successor either. Only a quorum can say that it still leads.
    async fn still_confirmed(&self) -> Result<(), ApiError> {
        if self.group.quorum_age().is_some_and(|age| age < LEADER_DOUBT) {
            return Ok(());
        }
        match timeout(LEADER_DOUBT, self.group.read_barrier()).await {
            Ok(confirmed) => confirmed.map_err(|error| ApiError::from_barrier(error, &self.what)),
            Err(_) => Err(ApiError::no_leader(&self.what)),
        }
    }

    /// A buried group gets no more records: whoever waits for some would wait for ever.
    fn still_there(&mut self) -> Result<(), ApiError> {
        let map = self.options.map.borrow_and_update();
        if map.tombstones.contains(&self.group.id()) {
            return Err(ApiError::new(Reason::TopicNotFound, format!("{}: the topic was deleted", self.what)));
        }
        Ok(())
    }
}

/// The offset after a batch's last record.
fn end_of(stored: &StoredBatch) -> Result<Offset, ApiError> {
    let end = stored.base_offset.checked_add(u64::from(stored.count));
    end.ok_or_else(|| corrupt(stored.base_offset, "its offsets leave the number line"))
}

/// A batch that another node read out of its log.
fn stored(received: internal::FetchBatch) -> Result<StoredBatch, ApiError> {
    let base_offset = Offset::new(received.base_offset);
    let batch = RecordBatch::trusted(received.batch).map_err(|error| corrupt(base_offset, &error.to_string()))?;
    Ok(StoredBatch { base_offset, count: batch.header().count, batch: batch.bytes().clone() })
}

/// A batch that was whole when it was stored isn't any more.
pub(crate) fn corrupt(base_offset: Offset, why: &str) -> ApiError {
    ApiError::new(Reason::CorruptLog, format!("the stored batch at offset {base_offset} is damaged: {why}"))
        .with("offset", &base_offset)
}

impl Start {
    /// As it travels between nodes.
    pub(crate) fn to_wire(self) -> internal::FetchStart {
        let start = match self {
            Self::Offset(offset) => fetch_start::Start::Offset(offset.get()),
            Self::Time(ms) => fetch_start::Start::TimeMs(ms),
            Self::Earliest => fetch_start::Start::Earliest(true),
            Self::Latest => fetch_start::Start::Latest(true),
            Self::Last(count) => fetch_start::Start::Last(count),
        };
        internal::FetchStart { start: Some(start) }
    }

    /// From another node; absent means the beginning.
    pub(crate) fn from_wire(start: Option<internal::FetchStart>) -> Self {
        match start.and_then(|start| start.start) {
            None | Some(fetch_start::Start::Earliest(_)) => Self::Earliest,
            Some(fetch_start::Start::Offset(offset)) => Self::Offset(Offset::new(offset)),
            Some(fetch_start::Start::TimeMs(ms)) => Self::Time(ms),
            Some(fetch_start::Start::Latest(_)) => Self::Latest,
            Some(fetch_start::Start::Last(count)) => Self::Last(count),
        }
    }
}

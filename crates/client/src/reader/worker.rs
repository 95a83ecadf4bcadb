//! [`Worker`]: the one task that owns a reader's cursors and streams.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_model::{PartitionId, Reason, RecordBatch, RetryAdvice};
use quorate_proto::v1 as pb;
use quorate_proto::v1::read_response::Content;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tracing::debug;

use super::Chunk;
use super::cursor::{Cursor, Phase};
use super::stream::{ReadStream, StreamEvent, StreamId};
use crate::error::{Cause, ClientError};
use crate::message::ReceivedMessage;
use crate::retry::Backoff;
use crate::routing::{Route, Router, RoutingMode, TopicRef};

/// Batches between the network and the cursors; HTTP/2's flow control holds back the rest.
const EVENTS_MAX: usize = 8;

/// A consumer that takes nothing for this long costs the nodes no streams: a node would cut the connection of one that
/// doesn't read its answers, and with it everything else that goes over it.
const IDLE_CONSUMER: Duration = Duration::from_secs(15);

/// A stream that lived this long had a leader, so its end is the first failure of a new series.
const STREAM_LIFE_MIN: Duration = Duration::from_secs(2);

/// A leader that is not found after this many attempts may be missing from a stale map.
const FAILURES_UNTIL_REFRESH: u32 = 3;

#[derive(Debug)]
pub(super) struct WorkerSettings {
    pub(super) topic: TopicRef,
    pub(super) stop_at_end: bool,
    pub(super) from_follower: bool,
    pub(super) prefetch_bytes: u32,
    pub(super) patience: Duration,
}

impl WorkerSettings {
    /// The best way to a partition after so many failures.
    fn route(&self, router: &Router, partition: u32, failures: u32) -> Option<Route> {
        if self.from_follower {
            router.replica(&self.topic, partition, failures)
        } else {
            router.partition(&self.topic, partition)
        }
    }
}

pub(super) struct Worker {
    settings: WorkerSettings,
    router: Arc<Router>,
    slots: BTreeMap<u32, Slot>,
    streams: BTreeMap<StreamId, ReadStream>,
    next_stream: u64,
    event_sender: mpsc::Sender<StreamEvent>,
    events: mpsc::Receiver<StreamEvent>,
    output: mpsc::UnboundedSender<Result<Chunk, ClientError>>,
    budget: Arc<Semaphore>,
}

/// A cursor with what it needs of the outside.
struct Slot {
    cursor: Cursor,
    stream: Option<StreamId>,
    backoff: Backoff,
    resume_at: Option<Instant>,
    /// Since when nothing could be read, and why.
    failing: Option<(Instant, ClientError)>,
}

/// Partitions that go the same way share a call.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Way {
    address: Arc<str>,
    mode: RoutingMode,
    surveying: bool,
}

impl Worker {
    pub(super) fn new(
        settings: WorkerSettings,
        router: Arc<Router>,
        cursors: BTreeMap<u32, Cursor>,
        output: mpsc::UnboundedSender<Result<Chunk, ClientError>>,
        budget: Arc<Semaphore>,
    ) -> Self {
        let (event_sender, events) = mpsc::channel(EVENTS_MAX);
        let slot = |cursor| Slot {
            cursor,
            stream: None,
            backoff: Backoff::new(router.retry()),
            resume_at: None,
            failing: None,
        };
        let slots = cursors.into_iter().map(|(partition, cursor)| (partition, slot(cursor))).collect();
        Self { settings, router, slots, streams: BTreeMap::new(), next_stream: 0, event_sender, events, output, budget }
    }

    /// Ends when all partitions are read to their end, on an error, or when the reader is dropped.
    pub(super) async fn run(mut self) {
        let mut routes = self.router.watch_routes();
        while self.slots.values().any(|slot| slot.cursor.phase() != Phase::Done) {
            self.assign();
            self.forgive();
            if let Some(error) = self.out_of_patience() {
                let _ = self.output.send(Err(error));
                return;
            }
            let timer = self.next_timer();
            let outcome = tokio::select! {
                () = self.output.closed() => return,
                Some(event) = self.events.recv() => self.take(event).await,
                () = routes.changed() => {
                    self.leave_deposed();
                    Ok(())
                }
                () = sleep_until(timer) => Ok(()),
            };
            if let Err(error) = outcome {
                let _ = self.output.send(Err(error));
                return;
            }
        }
    }

    /// Gives every partition without a stream one, together with others that go the same way.
    fn assign(&mut self) {
        let now = Instant::now();
        let mut groups: BTreeMap<Way, (Route, Vec<u32>)> = BTreeMap::new();
        for (partition, slot) in &mut self.slots {
            slot.resume_at = slot.resume_at.filter(|at| *at > now);
            if slot.stream.is_some() || slot.cursor.phase() == Phase::Done || slot.resume_at.is_some() {
                continue;
            }
            let route = self.settings.route(&self.router, *partition, slot.backoff.failures());
            match route {
                Some(route) => {
                    let surveying = slot.cursor.phase() == Phase::Surveying;
                    let way = Way { address: Arc::clone(&route.connection.address), mode: route.mode, surveying };
                    groups.entry(way).or_insert_with(|| (route, Vec::new())).1.push(*partition);
                }
                None => {
                    slot.failing.get_or_insert_with(|| (now, self.router.nothing_reachable()));
                }
            }
        }
        for (way, (route, partitions)) in groups {
            self.open(route, way.surveying, &partitions);
        }
    }

    fn open(&mut self, route: Route, surveying: bool, partitions: &[u32]) {
        let id = StreamId(self.next_stream);
        self.next_stream += 1;
        let mut positions = Vec::with_capacity(partitions.len());
        for partition in partitions {
            if let Some(slot) = self.slots.get_mut(partition) {
                slot.stream = Some(id);
                positions.push(pb::PartitionPosition { partition: *partition, start: Some(slot.cursor.position()) });
            }
        }
        let request = pb::ReadRequest {
            topic: self.settings.topic.name.to_string(),
            partitions: positions,
            start: None,
            stop_at_end: surveying || self.settings.stop_at_end,
            as_batches: true,
            consistency: self.consistency().into(),
        };
        let phase = if surveying { Phase::Surveying } else { Phase::Reading };
        self.streams.insert(id, ReadStream::open(id, route, phase, request, self.event_sender.clone()));
    }

    fn consistency(&self) -> pb::Consistency {
        if self.settings.from_follower { pb::Consistency::Local } else { pb::Consistency::Leader }
    }

    async fn take(&mut self, event: StreamEvent) -> Result<(), ClientError> {
        match event {
            // What a stream had under way when it was left is not wanted any more.
            StreamEvent::Content(id, _) | StreamEvent::Ended(id, _) if !self.streams.contains_key(&id) => Ok(()),
            StreamEvent::Content(id, Content::Batch(batch)) => self.take_batch(id, batch).await,
            StreamEvent::Content(id, Content::Deleted(deleted)) => self.take_deleted(id, &deleted),
            StreamEvent::Content(id, Content::End(end)) => {
                self.take_end(id, &end);
                Ok(())
            }
            StreamEvent::Content(id, Content::Messages(_)) => {
                let error =
                    ClientError::new(Cause::Protocol, "the node sent single messages where batches were asked for");
                self.lose(id, &error)
            }
            StreamEvent::Ended(id, error) => {
                let ended = || ClientError::known(Reason::Draining, "the node ended the stream");
                self.lose(id, &error.unwrap_or_else(ended))
            }
        }
    }

    fn take_deleted(&mut self, id: StreamId, deleted: &pb::read_response::Deleted) -> Result<(), ClientError> {
        let of_stream = |slot: &&mut Slot| slot.stream == Some(id);
        let Some(slot) = self.slots.get_mut(&deleted.partition).filter(of_stream) else { return Ok(()) };
        match slot.cursor.pass_over(deleted.base_offset..deleted.end_offset) {
            Ok(()) => Ok(()),
            Err(gap) => self.read_again(id, deleted.partition, gap.in_partition(deleted.partition)),
        }
    }

    async fn take_batch(&mut self, id: StreamId, batch: pb::read_response::Batch) -> Result<(), ClientError> {
        let topic = &self.settings.topic;
        if batch.topic_id != topic.id.get() {
            let message = format!("topic {:?} was deleted and created again while it was read", topic.name);
            return Err(ClientError::known(Reason::TopicNotFound, message).with_fact("topic", &topic.name));
        }
        let (partition, bytes) = (batch.partition, batch.batch.len());
        let Some(slot) = self.slots.get_mut(&partition).filter(|slot| slot.stream == Some(id)) else { return Ok(()) };
        let accepted = decode(PartitionId::new(topic.id, partition), batch.batch).and_then(|records| {
            slot.cursor.accept(batch.base_offset, records).map_err(|gap| gap.in_partition(partition))
        });
        let records = match accepted {
            Ok(records) => records,
            Err(error) => return self.read_again(id, partition, error),
        };
        slot.failing = None;
        slot.backoff.reset();
        if records.is_empty() {
            return Ok(());
        }
        let messages = records
            .into_iter()
            .map(|(offset, record)| ReceivedMessage::new(&topic.name, topic.id, partition, offset, record));
        let messages = messages.collect();
        let share = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.settings.prefetch_bytes);
        let mut room = pin!(Arc::clone(&self.budget).acquire_many_owned(share));
        let share = loop {
            tokio::select! {
                share = room.as_mut() => break share,
                () = self.output.closed() => return Ok(()),
                () = tokio::time::sleep(IDLE_CONSUMER), if !self.streams.is_empty() => self.leave_all(),
            }
        };
        if let Ok(share) = share {
            let _ = self.output.send(Ok(Chunk { messages, share }));
        }
        Ok(())
    }

    /// The partitions are asked for again, from where their cursors are, once there is room.
    fn leave_all(&mut self) {
        self.streams.clear();
        self.slots.values_mut().for_each(|slot| slot.stream = None);
    }

    fn take_end(&mut self, id: StreamId, end: &pb::read_response::EndOfPartition) {
        let surveying = self.streams.get(&id).is_some_and(|stream| stream.phase == Phase::Surveying);
        let Some(slot) = self.slots.get_mut(&end.partition).filter(|slot| slot.stream == Some(id)) else { return };
        if surveying != (slot.cursor.phase() == Phase::Surveying) {
            return;
        }
        slot.stream = None;
        if slot.cursor.ended(end.end_offset) {
            slot.failing = None;
            slot.backoff.reset();
        } else {
            let error = ClientError::known(Reason::NoLeader, "the node that answered lags behind");
            slot.fail(&error);
        }
    }

    /// A stream ended before all was read. An error if reading on can't help.
    fn lose(&mut self, id: StreamId, error: &ClientError) -> Result<(), ClientError> {
        let Some(stream) = self.streams.get(&id) else { return Ok(()) };
        debug!(topic = %self.settings.topic.name, connection = ?stream.route.connection, %error, "read stream ended");
        if error.is_transport() {
            self.router.suspect(&stream.route.connection);
        }
        let named = error.metadata().get("partition").and_then(|partition| partition.parse::<u32>().ok());
        let only = if let [only] = stream.partitions[..] { Some(only) } else { None };
        if let Some(partition) = named.or(only) {
            self.router.learn(&stream.route, &self.settings.topic, partition, error);
        }
        if error.is(Reason::OffsetOutOfRange) {
            let concerned = self
                .slots
                .iter_mut()
                .filter(|(partition, slot)| slot.stream == Some(id) && named.is_none_or(|named| named == **partition));
            let repaired = concerned.filter_map(|(_, slot)| slot.cursor.out_of_range().then_some(())).count();
            if repaired == 0 {
                return Err(error.clone());
            }
        } else if error.advice() == RetryAdvice::Surface
            && !self.is_delay(error)
            && !matches!(error.cause(), Cause::Protocol)
        {
            return Err(error.clone());
        }
        self.retry_later(id, error)
    }

    /// Leaves a stream; its partitions are asked for again after a pause each.
    /// Reading again from the same offset repairs what went wrong on the way, and repeats what didn't.
    fn read_again(&mut self, id: StreamId, partition: u32, error: ClientError) -> Result<(), ClientError> {
        let failures = self.slots.get(&partition).map_or(0, |slot| slot.backoff.failures());
        if failures < FAILURES_UNTIL_REFRESH { self.retry_later(id, &error) } else { Err(error) }
    }

    fn retry_later(&mut self, id: StreamId, error: &ClientError) -> Result<(), ClientError> {
        let Some(stream) = self.streams.remove(&id) else { return Ok(()) };
        let lived = stream.opened_at.elapsed() > STREAM_LIFE_MIN;
        for slot in self.slots.values_mut().filter(|slot| slot.stream == Some(id)) {
            slot.stream = None;
            if lived {
                slot.failing = None;
                slot.backoff.reset();
            }
            slot.fail(error);
            if slot.backoff.failures() >= FAILURES_UNTIL_REFRESH {
                self.router.refresh();
            }
        }
        Ok(())
    }

    /// A topic that the map still has is only not known everywhere yet.
    fn is_delay(&self, error: &ClientError) -> bool {
        let topic = &self.settings.topic;
        let known = self.router.view().topic(&topic.name).is_some_and(|known| known.id == topic.id);
        known && (error.is(Reason::TopicNotFound) || error.is(Reason::PartitionNotFound))
    }

    /// Leaves streams to nodes that don't lead any more, and detours that are no longer needed; or streams to nodes that
    /// lead, where a follower is wanted and one can be reached by now.
    fn leave_deposed(&mut self) {
        for slot in self.slots.values_mut() {
            slot.resume_at = slot.resume_at.filter(|_| slot.backoff.failures() > FAILURES_UNTIL_REFRESH);
        }
        let deposed = self.slots.iter().filter_map(|(partition, slot)| {
            let id = slot.stream?;
            let stream = self.streams.get(&id)?;
            let best = self.settings.route(&self.router, *partition, slot.backoff.failures())?;
            if self.settings.from_follower {
                let leads =
                    |route: &Route| self.router.is_leader(&self.settings.topic, *partition, &route.connection.address);
                return (leads(&stream.route) && !leads(&best)).then_some(id);
            }
            let better = best.mode == RoutingMode::Direct
                && (stream.route.mode == RoutingMode::Forwarded
                    || *stream.route.connection.address != *best.connection.address);
            better.then_some(id)
        });
        for id in deposed.collect::<Vec<_>>() {
            self.streams.remove(&id);
            for slot in self.slots.values_mut().filter(|slot| slot.stream == Some(id)) {
                slot.stream = None;
            }
        }
    }

    /// A stream that has lived for a while works, even if there is nothing to read.
    fn forgive(&mut self) {
        for slot in self.slots.values_mut().filter(|slot| slot.failing.is_some()) {
            let stream = slot.stream.and_then(|id| self.streams.get(&id));
            if stream.is_some_and(|stream| stream.opened_at.elapsed() >= STREAM_LIFE_MIN) {
                slot.failing = None;
                slot.backoff.reset();
            }
        }
    }

    fn out_of_patience(&self) -> Option<ClientError> {
        let now = Instant::now();
        let late = |slot: &&Slot| self.gives_up_at(slot).is_some_and(|at| at <= now);
        let (_, error) = self.slots.values().find(late)?.failing.as_ref()?;
        Some(error.clone())
    }

    /// A stream that has just been opened gets its chance.
    fn gives_up_at(&self, slot: &Slot) -> Option<Instant> {
        let (since, _) = slot.failing.as_ref()?;
        let stream = slot.stream.and_then(|id| self.streams.get(&id));
        let proven_at = stream.map(|stream| stream.opened_at + STREAM_LIFE_MIN);
        Some(proven_at.unwrap_or(*since).max(*since + self.settings.patience))
    }

    fn next_timer(&self) -> Option<Instant> {
        let resumes = self.slots.values().filter_map(|slot| slot.resume_at);
        let ends = self.slots.values().filter_map(|slot| self.gives_up_at(slot));
        resumes.chain(ends).min()
    }
}

impl Slot {
    fn fail(&mut self, error: &ClientError) {
        let now = Instant::now();
        let pause = self.backoff.after(error);
        self.resume_at = (!pause.is_zero()).then(|| now + pause);
        let since = self.failing.as_ref().map_or(now, |(since, _)| *since);
        self.failing = Some((since, error.clone()));
    }
}

fn decode(partition: PartitionId, bytes: Bytes) -> Result<Vec<quorate_model::Record>, ClientError> {
    let records = RecordBatch::decode(bytes, partition).and_then(|batch| batch.records());
    records.map_err(|error| {
        ClientError::known(error.reason(), format!("a batch of partition {} can't be read: {error}", partition.index))
    })
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

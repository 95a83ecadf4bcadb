//! [`Worker`]: the one task that owns a publisher's lanes and streams, and does what the lanes want.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use quorate_model::{Codec, PartitionId, ProducerId, ProducerStamp, Reason, Record, RecordBatchBuilder};
use quorate_proto::v1 as pb;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;
use tracing::debug;

use super::batch::Stamp;
use super::lane::{Effect, Lane, LaneSettings, Outcome, Queued};
use super::outcome::{PublishError, Published, Totals};
use super::partitioner::Partitioner;
use super::stream::{StreamEvent, StreamId, Streams};
use crate::error::{Cause, ClientError};
use crate::message::message_id;
use crate::retry::Backoff;
use crate::routing::{Leadership, Route, Router, TopicRef};

/// Messages and answers taken in one go before anything is sent: what arrives together travels together.
const TURN_MESSAGES_MAX: usize = 1024;

/// A leader that is not found after this many attempts may be missing from a stale map.
const FAILURES_UNTIL_REFRESH: u32 = 3;

/// What the handle asks for. Bounded by the publisher's byte budget, which every message draws on.
#[derive(Debug)]
pub(super) enum Request {
    Publish { record: Record, partition: Option<u32>, bytes: usize, deadline: Instant, ticket: Ticket },
    Flush(oneshot::Sender<Totals>),
}

/// Waits for the outcome of one message, and holds its share of the byte budget until then.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) reply: oneshot::Sender<Result<Published, PublishError>>,
    pub(super) _budget: OwnedSemaphorePermit,
}

#[derive(Debug, Clone)]
pub(super) struct WorkerSettings {
    pub(super) topic: TopicRef,
    pub(super) partitions: u32,
    pub(super) codec: Codec,
    pub(super) producer: Option<ProducerId>,
    pub(super) lane: LaneSettings,
}

pub(super) struct Worker {
    settings: WorkerSettings,
    router: Arc<Router>,
    requests: mpsc::UnboundedReceiver<Request>,
    events: mpsc::UnboundedReceiver<StreamEvent>,
    streams: Streams,
    partitioner: Partitioner,
    slots: Vec<Slot>,
    /// Lanes by the time at which they want to be polled.
    timers: BTreeSet<(Instant, u32)>,
    /// Lanes that something happened to in this turn.
    touched: BTreeSet<u32>,
    flushes: Vec<Flush>,
    totals: Totals,
}

/// A lane with what it needs of the outside.
struct Slot {
    lane: Lane<Ticket>,
    backoff: Backoff,
    route: Option<(StreamId, Route)>,
    leadership: Leadership,
    timer: Option<Instant>,
    accepted: u64,
}

struct Flush {
    /// Per lane, how many records must be settled.
    targets: Vec<u64>,
    reply: oneshot::Sender<Totals>,
}

impl Worker {
    pub(super) fn new(
        settings: WorkerSettings,
        router: Arc<Router>,
        requests: mpsc::UnboundedReceiver<Request>,
    ) -> Self {
        let (streams, events) = Streams::new();
        let start = fastrand::u32(..settings.partitions);
        let partitioner =
            Partitioner::new(settings.partitions, settings.lane.batch_records, settings.lane.batch_bytes, start);
        let slots = (0..settings.partitions).map(|_| Slot::new(settings.lane, &router)).collect();
        Self {
            settings,
            router,
            requests,
            events,
            streams,
            partitioner,
            slots,
            timers: BTreeSet::new(),
            touched: BTreeSet::new(),
            flushes: Vec::new(),
            totals: Totals::default(),
        }
    }

    /// Ends when every handle is gone and every message has its outcome.
    pub(super) async fn run(mut self) {
        let mut routes = self.router.watch_routes();
        let mut open = true;
        while open || self.slots.iter().any(|slot| !slot.lane.is_empty()) {
            let timer = self.timers.first().map(|(at, _)| *at);
            tokio::select! {
                request = self.requests.recv(), if open => match request {
                    Some(request) => self.take_requests(request),
                    None => {
                        open = false;
                        self.flush_lanes();
                    }
                },
                Some(event) = self.events.recv() => self.take_events(event),
                () = routes.changed() => self.touch_busy(),
                () = sleep_until(timer) => self.touch_due(),
            }
            for partition in std::mem::take(&mut self.touched) {
                self.service(partition);
            }
            self.finish_flushes();
        }
    }

    fn take_requests(&mut self, first: Request) {
        let mut next = Some(first);
        let mut taken = 0;
        while let Some(request) = next {
            match request {
                Request::Publish { record, partition, bytes, deadline, ticket } => {
                    let queued = Queued { record, bytes, accepted_at: Instant::now(), deadline, ticket };
                    self.accept(partition, queued);
                }
                Request::Flush(reply) => {
                    self.flush_lanes();
                    let targets = self.slots.iter().map(|slot| slot.accepted).collect();
                    self.flushes.push(Flush { targets, reply });
                }
            }
            taken += 1;
            next = if taken < TURN_MESSAGES_MAX { self.requests.try_recv().ok() } else { None };
        }
    }

    fn accept(&mut self, partition: Option<u32>, queued: Queued<Ticket>) {
        self.totals.accepted += 1;
        let slots = &self.slots;
        let is_stalled = |partition: u32| slots[partition as usize].lane.is_stalled();
        let key = &queued.record.ordering_key;
        let partition = partition.unwrap_or_else(|| self.partitioner.choose(key, queued.bytes, is_stalled));
        let slot = &mut self.slots[partition as usize];
        slot.accepted += 1;
        slot.lane.push(queued);
        self.touched.insert(partition);
    }

    fn flush_lanes(&mut self) {
        for (partition, slot) in (0u32..).zip(&mut self.slots) {
            if !slot.lane.is_empty() {
                slot.lane.flush();
                self.touched.insert(partition);
            }
        }
    }

    fn take_events(&mut self, first: StreamEvent) {
        let mut next = Some(first);
        let mut taken = 0;
        while let Some(event) = next {
            match event {
                StreamEvent::Answer { stream, response } => self.take_answer(stream, response),
                StreamEvent::Lost { stream, error, opened } => self.lose_stream(stream, &error, opened),
            }
            taken += 1;
            next = if taken < TURN_MESSAGES_MAX { self.events.try_recv().ok() } else { None };
        }
    }

    fn take_answer(&mut self, stream: StreamId, response: pb::PublishStreamResponse) {
        use pb::publish_stream_response::Outcome;
        let Some((sent, route)) = self.streams.answered(stream, response.sequence) else { return };
        let answer = match response.outcome {
            Some(Outcome::Appended(appended)) => Ok((appended.base_offset, appended.duplicate)),
            Some(Outcome::Error(error)) => Err(ClientError::from_publish_error(error)),
            None => Err(ClientError::new(Cause::Protocol, "an answer without an outcome")),
        };
        let answer = answer.map_err(|error| self.judged(error));
        if let Err(error) = &answer {
            debug!(topic = %self.settings.topic.name, partition = sent.partition, %error, "batch refused");
            self.router.learn(&route, &self.settings.topic, sent.partition, error);
        }
        let slot = &mut self.slots[sent.partition as usize];
        if answer.is_ok() {
            slot.backoff.reset();
        }
        let backoff = &mut slot.backoff;
        let effects =
            slot.lane.answered(Instant::now(), sent.batch, sent.attempt, answer, |error| backoff.after(error));
        if slot.backoff.failures() >= FAILURES_UNTIL_REFRESH {
            self.router.refresh();
        }
        self.touched.insert(sent.partition);
        self.perform(sent.partition, effects);
    }

    /// A node that hasn't heard of a topic yet says that it doesn't exist. As long as the map says that
    /// it does, that is a delay, not an outcome.
    fn judged(&self, error: ClientError) -> ClientError {
        let not_found = error.is(Reason::TopicNotFound) || error.is(Reason::PartitionNotFound);
        let topic = &self.settings.topic;
        if not_found && self.router.view().topic(&topic.name).is_some_and(|known| known.id == topic.id) {
            return ClientError::known(
                Reason::NoLeader,
                format!("the node doesn't know the topic yet: {}", error.message()),
            );
        }
        error
    }

    fn lose_stream(&mut self, stream: StreamId, error: &ClientError, opened: bool) {
        let Some((route, outstanding)) = self.streams.remove(stream) else { return };
        debug!(topic = %self.settings.topic.name, connection = ?route.connection, %error, "publish stream ended");
        if error.is_transport() {
            self.router.suspect(&route.connection);
        }
        let now = Instant::now();
        // A stream that was refused before it opened carried nothing, and the refusal holds for each batch.
        let refused = !opened && error.executed() == quorate_model::Executed::No;
        for sent in outstanding {
            let slot = &mut self.slots[sent.partition as usize];
            let backoff = &mut slot.backoff;
            let effects = if refused {
                slot.lane.answered(now, sent.batch, sent.attempt, Err(error.clone()), |error| backoff.after(error))
            } else if slot.lane.awaits_answers() {
                slot.lane.disconnected(now, error, backoff.after(error))
            } else {
                slot.lane.disconnected(now, error, std::time::Duration::ZERO)
            };
            self.touched.insert(sent.partition);
            self.perform(sent.partition, effects);
        }
        // Lanes that send over this stream must open a new one even if nothing was outstanding.
        for (partition, slot) in (0u32..).zip(&mut self.slots) {
            if slot.route.as_ref().is_some_and(|(id, _)| *id == stream) {
                slot.route = None;
                self.touched.insert(partition);
            }
        }
    }

    fn touch_busy(&mut self) {
        let busy = (0u32..).zip(&self.slots).filter(|(_, slot)| !slot.lane.is_empty());
        self.touched.extend(busy.map(|(partition, _)| partition));
    }

    fn touch_due(&mut self) {
        let now = Instant::now();
        self.touched.extend(self.timers.iter().take_while(|(at, _)| *at <= now).map(|(_, partition)| *partition));
    }

    /// Lets a lane do what it can, and remembers when it wants to be asked again.
    fn service(&mut self, partition: u32) {
        let may_send = loop {
            // Asked for every time, because an attempt that was given up may free the lane to change its way.
            let may_send = self.find_route(partition);
            let effects = self.slots[partition as usize].lane.poll(Instant::now(), may_send);
            if effects.is_empty() {
                break may_send;
            }
            self.perform(partition, effects);
        };
        let slot = &mut self.slots[partition as usize];
        let timer = slot.lane.wakeup(may_send);
        if timer != slot.timer {
            if let Some(at) = std::mem::replace(&mut slot.timer, timer) {
                self.timers.remove(&(at, partition));
            }
            self.timers.extend(timer.map(|at| (at, partition)));
        }
    }

    /// Sees to the lane's stream; false if there is no way to the partition at the moment.
    fn find_route(&mut self, partition: u32) -> bool {
        let slot = &mut self.slots[partition as usize];
        if slot.lane.is_empty() {
            return false;
        }
        let Some(best) = self.router.partition(&self.settings.topic, partition) else { return false };
        let leader_moved = best.leadership.term > slot.leadership.term && best.leadership.node.is_some();
        slot.leadership = best.leadership;
        if leader_moved {
            slot.lane.resume();
        }
        let same_way = slot
            .route
            .as_ref()
            .is_some_and(|(_, route)| route.mode == best.mode && *route.connection.address == *best.connection.address);
        if same_way {
            return true;
        }
        if slot.lane.awaits_answers() {
            // A batch must not overtake its predecessor, so a lane changes its way when all is answered.
            // From a deposed leader no answer is worth waiting for: a repeat elsewhere is recognised.
            if !(leader_moved && self.settings.lane.idempotent) {
                return false;
            }
            let moved = ClientError::known(Reason::NotLeader, "another node leads the partition now");
            let effects = slot.lane.disconnected(Instant::now(), &moved, std::time::Duration::ZERO);
            debug_assert!(effects.is_empty(), "an idempotent lane repeats");
        }
        slot.route = Some((self.streams.open(&best), best));
        true
    }

    fn perform(&mut self, partition: u32, effects: Vec<Effect<Ticket>>) {
        for effect in effects {
            match effect {
                Effect::Transmit { batch, attempt } => {
                    self.totals.repeated_batches += u64::from(attempt > 1);
                    self.transmit(partition, batch, attempt);
                }
                Effect::Resolve { tickets, outcome } => self.resolve(partition, tickets, &outcome),
                Effect::Silence => self.end_silence(partition),
            }
        }
    }

    fn transmit(&mut self, partition: u32, batch: u64, attempt: u32) {
        let slot = &mut self.slots[partition as usize];
        let id = PartitionId::new(self.settings.topic.id, partition);
        let (codec, producer) = (self.settings.codec, self.settings.producer);
        let encoded = slot.lane.encoded(batch, |stamp, records| encode(id, codec, producer, stamp, records));
        let (Some(encoded), Some((stream, _))) = (encoded, &slot.route) else { return };
        match encoded {
            Ok(bytes) => self.streams.send(*stream, &self.settings.topic, partition, batch, attempt, bytes),
            Err(error) => {
                let effects =
                    slot.lane.answered(Instant::now(), batch, attempt, Err(error), |_| std::time::Duration::ZERO);
                self.perform(partition, effects);
            }
        }
    }

    fn resolve(&mut self, partition: u32, tickets: Vec<Ticket>, outcome: &Outcome) {
        let count = tickets.len() as u64;
        match outcome {
            Outcome::Appended { duplicate, .. } => {
                self.totals.published += count;
                self.totals.duplicates += if *duplicate { count } else { 0 };
            }
            Outcome::Failed(_) => self.totals.failed += count,
            Outcome::Unknown(_) => self.totals.unknown += count,
        }
        for (position, ticket) in (0u64..).zip(tickets) {
            let result = match outcome {
                Outcome::Appended { base_offset, duplicate } => {
                    let offset = base_offset + position;
                    let message_id = message_id(self.settings.topic.id, partition, offset);
                    Ok(Published { message_id, partition, offset, duplicate: *duplicate })
                }
                Outcome::Failed(error) => Err(PublishError::Failed { error: error.clone() }),
                Outcome::Unknown(error) => Err(PublishError::Unknown { error: error.clone() }),
            };
            // Whoever dropped the receipt doesn't want to know.
            let _ = ticket.reply.send(result);
        }
    }

    fn end_silence(&mut self, partition: u32) {
        self.router.refresh();
        let slot = &mut self.slots[partition as usize];
        let error = ClientError::new(Cause::ConnectionLost, "the node didn't answer in time");
        let pause = slot.backoff.after(&error);
        let effects = slot.lane.disconnected(Instant::now(), &error, pause);
        self.perform(partition, effects);
    }

    fn finish_flushes(&mut self) {
        let (slots, totals) = (&self.slots, self.totals);
        let reached =
            |flush: &mut Flush| slots.iter().zip(&flush.targets).all(|(slot, target)| slot.lane.settled() >= *target);
        for flush in self.flushes.extract_if(.., reached) {
            let _ = flush.reply.send(totals);
        }
    }
}

impl Slot {
    fn new(settings: LaneSettings, router: &Router) -> Self {
        Self {
            lane: Lane::new(settings),
            backoff: Backoff::new(router.retry()),
            route: None,
            leadership: Leadership::default(),
            timer: None,
            accepted: 0,
        }
    }
}

fn encode(
    partition: PartitionId,
    codec: Codec,
    producer: Option<ProducerId>,
    stamp: Stamp,
    records: &[Record],
) -> Result<Bytes, ClientError> {
    let producer = producer.map(|id| ProducerStamp { id, epoch: stamp.epoch, base_sequence: stamp.sequence });
    let mut builder = RecordBatchBuilder::new(partition, codec, producer);
    let refused = |error: quorate_model::BatchError| ClientError::known(error.reason(), error.to_string());
    for record in records {
        builder.push(record.clone()).map_err(refused)?;
    }
    Ok(builder.build().map_err(refused)?.bytes().clone())
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

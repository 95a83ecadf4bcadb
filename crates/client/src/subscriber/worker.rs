//! [`Worker`]: the one task that owns a subscriber's streams and knows what is in hand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quorate_model::Reason;
use quorate_proto::v1 as pb;
use quorate_proto::v1::subscribe_request::{Open, Request};
use quorate_proto::v1::subscribe_response::Response;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::debug;

use super::answers::{acknowledge, meaning, received, shortened};
use super::stream::{StreamEvent, StreamId, SubscribeStream};
use super::{Delivery, Settled};
use crate::error::{Cause, ClientError};
use crate::retry::Backoff;
use crate::routing::{Route, Router, RoutingMode, TopicRef};
use crate::wire::wire_duration;

/// Responses between the network and the worker.
const EVENTS_MAX: usize = 8;

/// Ack ids in one request.
const ACK_IDS_MAX: usize = 1_000;

/// Deadlines are extended when a third of the time is over, so that an extension may be lost.
const EXTENSIONS_PER_DEADLINE: u32 = 3;

/// A stream that lived this long had a leader, so its end is the first failure of a new series.
const STREAM_LIFE_MIN: Duration = Duration::from_secs(2);

/// A leader that is not found after this many attempts may be missing from a stale map.
const FAILURES_UNTIL_REFRESH: u32 = 3;

/// A message that the application has, or will get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HandId(u64);

type Answer = oneshot::Sender<Result<Settled, ClientError>>;

/// What the application says.
#[derive(Debug)]
pub(super) enum Said {
    Ack {
        hand: HandId,
        answer: Option<Answer>,
    },
    Nack {
        hand: HandId,
        pause: Option<Duration>,
        error: String,
        answer: Option<Answer>,
    },
    Release {
        hand: HandId,
    },
    /// Fetch nothing more, and end when nothing is in hand.
    Close(oneshot::Sender<()>),
}

#[derive(Debug)]
pub(super) struct WorkerSettings {
    pub(super) subscription: String,
    pub(super) topic: TopicRef,
    pub(super) partitions: u32,
    pub(super) ack_deadline: Duration,
    pub(super) outstanding_messages: u32,
    pub(super) outstanding_bytes: u64,
    pub(super) extend_for: Duration,
    pub(super) patience: Duration,
}

pub(super) struct Worker {
    settings: WorkerSettings,
    router: Arc<Router>,
    slots: BTreeMap<u32, Slot>,
    streams: BTreeMap<StreamId, SubscribeStream>,
    next_stream: u64,
    event_sender: mpsc::Sender<StreamEvent>,
    events: mpsc::Receiver<StreamEvent>,
    /// For the deliveries that are handed out.
    said: mpsc::UnboundedSender<Said>,
    output: mpsc::UnboundedSender<Result<Delivery, ClientError>>,
    hands: BTreeMap<HandId, Held>,
    by_ack_id: BTreeMap<String, HandId>,
    next_hand: u64,
    /// What is to be said on each stream.
    outbox: BTreeMap<StreamId, Outbox>,
    extend_at: Instant,
    closing: Option<oneshot::Sender<()>>,
}

/// A partition: on which stream it comes, or when it is asked for again.
struct Slot {
    stream: Option<StreamId>,
    backoff: Backoff,
    resume_at: Option<Instant>,
    /// Since when it can't be had, and why.
    failing: Option<(Instant, ClientError)>,
}

/// A message in hand.
struct Held {
    ack_id: String,
    stream: StreamId,
    bytes: u64,
    since: Instant,
    /// What was said of it, once something was.
    said: Option<pb::Action>,
    answer: Option<Answer>,
}

#[derive(Default)]
struct Outbox {
    acks: Vec<String>,
    credit: pb::Credit,
}

impl Worker {
    pub(super) fn new(
        settings: WorkerSettings,
        router: Arc<Router>,
        said: mpsc::UnboundedSender<Said>,
        output: mpsc::UnboundedSender<Result<Delivery, ClientError>>,
    ) -> Self {
        let (event_sender, events) = mpsc::channel(EVENTS_MAX);
        let slot = || Slot { stream: None, backoff: Backoff::new(router.retry()), resume_at: None, failing: None };
        let slots = (0..settings.partitions).map(|partition| (partition, slot())).collect();
        let extend_at = Instant::now() + settings.ack_deadline / EXTENSIONS_PER_DEADLINE;
        Self {
            settings,
            router,
            slots,
            streams: BTreeMap::new(),
            next_stream: 0,
            event_sender,
            events,
            said,
            output,
            hands: BTreeMap::new(),
            by_ack_id: BTreeMap::new(),
            next_hand: 0,
            outbox: BTreeMap::new(),
            extend_at,
            closing: None,
        }
    }

    /// Ends on an error, when the subscriber was closed and nothing is in hand, or when it was dropped.
    pub(super) async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Said>) {
        let mut routes = self.router.watch_routes();
        loop {
            if self.closing.is_some() && self.hands.is_empty() {
                self.closing.take().map(|closed| closed.send(()));
                return;
            }
            self.assign();
            self.send_outbox();
            if let Some(error) = self.out_of_patience() {
                let _ = self.output.send(Err(error));
                return;
            }
            let timer = self.next_timer();
            let outcome = tokio::select! {
                () = self.output.closed(), if self.closing.is_none() => {
                    while let Ok(said) = orders.try_recv() {
                        self.hear(said);
                    }
                    // Dropped, and not closed: its streams end, and what it had is delivered to others.
                    if self.closing.is_none() {
                        return;
                    }
                    Ok(())
                }
                Some(said) = orders.recv() => {
                    self.hear(said);
                    while let Ok(said) = orders.try_recv() {
                        self.hear(said);
                    }
                    Ok(())
                }
                Some(event) = self.events.recv() => self.take(event),
                () = routes.changed() => {
                    self.slots.values_mut().for_each(|slot| slot.resume_at = None);
                    Ok(())
                }
                () = tokio::time::sleep_until(timer) => {
                    self.extend();
                    Ok(())
                }
            };
            if let Err(error) = outcome {
                let _ = self.output.send(Err(error));
                return;
            }
        }
    }

    /// Gives every partition without a stream one, together with others that go the same way.
    fn assign(&mut self) {
        if self.closing.is_some() {
            return;
        }
        let now = Instant::now();
        let mut ways: BTreeMap<(Arc<str>, RoutingMode), (Route, Vec<u32>)> = BTreeMap::new();
        for (partition, slot) in &mut self.slots {
            slot.resume_at = slot.resume_at.filter(|at| *at > now);
            if slot.stream.is_some() || slot.resume_at.is_some() {
                continue;
            }
            match self.router.partition(&self.settings.topic, *partition) {
                Some(route) => {
                    let way = (Arc::clone(&route.connection.address), route.mode);
                    ways.entry(way).or_insert_with(|| (route, Vec::new())).1.push(*partition);
                }
                None => {
                    slot.failing.get_or_insert_with(|| (now, self.router.nothing_reachable()));
                    slot.resume_at = Some(now + self.router.retry().delay_max);
                }
            }
        }
        let streams = u32::try_from(self.streams.len() + ways.len()).unwrap_or(u32::MAX).max(1);
        for (route, partitions) in ways.into_values() {
            let id = StreamId(self.next_stream);
            self.next_stream += 1;
            for partition in &partitions {
                if let Some(slot) = self.slots.get_mut(partition) {
                    slot.stream = Some(id);
                }
            }
            let credit = pb::Credit {
                messages: (self.settings.outstanding_messages / streams).max(1),
                bytes: (self.settings.outstanding_bytes / u64::from(streams)).max(1),
            };
            let open = Open { subscription: self.settings.subscription.clone(), partitions, credit: Some(credit) };
            self.streams.insert(id, SubscribeStream::open(id, route, open, self.event_sender.clone()));
        }
    }

    fn take(&mut self, event: StreamEvent) -> Result<(), ClientError> {
        match event {
            StreamEvent::Response(id, Response::Deliveries(pb::Deliveries { deliveries })) => {
                deliveries.into_iter().try_for_each(|delivery| self.hand_over(id, delivery))
            }
            StreamEvent::Response(_, Response::Settlements(pb::Settlements { settlements })) => {
                settlements.iter().for_each(|settlement| self.settled(settlement));
                Ok(())
            }
            StreamEvent::Response(id, Response::Ended(ended)) => {
                let error = ended.error.map(ClientError::from_publish_error);
                let error = error.unwrap_or_else(|| ClientError::known(Reason::NoLeader, "the partition moved"));
                self.lose_partition(id, ended.partition, &error);
                Ok(())
            }
            StreamEvent::Ended(id, error) => {
                let ended = || ClientError::known(Reason::Draining, "the node ended the stream");
                self.lose(id, &error.unwrap_or_else(ended))
            }
        }
    }

    fn hand_over(&mut self, stream: StreamId, delivery: pb::Delivery) -> Result<(), ClientError> {
        let pb::Delivery { message, ack_id, delivery_attempt, last_error } = delivery;
        let Some(stands) = self.streams.get(&stream).map(|stream| Arc::clone(&stream.stands)) else { return Ok(()) };
        let message = message.ok_or_else(|| ClientError::new(Cause::Protocol, "a delivery without a message"))?;
        let message = received(&self.settings.topic.name, message)?;
        let hand = HandId(self.next_hand);
        self.next_hand += 1;
        let bytes = message.data.len() as u64;
        let held = Held { ack_id: ack_id.clone(), stream, bytes, since: Instant::now(), said: None, answer: None };
        self.hands.insert(hand, held);
        self.by_ack_id.insert(ack_id, hand);
        let said = Some(self.said.clone());
        let delivery = Delivery { message, attempt: delivery_attempt, last_error, hand, stands, said };
        if let Err(unwanted) = self.output.send(Ok(delivery))
            && let Ok(delivery) = unwanted.0
        {
            delivery.release();
        }
        Ok(())
    }

    /// What the application says goes out on the stream that brought the message, or over any node if that is gone.
    fn hear(&mut self, said: Said) {
        let (hand, request, answer) = match said {
            Said::Close(done) => return self.closing = Some(done),
            Said::Ack { hand, answer } => (hand, None, answer),
            Said::Nack { hand, pause, error, answer } => {
                let pause = pause.map(wire_duration);
                (hand, Some(pb::Nack { pause, error: shortened(error), ..pb::Nack::default() }), answer)
            }
            Said::Release { hand } => (hand, Some(pb::Nack { untouched: true, ..pb::Nack::default() }), None),
        };
        let Some(held) = self.hands.get_mut(&hand) else { return };
        held.answer = answer;
        held.said = Some(if request.is_some() { pb::Action::Nack } else { pb::Action::Ack });
        let ack_id = held.ack_id.clone();
        match (self.streams.get(&held.stream), request) {
            (Some(_), None) => self.outbox.entry(held.stream).or_default().acks.push(ack_id),
            (Some(stream), Some(nack)) => stream.send(Request::Nack(pb::Nack { ack_ids: vec![ack_id], ..nack })),
            (None, None) => self.acknowledge_elsewhere(hand),
            // Its stream is gone, and with it the lease: the message is delivered again as it is.
            (None, Some(_)) => self.settle(hand, Ok(Settled::LeaseLost)),
        }
    }

    /// Any node takes an acknowledgement, for as long as it takes to be certain.
    fn acknowledge_elsewhere(&mut self, hand: HandId) {
        let Some(held) = self.forget(hand) else { return };
        let (router, subscription) = (Arc::clone(&self.router), self.settings.subscription.clone());
        tokio::spawn(async move {
            let outcome = acknowledge(&router, subscription, held.ack_id).await;
            if let Some(answer) = held.answer {
                // Whoever doesn't wait any more has dropped the other end.
                let _ = answer.send(outcome);
            }
        });
    }

    fn settled(&mut self, settlement: &pb::Settlement) {
        let Some(hand) = self.by_ack_id.get(&settlement.ack_id).copied() else { return };
        let asked = self.hands.get(&hand).and_then(|held| held.said);
        if asked != Some(settlement.action()) {
            return;
        }
        match settlement.outcome() {
            pb::Outcome::Unknown if asked == Some(pb::Action::Ack) => self.acknowledge_elsewhere(hand),
            outcome => self.settle(hand, meaning(outcome)),
        }
    }

    fn settle(&mut self, hand: HandId, outcome: Result<Settled, ClientError>) {
        if let Some(answer) = self.forget(hand).and_then(|held| held.answer) {
            let _ = answer.send(outcome);
        }
    }

    /// The message is in hand no more: there is room for another.
    fn forget(&mut self, hand: HandId) -> Option<Held> {
        let held = self.hands.remove(&hand)?;
        self.by_ack_id.remove(&held.ack_id);
        if self.closing.is_none() && self.streams.contains_key(&held.stream) {
            let credit = &mut self.outbox.entry(held.stream).or_default().credit;
            credit.messages += 1;
            credit.bytes += held.bytes;
        }
        Some(held)
    }

    fn send_outbox(&mut self) {
        for (id, Outbox { acks, credit }) in std::mem::take(&mut self.outbox) {
            let Some(stream) = self.streams.get(&id) else { continue };
            for ack_ids in acks.chunks(ACK_IDS_MAX) {
                stream.send(Request::Ack(pb::Ack { ack_ids: ack_ids.to_vec() }));
            }
            if credit.messages > 0 {
                stream.send(Request::Credit(credit));
            }
        }
    }

    /// Extends the deadlines of what is in hand and nothing was said of.
    fn extend(&mut self) {
        let now = Instant::now();
        if now < self.extend_at {
            return;
        }
        self.extend_at = now + self.settings.ack_deadline / EXTENSIONS_PER_DEADLINE;
        let mut by_stream: BTreeMap<StreamId, Vec<String>> = BTreeMap::new();
        for held in self.hands.values() {
            if held.said.is_none() && held.since.elapsed() < self.settings.extend_for {
                by_stream.entry(held.stream).or_default().push(held.ack_id.clone());
            }
        }
        let ack_deadline = Some(wire_duration(self.settings.ack_deadline));
        for (id, ack_ids) in by_stream {
            let Some(stream) = self.streams.get(&id) else { continue };
            for ack_ids in ack_ids.chunks(ACK_IDS_MAX) {
                stream.send(Request::Extend(pb::Extend { ack_ids: ack_ids.to_vec(), ack_deadline }));
            }
        }
    }

    /// One partition of a stream has another leader.
    fn lose_partition(&mut self, id: StreamId, partition: u32, error: &ClientError) {
        let Some(stream) = self.streams.get(&id) else { return };
        self.router.learn(&stream.route, &self.settings.topic, partition, error);
        if let Some(slot) = self.slots.get_mut(&partition).filter(|slot| slot.stream == Some(id)) {
            slot.stream = None;
            slot.fail(error);
        }
        if self.slots.values().all(|slot| slot.stream != Some(id)) {
            self.leave(id);
        }
    }

    /// A stream ended. An error if asking again can't help.
    fn lose(&mut self, id: StreamId, error: &ClientError) -> Result<(), ClientError> {
        let Some(stream) = self.streams.get(&id) else { return Ok(()) };
        debug!(subscription = self.settings.subscription, connection = ?stream.route.connection, %error, "stream ended");
        if error.is_transport() {
            self.router.suspect(&stream.route.connection);
        }
        let lived = stream.opened_at.elapsed() > STREAM_LIFE_MIN;
        if let Some(partition) = error.metadata().get("partition").and_then(|partition| partition.parse().ok()) {
            self.router.learn(&stream.route, &self.settings.topic, partition, error);
        }
        self.leave(id);
        if !error.retryable() {
            return Err(error.clone());
        }
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

    /// Forgets a stream. Acknowledgements that it didn't answer go another way; what was returned on it comes again.
    fn leave(&mut self, id: StreamId) {
        self.streams.remove(&id);
        self.outbox.remove(&id);
        let orphans = self.hands.iter().filter(|(_, held)| held.stream == id);
        let orphans: Vec<_> = orphans.filter_map(|(hand, held)| Some((*hand, held.said?))).collect();
        for (hand, said) in orphans {
            match said {
                pb::Action::Ack => self.acknowledge_elsewhere(hand),
                _ => self.settle(hand, Ok(Settled::LeaseLost)),
            }
        }
    }

    fn out_of_patience(&self) -> Option<ClientError> {
        let late = |slot: &&Slot| {
            slot.stream.is_none()
                && slot.failing.as_ref().is_some_and(|(since, _)| since.elapsed() > self.settings.patience)
        };
        let (_, error) = self.slots.values().find(late)?.failing.as_ref()?;
        Some(error.clone())
    }

    fn next_timer(&self) -> Instant {
        // Who is about to close asks for no partition, however long ago its time came.
        let asking = self.slots.values().filter(|_| self.closing.is_none());
        let resumes = asking.filter_map(|slot| slot.resume_at);
        resumes.chain([self.extend_at]).min().unwrap_or(self.extend_at)
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

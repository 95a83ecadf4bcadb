//! One subscription in one partition, for as long as this node leads it.

mod delays;
mod letters;
mod reading;
mod seeks;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use quorate_consensus::{Env, Leadership, Progress, ProposeError, RaftGroup};
use quorate_model::partition::subscription::SubscriptionRejected;
use quorate_model::partition::subscription::deliver::{
    Answer, Bounds, Credits, Delivery, Dispatcher, Gauges, KeyBounds, LeaseId, Outcome, Rules, SessionId, WaiterId,
};
use quorate_model::{AckId, ClusterMap, Offset, PartitionCommand, Record, Reply, SubscriptionId, SubscriptionInfo};
use quorate_proto::v1;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use self::delays::Delays;
use super::filtering::Filtering;
use super::records::Records;
use super::session::{Event, Question, Session};
use super::{Order, Say};
use crate::api::convert;
use crate::api::error::ApiError;
use crate::front::Partition;
use crate::limits::{
    DISPATCH_DEAD_LETTERS, DISPATCH_DOUBT, DISPATCH_INTERVALS, DISPATCH_ORDERS_AT_ONCE, DISPATCH_READ_AHEAD,
    DISPATCH_READS_AT_ONCE, DISPATCH_UNSETTLED, SETTLEMENT_PAUSE, SETTLEMENT_TIME,
};
use crate::metrics::Metrics;
use crate::router::Router;

const BOUNDS: Bounds = Bounds {
    unsettled: DISPATCH_UNSETTLED,
    intervals: DISPATCH_INTERVALS,
    read_ahead: DISPATCH_READ_AHEAD,
    dead_letters: DISPATCH_DEAD_LETTERS,
    keys: KeyBounds::LIMITS,
};

/// What an actor is made of.
pub(super) struct Actor {
    pub(super) group: RaftGroup,
    pub(super) partition: Partition,
    pub(super) subscription: SubscriptionId,
    /// Where the subscription begins in this partition, if it hasn't begun.
    pub(super) start: Offset,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) gauges: watch::Sender<Gauges>,
    pub(super) env: Arc<dyn Env>,
    pub(super) map: watch::Receiver<Arc<ClusterMap>>,
    pub(super) router: Router,
    pub(super) metrics: Arc<Metrics>,
}

/// Why an actor ends. Whoever it served finds another, if there is one.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("this node doesn't lead the partition any more")]
    NotLeading,
    #[error("the subscription or its topic was deleted")]
    Deleted,
    #[error("no quorum answered in time")]
    NoQuorum,
    #[error("the settlement was refused: {0}")]
    Refused(String),
    #[error(transparent)]
    Propose(#[from] ProposeError),
    #[error("reading: {}", .0.message())]
    Read(ApiError),
    #[error("a dead letter can't be published: {0}")]
    Letter(String),
    #[error("nobody needs it")]
    Unneeded,
}

impl Actor {
    pub(super) async fn run(self) {
        let (what, subscription) = (self.partition.label(), self.subscription);
        let end = match Desk::open(self).await {
            Ok(mut desk) => desk.serve().await,
            Err(end) => end,
        };
        debug!(partition = what, %subscription, why = %end, "dispatching ended");
    }
}

/// An actor at work.
struct Desk {
    group: RaftGroup,
    partition: Partition,
    subscription: SubscriptionId,
    /// The term in which this node leads: what was delivered in another has no lease here.
    term: u64,
    generation: u32,
    /// How often subscriptions of the partition had been moved when this was last looked at.
    seeks: u64,
    dispatcher: Dispatcher,
    records: Records,
    filtering: Filtering,
    sessions: BTreeMap<SessionId, Session>,
    /// Sessions whose lender was asked for credit.
    asked: BTreeSet<SessionId>,
    orders: mpsc::Receiver<Order>,
    gauges: watch::Sender<Gauges>,
    waiters: BTreeMap<WaiterId, Question>,
    last_waiter: u64,
    clock: Clock,
    progress: watch::Receiver<Progress>,
    leadership: watch::Receiver<Leadership>,
    map: watch::Receiver<Arc<ClusterMap>>,
    /// The settlement that is being proposed.
    proposed: Option<BoxFuture<'static, Result<Reply, End>>>,
    router: Router,
    /// When delayed messages are due.
    delays: Delays,
    /// The dead letter that is being published.
    letter: Option<BoxFuture<'static, Result<(), End>>>,
    /// When the next one is looked for.
    letters_at: Option<Instant>,
    /// When what was passed over is settled at the latest.
    settle_all_at: Option<Instant>,
    log_start: Offset,
    /// How often messages had been deleted when that was last looked at.
    deletions: u64,
}

/// Time that doesn't jump while a leader leads, whatever the wall clock does.
struct Clock {
    begun: Instant,
    begun_ms: u64,
}

impl Clock {
    fn now_ms(&self) -> u64 {
        let elapsed = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.begun_ms.saturating_add(elapsed)
    }

    fn at(&self, ms: u64) -> Instant {
        self.begun + Duration::from_millis(ms.saturating_sub(self.begun_ms))
    }
}

impl Desk {
    async fn open(actor: Actor) -> Result<Self, End> {
        let Actor { group, partition, subscription, start, orders, gauges, env, map, router, metrics } = actor;
        let (leadership, progress) = (group.watch_leadership(), group.progress());
        let term = leadership.borrow().term;
        // Whatever was settled before must be applied before anything is handed out: by earlier leaders, and by an actor of
        // this one that didn't live to see its settlement committed. Only an entry behind theirs is proof of that; a read
        // barrier isn't.
        propose(group.clone(), PartitionCommand::BeginSubscription { subscription, start }).await?;
        if !leadership.borrow().is_self || leadership.borrow().term != term {
            return Err(End::NotLeading);
        }
        let info = map.borrow().subscription_by_id(subscription).cloned().ok_or(End::Deleted)?;
        // Before the state: a seek in between is looked at twice, and not missed.
        let seeks = progress.borrow().seeks;
        let state = group.look(|machine| machine.subscriptions().get(subscription).cloned()).flatten();
        let state = state.ok_or(End::Deleted)?;
        let log_start = progress.borrow().log_start;
        let records = Records::new(group.clone(), partition.id, partition.label());
        let filtering = Filtering::of(&info, partition.clone(), metrics);
        Ok(Self {
            term,
            generation: state.generation(),
            seeks,
            dispatcher: seeks::dispatcher(subscription, &info, &state),
            records,
            filtering,
            group,
            partition,
            subscription,
            sessions: BTreeMap::new(),
            asked: BTreeSet::new(),
            orders,
            gauges,
            waiters: BTreeMap::new(),
            last_waiter: 0,
            clock: Clock { begun: Instant::now(), begun_ms: env.wall_clock_ms() },
            log_start,
            deletions: 0,
            progress,
            leadership,
            map,
            proposed: None,
            delays: Delays::default(),
            router,
            letter: None,
            letters_at: Some(Instant::now()),
            settle_all_at: None,
        })
    }

    async fn serve(&mut self) -> End {
        loop {
            if let Err(end) = self.turn().await {
                return end;
            }
        }
    }

    /// Does what there is to do, then waits for something to happen.
    async fn turn(&mut self) -> Result<(), End> {
        self.follow_seeks()?;
        let now_ms = self.clock.now_ms();
        self.count_dead_letters();
        self.dispatcher.expire(now_ms, || fastrand::u64(..));
        self.follow_lanes().await?;
        let mut more = self.read_ahead().await?;
        // A lane that is ready mustn't be handed out because several higher ones have something new at a time.
        for _ in 0..DISPATCH_READS_AT_ONCE {
            if !more || !self.dispatcher.wants_higher() {
                break;
            }
            more = self.read_ahead().await?;
        }
        self.hand_out().await?;
        self.answer();
        self.settle();
        self.publish_dead_letters().await?;
        self.gauges.send_replace(self.dispatcher.gauges());
        let due_at = self.dispatcher.next_due_ms(now_ms).map(|due_ms| self.clock.at(due_ms));
        // While a letter is under way its answer says when to look for the next one.
        let letters_at = self.letters_at.filter(|_| self.letter.is_none());
        // The same holds for a settlement.
        let settle_all_at = self.settle_all_at.filter(|_| self.proposed.is_none());
        let wake_at = due_at.into_iter().chain(settle_all_at).chain(letters_at).chain(self.due_at()).min();
        tokio::select! {
            biased;
            changed = self.leadership.changed() => {
                changed.map_err(|_| End::NotLeading)?;
                self.still_leading()?;
            }
            _ = self.map.changed() => self.follow_map()?,
            reply = finished(&mut self.proposed) => {
                self.proposed = None;
                match reply? {
                    Reply::Subscription(Err(SubscriptionRejected::Moved { .. })) => self.begin_anew()?,
                    reply => {
                        confirmed(reply)?;
                        self.dispatcher.confirmed();
                    }
                }
                // There may be a dead letter among what was settled.
                self.letters_at.get_or_insert_with(Instant::now);
            }
            released = self.delays.released() => released?,
            sent = finished(&mut self.letter) => {
                self.letter = None;
                self.letters_at = Some(self.letter_sent(sent)?);
            }
            order = self.orders.recv() => {
                let mut order = order.ok_or(End::Unneeded)?;
                for _ in 0..DISPATCH_ORDERS_AT_ONCE {
                    self.obey(order);
                    let Ok(next) = self.orders.try_recv() else { break };
                    order = next;
                }
            }
            () = std::future::ready(()), if more => {}
            changed = self.progress.changed() => changed.map_err(|_| End::NotLeading)?,
            () = sleep_until(wake_at.unwrap_or_else(Instant::now)), if wake_at.is_some() => {}
        }
        Ok(())
    }

    fn still_leading(&mut self) -> Result<(), End> {
        let now = *self.leadership.borrow_and_update();
        if now.is_self && now.term == self.term { Ok(()) } else { Err(End::NotLeading) }
    }

    fn follow_map(&mut self) -> Result<(), End> {
        let map = Arc::clone(&self.map.borrow_and_update());
        let Some(info) = map.subscription_by_id(self.subscription) else {
            self.filtering.deleted();
            return Err(End::Deleted);
        };
        self.filtering.follow(info);
        self.dispatcher.set_rules(rules(info));
        self.letters_at.get_or_insert_with(Instant::now);
        Ok(())
    }

    async fn hand_out(&mut self) -> Result<(), End> {
        let now_ms = self.clock.now_ms();
        let ready = self.dispatcher.has_ready(now_ms);
        self.tell_lenders(ready);
        if !ready || !self.sessions.values().any(|session| session.purse.has_credit()) {
            return Ok(());
        }
        if self.group.quorum_age().is_none_or(|age| age > DISPATCH_DOUBT) {
            confirm(&self.group).await?;
            self.still_leading()?;
        }
        let group = self.group.clone();
        let deliveries = self.dispatcher.take(now_ms, &mut Purses(&self.sessions), |offset| group.is_deleted(offset));
        let mut by_session: BTreeMap<SessionId, Vec<v1::Delivery>> = BTreeMap::new();
        for delivery in deliveries {
            let session = delivery.session;
            // Removed by retention since it was read: there is nothing to deliver, and nothing to settle.
            if delivery.position.offset() < self.progress.borrow().log_start {
                continue;
            }
            let record = self.records.record(delivery.position.offset()).await.map_err(End::Read)?;
            by_session.entry(session).or_default().push(self.wire(delivery, record));
        }
        for (session, deliveries) in by_session {
            if let Some(session) = self.sessions.get(&session) {
                session.send(Event::Delivered(deliveries));
            }
        }
        self.tell_lenders(self.dispatcher.has_ready(now_ms));
        Ok(())
    }

    /// Tells those who lend credit when it is needed, and when it isn't.
    fn tell_lenders(&mut self, ready: bool) {
        for (id, session) in self.sessions.iter().filter(|(_, session)| session.purse.is_on_demand()) {
            let has_credit = session.purse.has_credit();
            if ready && !has_credit && self.asked.insert(*id) {
                session.send(Event::Waiting);
            }
            if has_credit {
                self.asked.remove(id);
                if !ready {
                    session.send(Event::Idle);
                }
            }
        }
    }

    fn wire(&self, delivery: Delivery, record: Record) -> v1::Delivery {
        let Delivery { lease, position, attempt, error, .. } = delivery;
        let ack_id = AckId {
            partition: self.partition.id,
            subscription: self.subscription,
            generation: self.generation,
            term: self.term,
            lease,
            position,
        };
        let topic = self.partition.topic.as_str();
        v1::Delivery {
            message: Some(convert::received_message(topic, self.partition.id, position.offset(), record)),
            ack_id: ack_id.to_string(),
            delivery_attempt: attempt,
            last_error: error,
        }
    }

    /// Proposes what was decided, unless something is being proposed.
    fn settle(&mut self) {
        if self.proposed.is_some() {
            return;
        }
        let now = Instant::now();
        let all = self.settle_all_at.is_some_and(|at| at <= now);
        match self.dispatcher.settlement(all) {
            Some(settlement) => {
                self.settle_all_at = None;
                let proposing = propose(self.group.clone(), PartitionCommand::Settle(settlement));
                self.proposed = Some(proposing.boxed());
            }
            None if self.dispatcher.has_pending() => {
                self.settle_all_at.get_or_insert(now + SETTLEMENT_PAUSE);
            }
            None => self.settle_all_at = None,
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Join(session) => {
                self.dispatcher.join(session.id);
                self.sessions.insert(session.id, session);
            }
            Order::Granted => {}
            Order::Leave { session, keeps } => {
                self.sessions.remove(&session);
                self.asked.remove(&session);
                if keeps {
                    self.dispatcher.detach(session);
                } else {
                    self.dispatcher.leave(session, self.clock.now_ms());
                }
            }
            Order::Say { say, questions } => questions.into_iter().for_each(|question| self.hear(&say, question)),
        }
    }

    fn hear(&mut self, say: &Say, question: Question) {
        let delivery = question.delivery;
        let AckId { position, generation, term, .. } = delivery;
        // Whoever delivered it leads in this node's place, which will hear of it.
        if term > self.term || generation > self.generation {
            return question.answer(v1::Outcome::Unknown);
        }
        if generation != self.generation {
            return question.answer(v1::Outcome::Seeked);
        }
        // What isn't in the log was never delivered: the id was made up.
        if position.offset() >= self.progress.borrow().end {
            return question.answer(v1::Outcome::Invalid);
        }
        self.last_waiter += 1;
        let waiter = WaiterId(self.last_waiter);
        self.waiters.insert(waiter, question);
        let lease: Option<LeaseId> = (term == self.term).then_some(delivery.lease);
        let now_ms = self.clock.now_ms();
        match say {
            Say::Ack => self.dispatcher.acknowledge(lease, position, waiter),
            Say::Nack(returned) => {
                let now = (now_ms, fastrand::u64(..));
                self.dispatcher.give_back(lease, position, returned.clone(), now, waiter);
            }
            Say::Extend { for_ms } => {
                self.dispatcher.extend(lease, position, now_ms.saturating_add(*for_ms), waiter);
            }
        }
    }

    fn answer(&mut self) {
        for Answer { waiter, outcome } in self.dispatcher.answers() {
            let Some(question) = self.waiters.remove(&waiter) else { continue };
            let outcome = match outcome {
                Outcome::Done => v1::Outcome::Done,
                Outcome::AlreadySettled => v1::Outcome::AlreadySettled,
                Outcome::LeaseLost => v1::Outcome::LeaseLost,
            };
            question.answer(outcome);
        }
    }
}

/// The credit of an actor's sessions.
struct Purses<'a>(&'a BTreeMap<SessionId, Session>);

impl Credits for Purses<'_> {
    fn spend(&mut self, session: SessionId, bytes: u32) -> bool {
        self.0.get(&session).is_some_and(|session| session.purse.spend(bytes))
    }
}

fn rules(info: &SubscriptionInfo) -> Rules {
    Rules {
        ack_deadline_ms: info.ack_deadline_ms,
        retry: info.retry.clone(),
        max_attempts: info.dead_letter.as_ref().map(|policy| policy.max_attempts),
        ordered: info.ordered,
    }
}

/// Makes sure that this replica leads and has applied what was committed before.
async fn confirm(group: &RaftGroup) -> Result<(), End> {
    timeout(SETTLEMENT_TIME, group.read_barrier()).await.map_err(|_| End::NoQuorum)?.map_err(End::Propose)
}

async fn propose(group: RaftGroup, command: PartitionCommand) -> Result<Reply, End> {
    let reply = timeout(SETTLEMENT_TIME, group.propose(command.encode())).await;
    Ok(reply.map_err(|_| End::NoQuorum)??)
}

fn confirmed(reply: Reply) -> Result<(), End> {
    match reply {
        Reply::Subscription(Ok(_)) => Ok(()),
        Reply::Subscription(Err(rejected)) => Err(End::Refused(rejected.to_string())),
        other => Err(End::Refused(format!("{other:?}"))),
    }
}

/// What comes of work that is under way; never, if there is none.
async fn finished<T>(work: &mut Option<BoxFuture<'static, T>>) -> T {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

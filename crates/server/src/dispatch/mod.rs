//! Who gets which message: the work of a partition's leader for the subscriptions of its topic.
//!
//! ```text
//!  subscribers ─► api/subscriber ─► attach ─► actor (here), or the actor of the node that leads
//!                      ▲  deliveries, answers      │  reads the log, proposes settlements
//!                      └───────── session ◄────────┘
//! ```
//!
//! Each subscription has an actor per partition that this node leads, from the first subscriber on until the leadership is
//! gone. What it decides is the model's [`Dispatcher`](quorate_model::partition::subscription::deliver::Dispatcher);
//! here are its eyes and hands.

mod actor;
mod attach;
mod depth;
mod filtering;
mod records;
mod say;
mod session;
mod status;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use quorate_consensus::{Env, RaftGroup};
use quorate_model::partition::subscription::deliver::{Gauges, Return, SessionId};
use quorate_model::{AckId, ClusterMap, GroupId, Offset, SubscriptionId, SubscriptionInfo};
use quorate_proto::v1;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub(crate) use attach::{Attachments, Lost};
pub(crate) use say::{say, say_here};
pub(crate) use session::{Answered, Answers, Credit, Event, Purse, Question, Session};

use self::actor::Actor;
use crate::front::Partition;
use crate::limits::DISPATCH_ORDERS;
use crate::metrics::Metrics;
use crate::router::Router;

/// The actors of this node.
pub(crate) struct Dispatch {
    actors: Mutex<BTreeMap<(GroupId, SubscriptionId), Handle>>,
    sessions: Mutex<u64>,
    /// When the oldest unsettled messages were published that somebody asked about.
    oldest: Mutex<BTreeMap<(GroupId, SubscriptionId), (Offset, u64)>>,
    env: Arc<dyn Env>,
    map: watch::Receiver<Arc<ClusterMap>>,
    /// The way to the topics of dead letters.
    router: Router,
    metrics: Arc<Metrics>,
    draining: CancellationToken,
}

/// The way to an actor. It may have ended: then what is sent is lost, and whoever waits for an answer is told so.
#[derive(Clone)]
pub(crate) struct Handle {
    orders: mpsc::Sender<Order>,
    gauges: watch::Receiver<Gauges>,
}

/// What is asked of an actor.
pub(crate) enum Order {
    /// A subscriber wants messages.
    Join(Session),
    /// A session has more credit.
    Granted,
    /// A subscriber is gone.
    Leave {
        /// Which.
        session: SessionId,
        /// It keeps what it has in hand, until the time for that is over.
        keeps: bool,
    },
    /// A subscriber says something about deliveries.
    Say {
        /// What.
        say: Say,
        /// Of which, and who hears what became of it.
        questions: Vec<Question>,
    },
}

/// What a subscriber says about a delivery.
#[derive(Clone, Debug)]
pub(crate) enum Say {
    /// It is done.
    Ack,
    /// It comes back.
    Nack(Return),
    /// It takes so much longer, from now.
    Extend {
        /// In milliseconds.
        for_ms: u64,
    },
}

impl Say {
    /// As it is named on the wire.
    pub(crate) fn action(&self) -> v1::Action {
        match self {
            Self::Ack => v1::Action::Ack,
            Self::Nack(_) => v1::Action::Nack,
            Self::Extend { .. } => v1::Action::Extend,
        }
    }
}

impl Order {
    /// A subscriber says the same of some deliveries.
    pub(crate) fn say(say: Say, deliveries: &[AckId], answers: &Answers) -> Self {
        let action = say.action();
        let questions = deliveries.iter().map(|delivery| Question::new(*delivery, action, answers.clone()));
        Self::Say { questions: questions.collect(), say }
    }
}

impl Dispatch {
    pub(crate) fn new(
        env: Arc<dyn Env>,
        map: watch::Receiver<Arc<ClusterMap>>,
        router: Router,
        metrics: Arc<Metrics>,
        draining: CancellationToken,
    ) -> Self {
        let (actors, sessions, oldest) = Default::default();
        Self { actors, sessions, oldest, env, map, router, metrics, draining }
    }

    /// The actor of a subscription in a partition that this node leads, or believes to.
    pub(crate) fn of(&self, group: &RaftGroup, partition: &Partition, subscription: &SubscriptionInfo) -> Handle {
        let mut actors = self.actors.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (group.id(), subscription.id);
        if let Some(handle) = actors.get(&key).filter(|handle| !handle.orders.is_closed()) {
            return handle.clone();
        }
        actors.retain(|_, handle| !handle.orders.is_closed());
        let (orders, receiver) = mpsc::channel(DISPATCH_ORDERS);
        let (gauges, watched) = watch::channel(Gauges::default());
        let handle = Handle { orders, gauges: watched };
        actors.insert(key, handle.clone());
        let actor = Actor {
            group: group.clone(),
            partition: partition.clone(),
            subscription: subscription.id,
            start: subscription.start_of(partition.id.index),
            orders: receiver,
            gauges,
            env: Arc::clone(&self.env),
            map: self.map.clone(),
            router: self.router.clone(),
            metrics: Arc::clone(&self.metrics),
        };
        let draining = self.draining.clone();
        tokio::spawn(async move { draining.run_until_cancelled(actor.run()).await });
        handle
    }

    /// A session with an id that no other of this node has.
    pub(crate) fn session(&self, purse: Purse) -> (Session, mpsc::UnboundedReceiver<Event>) {
        let mut last = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        *last += 1;
        Session::new(SessionId(*last), purse)
    }
}

impl Handle {
    /// Whether the order was taken; it isn't if the actor has ended.
    pub(crate) async fn send(&self, order: Order) -> bool {
        self.orders.send(order).await.is_ok()
    }

    /// Has the actor look at its sessions' credit. If it has much to do it will anyway.
    pub(crate) fn wake(&self) {
        let _ = self.orders.try_send(Order::Granted);
    }

    /// Returns when the actor has ended.
    pub(crate) async fn ended(&self) {
        self.orders.closed().await;
    }
}

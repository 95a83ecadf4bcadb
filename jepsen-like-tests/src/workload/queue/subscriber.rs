//! One who takes messages of a subscription, and what it does with them.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use quorate_client::{ClientError, Delivery, Settled as Told, Subscriber};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::{ACK_DEADLINE, Role};
use crate::history::{Action, Phase, Settled};
use crate::workload::log::what_was_seen;
use crate::workload::{Course, Stage};

/// How a subscriber behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manners {
    /// It keeps what it takes for as long as it needs, and never leaves.
    Steady,
    /// It doesn't ask for more time, and forgets some messages.
    Forgetful,
    /// It leaves every few seconds, one way or another, and comes back.
    Fickle,
}

/// What is done with a delivery.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Acknowledge {
        after: Duration,
    },
    Return {
        pause: Option<Duration>,
    },
    /// It is given back untried.
    Release,
    /// Nothing is said until its time is over.
    Forget,
    /// It is dropped, which returns it.
    Drop,
}

/// How long a subscriber looks for a partition's leader before it gives up and begins anew.
const PATIENCE: Duration = Duration::from_secs(8);

/// How long one that leaves in good order waits for answers.
const GOODBYE: Duration = Duration::from_secs(2);

impl Manners {
    fn extends_for(self) -> Duration {
        if self == Self::Forgetful { Duration::ZERO } else { 3 * ACK_DEADLINE }
    }

    fn stays(self) -> Duration {
        let seconds = if self == Self::Fickle { 1..=8 } else { 3_600..=3_600 };
        Duration::from_secs(fastrand::u64(seconds))
    }

    fn deed(self, stage: Stage, role: &Role) -> Deed {
        // In the end everybody does what is asked: then nothing may be left.
        if stage >= Stage::Final {
            return Deed::Acknowledge { after: Duration::ZERO };
        }
        if fastrand::u8(..100) < role.returned_percent {
            return Deed::Return { pause: None };
        }
        let millis = |range| Duration::from_millis(fastrand::u64(range));
        match fastrand::u8(..100) {
            0..8 => Deed::Return { pause: None },
            8..11 => Deed::Return { pause: Some(millis(0..1_500)) },
            11..20 => Deed::Acknowledge { after: millis(10..1_500) },
            // About when its time is over.
            20..22 => Deed::Acknowledge { after: ACK_DEADLINE.mul_f64(0.95 + fastrand::f64() / 5.0) },
            22..25 if self != Self::Steady => Deed::Forget,
            25 => Deed::Release,
            26 => Deed::Drop,
            _ => Deed::Acknowledge { after: Duration::ZERO },
        }
    }
}

/// Takes messages until it is over, one life after another.
pub(super) async fn subscribe(
    course: Course,
    process: &'static str,
    (role, manners): (Role, Manners),
    mut over: watch::Receiver<bool>,
) {
    course.reached(Stage::Faults).await;
    let mut deeds = JoinSet::new();
    let mut life = 0;
    while !*over.borrow() {
        life += 1;
        let name: Arc<str> = format!("{process}/{life}").into();
        let mut one = Life { course: &course, name, role, manners, deeds: &mut deeds, forgotten: Vec::new() };
        // Why it ended doesn't matter: it begins anew.
        let _ = one.live(&mut over).await;
        while deeds.try_join_next().is_some() {}
        sleep(Duration::from_millis(fastrand::u64(20..500))).await;
    }
    while deeds.join_next().await.is_some() {}
}

/// From the opening of a stream to its end.
struct Life<'a> {
    course: &'a Course,
    name: Arc<str>,
    role: Role,
    manners: Manners,
    /// What is being said of deliveries; it outlives the stream.
    deeds: &'a mut JoinSet<()>,
    /// Until when each is kept.
    forgotten: Vec<(Instant, Delivery)>,
}

impl Life<'_> {
    async fn live(&mut self, over: &mut watch::Receiver<bool>) -> Result<(), ClientError> {
        let client = self.course.client()?;
        let builder =
            client.subscriber(self.role.subscription).patience(PATIENCE).extend_for(self.manners.extends_for());
        let mut subscriber = builder.outstanding_messages(fastrand::u32(5..=100)).build().await?;
        let leaves_at = Instant::now() + self.manners.stays();
        loop {
            tokio::select! {
                next = subscriber.next() => match next {
                    Some(delivery) => self.take(delivery?),
                    None => return Ok(()),
                },
                () = sleep_until(leaves_at) => break,
                _ = over.wait_for(|over| *over) => break,
            }
        }
        self.leave(subscriber).await;
        Ok(())
    }

    /// In good order, at once, or after it has stood still for a while with all that it has.
    async fn leave(&mut self, subscriber: Subscriber) {
        match fastrand::u8(..3) {
            0 => subscriber.close(GOODBYE).await,
            1 => drop(subscriber),
            _ => {
                sleep(Duration::from_millis(fastrand::u64(500..4_000))).await;
                drop(subscriber);
            }
        }
    }

    fn take(&mut self, delivery: Delivery) {
        let now = Instant::now();
        self.forgotten.retain(|(until, _)| *until > now);
        let message = &delivery.message;
        let seen = what_was_seen(message);
        let key = String::from_utf8_lossy(&message.ordering_key).into_owned();
        let of_key = seen.message.split_once('@').map_or("", |(_, key)| key);
        // One whose key isn't its own is a message that nobody sent.
        let message = if of_key == key { seen.message } else { format!("{} with key {key}", seen.message) };
        let action = Action::Deliver {
            subscription: self.role.subscription.to_owned(),
            message: message.clone(),
            partition: seen.partition,
            offset: seen.offset,
            key,
            attempt: delivery.attempt,
        };
        let number = self.course.recorder().occurrence(&self.name, action);
        let taken = Taken {
            course: self.course.clone(),
            name: Arc::clone(&self.name),
            subscription: self.role.subscription,
            message,
            number,
        };
        match self.manners.deed(self.course.stage(), &self.role) {
            Deed::Acknowledge { after } => {
                self.deeds.spawn(async move {
                    if !after.is_zero() {
                        sleep(after).await;
                    }
                    taken.acknowledge(delivery).await;
                });
            }
            Deed::Return { pause } => {
                self.deeds.spawn(taken.give_back(delivery, pause));
            }
            Deed::Release => delivery.release(),
            Deed::Forget => self.forgotten.push((now + 2 * ACK_DEADLINE, delivery)),
            Deed::Drop => drop(delivery),
        }
    }
}

/// A delivery, for the history.
struct Taken {
    course: Course,
    name: Arc<str>,
    subscription: &'static str,
    message: String,
    number: u64,
}

impl Taken {
    async fn acknowledge(self, delivery: Delivery) {
        let action = |settled, why| Action::Acknowledge {
            subscription: self.subscription.to_owned(),
            message: self.message.clone(),
            delivery: self.number,
            settled,
            why,
        };
        let op = self.course.recorder().invoke(&self.name, action(None, String::new()));
        let (phase, settled, why) = match delivery.ack().await {
            Ok(told @ (Told::Done | Told::Already)) => (Phase::Ok, Some(recorded(told)), String::new()),
            Ok(told) => (Phase::Fail, Some(recorded(told)), String::new()),
            Err(error) => (Phase::Unknown, None, error.to_string()),
        };
        self.course.recorder().end(&op, phase, action(settled, why));
    }

    async fn give_back(self, delivery: Delivery, pause: Option<Duration>) {
        let action = |settled, why| Action::Return {
            subscription: self.subscription.to_owned(),
            message: self.message.clone(),
            delivery: self.number,
            pause_ms: pause.map(|pause| u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)),
            settled,
            why,
        };
        let op = self.course.recorder().invoke(&self.name, action(None, String::new()));
        let told = match pause {
            Some(pause) => delivery.nack_after(pause, "not now").await,
            None => delivery.nack("not now").await,
        };
        let (phase, settled, why) = match told {
            Ok(told @ (Told::Done | Told::Already)) => (Phase::Ok, Some(recorded(told)), String::new()),
            // It may have been carried out before the stream was lost, and nobody asked again.
            Ok(told) => (Phase::Unknown, Some(recorded(told)), String::new()),
            Err(error) => (Phase::Unknown, None, error.to_string()),
        };
        self.course.recorder().end(&op, phase, action(settled, why));
    }
}

fn recorded(told: Told) -> Settled {
    match told {
        Told::Done => Settled::Done,
        Told::Already => Settled::Already,
        Told::LeaseLost => Settled::LeaseLost,
        Told::Seeked => Settled::Seeked,
    }
}

//! Subscriptions: clients publish to a topic, and others take its messages from three subscriptions. One keeps the order of
//! keys; one is choosy: it has a filter, and gives up what was returned too often, which then is a dead letter. Most messages
//! are acknowledged at once; some late, some are returned, some never mentioned, some expire, and subscribers leave and come
//! back. In the end they go on until nothing is left.
//!
//! What else a subscription can do gets a file beside [`subscriber`], and a property of its own.

mod dead_letters;
mod subscriber;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use quorate_client::{ClientError, DeadLetterPolicy, Reason, RetryPolicy, Start, SubscriptionSpec};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use self::subscriber::Manners;
use super::log::{self, Load, REGION, TOPIC};
use super::{Course, PUBLISH_DEADLINE, Stage};
use crate::checker::Outstanding;
use crate::history::{Action, Phase};
use crate::world::World;

/// One subscription, and who takes its messages.
#[derive(Clone, Copy, Debug)]
pub struct Role {
    /// Its name.
    pub subscription: &'static str,
    /// Whether messages of one key keep their order in it; `None`: as the seed says.
    pub ordered: Option<bool>,
    /// The region whose messages it asks for.
    pub region: Option<&'static str>,
    /// After so many attempts a message becomes a dead letter.
    pub max_attempts: Option<u32>,
    /// So many of a hundred deliveries are returned, besides those that anybody returns.
    returned_percent: u8,
    /// Its subscribers.
    subscribers: &'static [(&'static str, Manners)],
}

/// All subscriptions.
pub const SUBSCRIPTIONS: [Role; 3] = [
    Role {
        subscription: "plain",
        ordered: Some(false),
        region: None,
        max_attempts: None,
        returned_percent: 0,
        subscribers: &[("s1", Manners::Steady), ("s2", Manners::Forgetful), ("s3", Manners::Fickle)],
    },
    Role {
        subscription: "ordered",
        ordered: Some(true),
        region: None,
        max_attempts: None,
        returned_percent: 0,
        subscribers: &[("o1", Manners::Steady), ("o2", Manners::Forgetful), ("o3", Manners::Fickle)],
    },
    Role {
        subscription: "choosy",
        ordered: None,
        region: Some("eu"),
        max_attempts: Some(2),
        returned_percent: 30,
        subscribers: &[("c1", Manners::Forgetful), ("c2", Manners::Fickle)],
    },
];

/// How long a message may be kept. Short, so that many are kept for too long.
pub(super) const ACK_DEADLINE: Duration = Duration::from_secs(3);

/// Pause before the next attempt.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Within this time after the last publish everything is settled: whatever somebody keeps comes back after the
/// deadline, and an acknowledgement without an answer is repeated for up to 30 s.
const PATIENCE: Duration = Duration::from_secs(60);

/// So long it is watched afterwards whether anything comes again: whatever was in flight would.
const QUIET: Duration = Duration::from_secs(4);

/// Pause between two looks at what is left.
const LOOK_PAUSE: Duration = Duration::from_millis(250);

/// Adds the processes.
pub fn start(world: &mut dyn World, course: &Course, load: &Load) {
    let over = Arc::new(watch::Sender::new(false));
    world.client("setup", set_up(course.clone(), load.clone()).boxed());
    let patience = [PUBLISH_DEADLINE, Duration::from_secs(3), Duration::from_secs(1)];
    for (process, deadline) in ["p1", "p2", "p3"].into_iter().zip(patience) {
        world.client(process, log::publish(course.clone(), process, deadline, load.clone()).boxed());
    }
    for role in SUBSCRIPTIONS {
        for (process, manners) in role.subscribers.iter().copied() {
            let subscribing = subscriber::subscribe(course.clone(), process, (role, manners), over.subscribe());
            world.client(process, subscribing.boxed());
        }
    }
    world.client("d1", dead_letters::follow(course.clone(), "d1", over.subscribe()).boxed());
    world.client("f1", finish(course.clone(), "f1", load.partitions, over).boxed());
}

/// Makes the topics and the subscriptions, and lets the faults begin.
async fn set_up(course: Course, load: Load) {
    log::create_topic(&course, &load).await;
    dead_letters::create_topic(&course).await;
    for role in SUBSCRIPTIONS {
        let ordered = role.ordered.unwrap_or_else(fastrand::bool);
        let action = || Action::Subscription {
            subscription: role.subscription.to_owned(),
            ordered,
            region: role.region.map(ToOwned::to_owned),
            max_attempts: role.max_attempts,
        };
        let op = course.recorder().invoke("setup", action());
        loop {
            match create(&course, role, ordered).await {
                Ok(()) => break,
                // The answer to an earlier attempt was lost.
                Err(error) if error.is(Reason::SubscriptionExists) => break,
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
        course.recorder().end(&op, Phase::Ok, action());
    }
    course.enter(Stage::Faults);
}

async fn create(course: &Course, role: Role, ordered: bool) -> Result<(), ClientError> {
    let dead_letter_policy = role.max_attempts.map(|attempts| DeadLetterPolicy {
        topic: dead_letters::TOPIC.to_owned(),
        max_delivery_attempts: Some(attempts),
    });
    let filter = role.region.map(|region| format!("attributes[\"{REGION}\"] == \"{region}\""));
    let spec = SubscriptionSpec {
        start: Some(Start::Earliest),
        ack_deadline: Some(ACK_DEADLINE),
        retry_policy: Some(RetryPolicy::Fixed { pause: RETRY_PAUSE }),
        dead_letter_policy,
        ordered,
        filter: filter.unwrap_or_default(),
        ..SubscriptionSpec::named(role.subscription, TOPIC)
    };
    course.client()?.subscriptions().create(spec).await.map(drop)
}

/// In the end: waits until everything is settled, sends the subscribers home, and reads the dead letters and what is left.
async fn finish(course: Course, process: &'static str, partitions: u32, over: Arc<watch::Sender<bool>>) {
    course.reached(Stage::Final).await;
    let op = course.recorder().invoke(process, Action::Emptied { left: 0 });
    let left = wait_until_empty(&course).await;
    sleep(QUIET).await;
    over.send_replace(true);
    let phase = if left == 0 { Phase::Ok } else { Phase::Unknown };
    course.recorder().end(&op, phase, Action::Emptied { left });
    dead_letters::read_finally(&course, process).await;
    log::read_from_every_replica(&course, process, partitions).await;
}

/// How many messages aren't settled when it gives up. What retention removed nobody can settle.
async fn wait_until_empty(course: &Course) -> usize {
    let until = Instant::now() + PATIENCE;
    let (mut outstanding, mut seen, mut starts) = (Outstanding::default(), 0, BTreeMap::new());
    loop {
        seen = course.recorder().follow(seen, |event| outstanding.add(event));
        // Without an answer those of the last look count: what was removed stays removed.
        if let Ok(answered) = log_starts(course).await {
            starts.extend(answered);
        }
        let missing = outstanding.missing(course.recorder().now_ms());
        let left = missing.filter(|missing| starts.get(&missing.place.0).is_none_or(|start| missing.place.1 >= *start));
        let left = left.count();
        if left == 0 || Instant::now() > until {
            return left;
        }
        sleep(LOOK_PAUSE).await;
    }
}

async fn log_starts(course: &Course) -> Result<Vec<(u32, u64)>, ClientError> {
    let topic = course.client()?.topics().get(TOPIC).await?;
    let answered = topic.partition_status.into_iter().filter(|status| !status.unavailable);
    Ok(answered.map(|status| (status.partition, status.log_start_offset)).collect())
}

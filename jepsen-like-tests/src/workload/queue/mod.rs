//! Subscriptions: clients publish to a topic, and others take its messages from two subscriptions, of which one keeps the
//! order of keys. Most messages are acknowledged at once; some late, some are returned, some never mentioned, and
//! subscribers leave and come back. In the end they go on until nothing is left.
//!
//! What else a subscription can do gets a file beside [`subscriber`], and a property of its own.

mod subscriber;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use quorate_client::{ClientError, Reason, RetryPolicy, Start, SubscriptionSpec};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use self::subscriber::Manners;
use super::log::{self, Load, TOPIC};
use super::{Course, PUBLISH_DEADLINE, Stage};
use crate::checker::Outstanding;
use crate::history::{Action, Phase};
use crate::world::World;

/// One subscription, and who takes its messages.
#[derive(Clone, Copy, Debug)]
pub struct Role {
    /// Its name.
    pub subscription: &'static str,
    /// Whether messages of one key keep their order in it.
    pub ordered: bool,
    /// Its subscribers.
    pub subscribers: [&'static str; 3],
}

/// All subscriptions.
pub const SUBSCRIPTIONS: [Role; 2] = [
    Role { subscription: "plain", ordered: false, subscribers: ["s1", "s2", "s3"] },
    Role { subscription: "ordered", ordered: true, subscribers: ["o1", "o2", "o3"] },
];

/// How long a message may be kept. Short, so that many are kept for too long.
pub(super) const ACK_DEADLINE: Duration = Duration::from_secs(3);

/// Pause before the next attempt.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Within this time after the last publish everything is acknowledged: whatever somebody keeps comes back after the
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
        for (process, manners) in role.subscribers.into_iter().zip(Manners::ALL) {
            let subscribing =
                subscriber::subscribe(course.clone(), process, role.subscription, manners, over.subscribe());
            world.client(process, subscribing.boxed());
        }
    }
    world.client("f1", finish(course.clone(), "f1", load.partitions, over).boxed());
}

/// Makes the topic and its subscriptions, and lets the faults begin.
async fn set_up(course: Course, load: Load) {
    log::create_topic(&course, &load).await;
    for role in SUBSCRIPTIONS {
        let action = || Action::Subscription { subscription: role.subscription.to_owned(), ordered: role.ordered };
        let op = course.recorder().invoke("setup", action());
        loop {
            match create(&course, role).await {
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

async fn create(course: &Course, role: Role) -> Result<(), ClientError> {
    let spec = SubscriptionSpec {
        start: Some(Start::Earliest),
        ack_deadline: Some(ACK_DEADLINE),
        retry_policy: Some(RetryPolicy::Fixed { pause: RETRY_PAUSE }),
        ordered: role.ordered,
        ..SubscriptionSpec::named(role.subscription, TOPIC)
    };
    course.client()?.subscriptions().create(spec).await.map(drop)
}

/// In the end: waits until everything is acknowledged, sends the subscribers home, and reads what is left.
async fn finish(course: Course, process: &'static str, partitions: u32, over: Arc<watch::Sender<bool>>) {
    course.reached(Stage::Final).await;
    let op = course.recorder().invoke(process, Action::Emptied { left: 0 });
    let left = wait_until_empty(&course).await;
    sleep(QUIET).await;
    over.send_replace(true);
    let phase = if left == 0 { Phase::Ok } else { Phase::Unknown };
    course.recorder().end(&op, phase, Action::Emptied { left });
    log::read_from_every_replica(&course, process, partitions).await;
}

/// How many messages aren't acknowledged when it gives up. What retention removed nobody can acknowledge.
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

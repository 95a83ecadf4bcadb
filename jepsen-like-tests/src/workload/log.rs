//! The main job: publish idempotently to a topic of several partitions, read it meanwhile, read all of it back in the end.

use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};
use quorate_client::{
    ClientError, Compression, Message, NodeId, PublishError, Publisher, ReceivedMessage, Retention, TopicSpec,
};
use tokio::sync::Semaphore;

use super::{Course, PUBLISH_DEADLINE, Stage};
use crate::history::{Action, Op, Phase, Purpose, Seen, Terms};
use crate::world::World;

pub(super) const TOPIC: &str = "log";

/// Replicas of each partition.
pub(super) const REPLICAS: u32 = 3;

/// How much there is, and how fast.
#[derive(Clone, Debug)]
pub struct Load {
    /// Partitions of the topic.
    pub partitions: u32,
    /// Newest messages that each partition keeps; `None`: all.
    pub keep_messages: Option<u64>,
    /// Ordering keys of messages; 0: they have none.
    pub keys: usize,
    /// Messages of one publisher that may be without an outcome.
    pub window: usize,
    /// Messages that a publisher sends without a pause.
    pub burst: RangeInclusive<usize>,
    /// Pause after them.
    pub pause_ms: Range<u64>,
    /// Time after which a batch without an answer is sent again: short, it is sent again although all is well.
    pub attempt_ms: RangeInclusive<u64>,
    /// Pause between two reads of everything.
    pub snapshot_pause_ms: Range<u64>,
}

impl Load {
    /// Final reads of everything: one from each replica of every partition.
    pub const FINAL_READS: usize = REPLICAS as usize;
}

/// How long a reader waits for a leader before it gives up.
const PATIENCE: Duration = Duration::from_secs(8);

/// The same once the faults are over.
const FINAL_PATIENCE: Duration = Duration::from_secs(20);

/// How long an answer is waited for each time: a node that is away for good may hold the replica.
const TRANSFER_PATIENCE: Duration = Duration::from_secs(5);

/// How often a leadership is asked to move.
const TRANSFER_ATTEMPTS: usize = 5;

/// Adds the processes.
pub fn start(world: &mut dyn World, course: &Course, load: &Load) {
    world.client("setup", set_up(course.clone(), load.clone()).boxed());
    // One outlasts most faults; the others give up in the midst of them, and then nobody knows.
    let patience = [PUBLISH_DEADLINE, Duration::from_secs(3), Duration::from_secs(1)];
    for (process, deadline) in ["p1", "p2", "p3"].into_iter().zip(patience) {
        world.client(process, publish(course.clone(), process, deadline, load.clone()).boxed());
    }
    world.client("r1", read_snapshots(course.clone(), "r1", load.snapshot_pause_ms.clone()).boxed());
    world.client("t1", follow(course.clone(), "t1").boxed());
    world.client("f1", read_finally(course.clone(), "f1", load.partitions).boxed());
}

/// Creates the topic, and lets the faults begin.
async fn set_up(course: Course, load: Load) {
    create_topic(&course, &load).await;
    course.enter(Stage::Faults);
}

pub(super) async fn create_topic(course: &Course, load: &Load) {
    let Load { partitions, keep_messages, .. } = *load;
    let action = || Action::Create { partitions, keep_messages };
    let op = course.recorder().invoke("setup", action());
    // Until enough nodes have registered, three replicas are refused.
    while create(course, load).await.is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    course.recorder().end(&op, Phase::Ok, action());
}

async fn create(course: &Course, load: &Load) -> Result<(), ClientError> {
    let retention = load.keep_messages.map(|messages| Retention { messages: Some(messages), ..Retention::default() });
    let spec = TopicSpec {
        partitions: Some(load.partitions),
        replication_factor: Some(REPLICAS),
        retention,
        ..TopicSpec::named(TOPIC)
    };
    course.client()?.topics().create(spec).await.map(drop)
}

/// Publishes until it is time to stop, and waits for every outcome, each at most `deadline`.
pub(super) async fn publish(course: Course, process: &'static str, deadline: Duration, load: Load) {
    let _work = course.begin_work();
    course.reached(Stage::Faults).await;
    let publisher = loop {
        match publisher(&course, deadline, &load).await {
            Ok(publisher) => break publisher,
            Err(_) if course.stage() <= Stage::Calm => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(_) => return,
        }
    };
    let window = Arc::new(Semaphore::new(load.window));
    let mut number = 0;
    while course.stage() <= Stage::Calm {
        for _ in 0..fastrand::usize(load.burst.clone()) {
            number += 1;
            let partition = fastrand::u32(..load.partitions);
            let (priority, terms) = if load.keys > 0 { any_terms() } else { Default::default() };
            // Delays and priorities have an order of their own, which keys would contradict.
            let has_key = load.keys > 0 && priority == 0 && terms.delay_ms.is_none();
            let key = if has_key { format!("k{}", fastrand::usize(..load.keys)) } else { String::new() };
            // What has a key says so, so that whoever gets it can tell whether it is the right one.
            let at_key = if key.is_empty() { "" } else { "@" };
            let sent = Sent { message: format!("{process}-{number}{at_key}{key}"), partition, key, priority, terms };
            send(&course, process, sent, &publisher, &window).await;
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(load.pause_ms.clone()))).await;
    }
    let totals = publisher.close().await;
    let repeated = Action::Repeated { batches: totals.repeated_batches, recognised: totals.duplicates };
    course.recorder().remark(process, repeated);
    // All permits are back when the last outcome is recorded.
    let _ = window.acquire_many(u32::try_from(load.window).unwrap_or(u32::MAX)).await;
}

async fn publisher(course: &Course, deadline: Duration, load: &Load) -> Result<Publisher, ClientError> {
    let compression = [Compression::None, Compression::Lz4, Compression::Zstd][fastrand::usize(..3)];
    let builder = course.client()?.publisher(TOPIC).delivery_timeout(deadline).compression(compression);
    builder
        .attempt_timeout(Duration::from_millis(fastrand::u64(load.attempt_ms.clone())))
        .batch_records(fastrand::usize(2..=30))
        .build()
        .await
}

async fn send(course: &Course, process: &str, sent: Sent, publisher: &Publisher, window: &Arc<Semaphore>) {
    // The semaphore is never closed.
    let Ok(permit) = Arc::clone(window).acquire_owned().await else { return };
    let op = course.recorder().invoke(process, sent.outcome(None, String::new()));
    match publisher.send(sent.to_message()).await {
        Ok(receipt) => {
            let course = course.clone();
            tokio::spawn(async move {
                match receipt.await {
                    Ok(published) => {
                        let at = Sent { partition: published.partition, ..sent };
                        course.recorder().end(&op, Phase::Ok, at.outcome(Some(published.offset), String::new()));
                    }
                    Err(error) => sent.fail(&course, &op, &error),
                }
                drop(permit);
            });
        }
        Err(error) => sent.fail(course, &op, &error),
    }
}

/// A message on its way.
struct Sent {
    message: String,
    partition: u32,
    key: String,
    priority: u8,
    terms: Terms,
}

/// The attribute that filters ask for.
pub(super) const REGION: &str = "region";

/// Longer than any run, and than clocks are set forward: what expires then must be delivered.
const LATER_THAN_ALL: Duration = Duration::from_secs(60 * 86_400);

/// How subscriptions are to deliver a message: its priority and its terms.
fn any_terms() -> (u8, Terms) {
    let (priority, delay_ms) = match fastrand::u8(..10) {
        0 => (fastrand::u8(1..=9), None),
        1 => (fastrand::u8(..3), Some(fastrand::u64(1..5_000))),
        _ => (0, None),
    };
    let due_ms = delay_ms.unwrap_or(0);
    let expiry_ms = match fastrand::u8(..40) {
        // Nobody can take it in time.
        0 => Some(due_ms + 1),
        // Some do, and some that come back don't.
        1..4 => Some(due_ms + fastrand::u64(1..4_000)),
        4..6 => u64::try_from(LATER_THAN_ALL.as_millis()).ok(),
        _ => None,
    };
    let region = [Some("eu"), Some("us"), None][fastrand::usize(..3)].map(ToOwned::to_owned);
    (priority, Terms { delay_ms, expiry_ms, region })
}

impl Sent {
    fn to_message(&self) -> Message {
        let bytes = if fastrand::u8(..20) == 0 { 4_000 } else { 80 };
        let data = format!("{} {}", self.message, "x".repeat(fastrand::usize(..bytes)));
        let mut message = Message::new(data).partition(self.partition).ordering_key(self.key.clone());
        message = message.priority(self.priority);
        let Terms { delay_ms, expiry_ms, region } = &self.terms;
        if let Some(delay_ms) = delay_ms {
            message = message.deliver_after(Duration::from_millis(*delay_ms));
        }
        if let Some(expiry_ms) = expiry_ms {
            message = message.expire_after(Duration::from_millis(*expiry_ms));
        }
        if let Some(region) = region {
            message = message.attribute(REGION, region);
        }
        message
    }

    fn outcome(&self, offset: Option<u64>, why: String) -> Action {
        let (message, terms) = (self.message.clone(), self.terms.clone());
        Action::Publish { message, partition: self.partition, terms, offset, why }
    }

    fn fail(&self, course: &Course, op: &Op, error: &PublishError) {
        let phase = if error.is_unknown() { Phase::Unknown } else { Phase::Fail };
        course.recorder().end(op, phase, self.outcome(None, error.to_string()));
    }
}

/// Reads everything to the end, again and again.
async fn read_snapshots(course: Course, process: &'static str, pause_ms: Range<u64>) {
    let _work = course.begin_work();
    course.reached(Stage::Faults).await;
    while course.stage() <= Stage::Calm {
        read(&course, process, Purpose::Snapshot, PATIENCE).await;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(pause_ms.clone()))).await;
    }
}

/// Follows the log until what is left is read.
async fn follow(course: Course, process: &'static str) {
    course.reached(Stage::Faults).await;
    while course.stage() < Stage::Final {
        read(&course, process, Purpose::Tail, PATIENCE).await;
    }
}

/// In the end.
async fn read_finally(course: Course, process: &'static str, partitions: u32) {
    course.reached(Stage::Final).await;
    read_from_every_replica(&course, process, partitions).await;
}

/// Lets every replica of every partition lead in turn, and reads everything from it.
pub(super) async fn read_from_every_replica(course: &Course, process: &str, partitions: u32) {
    for replica in 0..Load::FINAL_READS {
        for partition in 0..partitions {
            transfer(course, process, partition, replica).await;
        }
        read(course, process, Purpose::Final, FINAL_PATIENCE).await;
    }
}

async fn read(course: &Course, process: &str, purpose: Purpose, patience: Duration) {
    let op = course.recorder().invoke(process, Action::Read { purpose, seen: Vec::new(), why: String::new() });
    let mut seen = Vec::new();
    let outcome = tokio::select! {
        outcome = read_into(course, &mut seen, purpose, patience) => outcome,
        () = course.reached(Stage::Final), if purpose == Purpose::Tail => Ok(()),
    };
    let (phase, why) = match outcome {
        Ok(()) => (Phase::Ok, String::new()),
        Err(error) => (Phase::Unknown, error.to_string()),
    };
    course.recorder().end(&op, phase, Action::Read { purpose, seen, why });
}

async fn read_into(
    course: &Course,
    seen: &mut Vec<Seen>,
    purpose: Purpose,
    patience: Duration,
) -> Result<(), ClientError> {
    let builder = course.client()?.reader(TOPIC).patience(patience);
    let builder = if purpose == Purpose::Tail { builder } else { builder.stop_at_end() };
    let mut reader = builder.build().await?;
    while let Some(received) = reader.next().await {
        seen.push(what_was_seen(&received?));
    }
    Ok(())
}

pub(super) fn what_was_seen(received: &ReceivedMessage) -> Seen {
    let text = String::from_utf8_lossy(&received.data);
    // A payload that isn't as it was sent is a message that nobody sent.
    let message = match text.split_once(' ') {
        Some((message, padding)) if padding.bytes().all(|byte| byte == b'x') => message.to_owned(),
        _ => format!("damaged: {text}"),
    };
    Seen { partition: received.partition, offset: received.offset, message }
}

async fn transfer(course: &Course, process: &str, partition: u32, replica: usize) {
    let action = |node, why| Action::Transfer { partition, node, why };
    let op = course.recorder().invoke(process, action(None, String::new()));
    let mut why = String::new();
    for _ in 0..TRANSFER_ATTEMPTS {
        match tokio::time::timeout(TRANSFER_PATIENCE, lead(course, partition, replica)).await {
            Ok(Ok(node)) => return course.recorder().end(&op, Phase::Ok, action(node, String::new())),
            Ok(Err(error)) => why = error.to_string(),
            Err(elapsed) => why = elapsed.to_string(),
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    course.recorder().end(&op, Phase::Unknown, action(None, why));
}

/// Lets one of the replicas of a partition lead it; the node that holds it, if the partition is known.
async fn lead(course: &Course, partition: u32, replica: usize) -> Result<Option<u64>, ClientError> {
    let cluster = course.client()?.cluster();
    let view = cluster.get().await?;
    let of_partition = view.topic(TOPIC).and_then(|topic| topic.partitions.get(partition as usize));
    let node = of_partition.and_then(|partition| partition.replicas.get(replica).copied());
    let leader = of_partition.and_then(|partition| partition.leadership.node);
    if node.is_none() || leader != node {
        cluster.transfer_leader(TOPIC, partition, node).await?;
    }
    Ok(node.map(NodeId::get))
}

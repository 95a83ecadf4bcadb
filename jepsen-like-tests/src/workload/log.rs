//! The main job: publish idempotently to a topic of several partitions, read it meanwhile, read all of it back in the end.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use quorate_client::{
    ClientError, Compression, Message, NodeId, PublishError, Publisher, ReceivedMessage, Retention, TopicSpec,
};
use tokio::sync::Semaphore;

use super::{Course, Stage};
use crate::history::{Action, Op, Phase, Purpose, Seen};
use crate::world::sim::{NODES, client};

const TOPIC: &str = "log";

/// Partitions of the topic: several, so that leaders are on several nodes.
pub const PARTITIONS: u32 = 3;

/// Messages of one publisher that may be without an outcome.
const WINDOW: usize = 64;

/// How long a reader waits for a leader before it gives up.
const PATIENCE: Duration = Duration::from_secs(8);

/// The same once the faults are over.
const FINAL_PATIENCE: Duration = Duration::from_secs(20);

/// How often a leadership is asked to move.
const TRANSFER_ATTEMPTS: usize = 5;

/// Creates the topic, and lets the faults begin.
pub async fn set_up(course: Course, keep_messages: Option<u64>) {
    let action = || Action::Create { partitions: PARTITIONS, keep_messages };
    let op = course.recorder().invoke("setup", action());
    // Until all nodes have registered, the default of three replicas is refused.
    while create(keep_messages).await.is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    course.recorder().end(&op, Phase::Ok, action());
    course.enter(Stage::Faults);
}

async fn create(keep_messages: Option<u64>) -> Result<(), ClientError> {
    let retention = keep_messages.map(|messages| Retention { messages: Some(messages), ..Retention::default() });
    let spec = TopicSpec { partitions: Some(PARTITIONS), retention, ..TopicSpec::named(TOPIC) };
    let created = client()?.topics().create(spec).await?;
    // The nodes have only just started: a topic made now must not make do with those that have registered.
    assert_eq!(created.topic.replication_factor as usize, NODES.len(), "{:?}", created.warnings);
    Ok(())
}

/// Publishes until it is time to stop, and waits for every outcome, each at most `deadline`.
pub async fn publish(course: Course, process: &'static str, deadline: Duration) {
    let _work = course.begin_work();
    course.reached(Stage::Faults).await;
    let publisher = loop {
        match publisher(deadline).await {
            Ok(publisher) => break publisher,
            Err(_) if course.stage() <= Stage::Calm => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(_) => return,
        }
    };
    let window = Arc::new(Semaphore::new(WINDOW));
    let mut number = 0;
    while course.stage() <= Stage::Calm {
        for _ in 0..fastrand::usize(1..=4) {
            number += 1;
            send(&course, process, number, &publisher, &window).await;
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(5..80))).await;
    }
    publisher.close().await;
    // All permits are back when the last outcome is recorded.
    let _ = window.acquire_many(u32::try_from(WINDOW).unwrap_or(u32::MAX)).await;
}

async fn publisher(deadline: Duration) -> Result<Publisher, ClientError> {
    let compression = [Compression::None, Compression::Lz4, Compression::Zstd][fastrand::usize(..3)];
    let builder = client()?.publisher(TOPIC).delivery_timeout(deadline).compression(compression);
    builder.attempt_timeout(Duration::from_secs(3)).batch_records(fastrand::usize(2..=30)).build().await
}

async fn send(course: &Course, process: &str, number: u64, publisher: &Publisher, window: &Arc<Semaphore>) {
    // The semaphore is never closed.
    let Ok(permit) = Arc::clone(window).acquire_owned().await else { return };
    let sent = Sent { message: format!("{process}-{number}"), partition: fastrand::u32(..PARTITIONS) };
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
}

impl Sent {
    fn to_message(&self) -> Message {
        let bytes = if fastrand::u8(..20) == 0 { 4_000 } else { 80 };
        Message::new(format!("{} {}", self.message, "x".repeat(fastrand::usize(..bytes)))).partition(self.partition)
    }

    fn outcome(&self, offset: Option<u64>, why: String) -> Action {
        Action::Publish { message: self.message.clone(), partition: self.partition, offset, why }
    }

    fn fail(&self, course: &Course, op: &Op, error: &PublishError) {
        let phase = if error.is_unknown() { Phase::Unknown } else { Phase::Fail };
        course.recorder().end(op, phase, self.outcome(None, error.to_string()));
    }
}

/// Reads everything to the end, again and again.
pub async fn read_snapshots(course: Course, process: &'static str) {
    let _work = course.begin_work();
    course.reached(Stage::Faults).await;
    while course.stage() <= Stage::Calm {
        read(&course, process, Purpose::Snapshot, PATIENCE).await;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(200..1_500))).await;
    }
}

/// Follows the log until what is left is read.
pub async fn follow(course: Course, process: &'static str) {
    course.reached(Stage::Faults).await;
    while course.stage() < Stage::Final {
        read(&course, process, Purpose::Tail, PATIENCE).await;
    }
}

/// In the end: lets every node lead every partition in turn, and reads everything from it.
pub async fn read_finally(course: Course, process: &'static str) {
    course.reached(Stage::Final).await;
    for node in NODES {
        for partition in 0..PARTITIONS {
            transfer(&course, process, partition, node).await;
        }
        read(&course, process, Purpose::Final, FINAL_PATIENCE).await;
    }
}

async fn read(course: &Course, process: &str, purpose: Purpose, patience: Duration) {
    let op = course.recorder().invoke(process, Action::Read { purpose, seen: Vec::new(), why: String::new() });
    let mut seen = Vec::new();
    let outcome = tokio::select! {
        outcome = read_into(&mut seen, purpose, patience) => outcome,
        () = course.reached(Stage::Final), if purpose == Purpose::Tail => Ok(()),
    };
    let (phase, why) = match outcome {
        Ok(()) => (Phase::Ok, String::new()),
        Err(error) => (Phase::Unknown, error.to_string()),
    };
    course.recorder().end(&op, phase, Action::Read { purpose, seen, why });
}

async fn read_into(seen: &mut Vec<Seen>, purpose: Purpose, patience: Duration) -> Result<(), ClientError> {
    let builder = client()?.reader(TOPIC).patience(patience);
    let builder = if purpose == Purpose::Tail { builder } else { builder.stop_at_end() };
    let mut reader = builder.build().await?;
    while let Some(received) = reader.next().await {
        seen.push(what_was_seen(&received?));
    }
    Ok(())
}

fn what_was_seen(received: &ReceivedMessage) -> Seen {
    let text = String::from_utf8_lossy(&received.data);
    // A payload that isn't as it was sent is a message that nobody sent.
    let message = match text.split_once(' ') {
        Some((message, padding)) if padding.bytes().all(|byte| byte == b'x') => message.to_owned(),
        _ => format!("damaged: {text}"),
    };
    Seen { partition: received.partition, offset: received.offset, message }
}

async fn transfer(course: &Course, process: &str, partition: u32, node: u64) {
    let action = |why| Action::Transfer { partition, node, why };
    let op = course.recorder().invoke(process, action(String::new()));
    let mut why = String::new();
    for _ in 0..TRANSFER_ATTEMPTS {
        match lead(partition, node).await {
            Ok(()) => return course.recorder().end(&op, Phase::Ok, action(String::new())),
            Err(error) => why = error.to_string(),
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    course.recorder().end(&op, Phase::Unknown, action(why));
}

async fn lead(partition: u32, node: u64) -> Result<(), ClientError> {
    let cluster = client()?.cluster();
    let node = NodeId::new(node);
    let view = cluster.get().await?;
    let of_partition = view.topic(TOPIC).and_then(|topic| topic.partitions.get(partition as usize));
    if of_partition.is_some_and(|partition| partition.leadership.node == Some(node)) {
        return Ok(());
    }
    cluster.transfer_leader(TOPIC, partition, Some(node)).await.map(drop)
}

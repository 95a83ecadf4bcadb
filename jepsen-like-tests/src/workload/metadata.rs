//! Topics of a few names are made, changed, removed and made again, by several clients at once. A name is a register: there
//! or not, with a value. Whoever makes a topic publishes to it; nothing of it may be seen in the next one of that name.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};
use quorate_client::{ClientError, Executed, Message, Reason, Topic, TopicSpec, TopicUpdate};

use super::{Course, PUBLISH_DEADLINE, Stage};
use crate::history::{Action, Phase, TopicOperation};
use crate::world::World;

/// Names of topics.
pub const NAMES: [&str; 3] = ["a", "b", "c"];

/// Clients that change them.
const PROCESSES: [&str; 3] = ["m1", "m2", "m3"];

/// The label that holds the value.
const VALUE: &str = "value";

const REPLICAS: u32 = 3;

/// How long the last look at a topic may take.
const LOOK_PATIENCE: Duration = Duration::from_secs(20);

/// Adds the processes.
pub fn start(world: &mut dyn World, course: &Course) {
    world.client("setup", set_up(course.clone()).boxed());
    for (number, process) in (1..).zip(PROCESSES) {
        world.client(process, change(course.clone(), process, number).boxed());
    }
    world.client("f1", look(course.clone(), "f1").boxed());
}

/// Waits until the nodes have registered, and lets the faults begin.
async fn set_up(course: Course) {
    while make(&course, "ready", 0).await.is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    course.enter(Stage::Faults);
}

async fn make(course: &Course, name: &str, value: u64) -> Result<Topic, ClientError> {
    let spec = TopicSpec { replication_factor: Some(REPLICAS), labels: labels(value), ..TopicSpec::named(name) };
    Ok(course.client()?.topics().create(spec).await?.topic)
}

fn labels(value: u64) -> BTreeMap<String, String> {
    BTreeMap::from([(VALUE.to_owned(), value.to_string())])
}

async fn change(course: Course, process: &'static str, number: u64) {
    let _work = course.begin_work();
    course.reached(Stage::Faults).await;
    let mut step = 0;
    while course.stage() <= Stage::Calm {
        step += 1;
        // Unique: what a topic was made or changed to says by whom and when.
        let value = step * 10 + number;
        let name = NAMES[fastrand::usize(..NAMES.len())];
        match fastrand::u8(..10) {
            0..4 => {
                if let Some(topic) = operate(&course, process, name, TopicOperation::Create { value }).await {
                    publish(&course, process, &topic, value).await;
                }
            }
            4..7 => _ = operate(&course, process, name, TopicOperation::Write { value }).await,
            _ => _ = operate(&course, process, name, TopicOperation::Delete).await,
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(10..200))).await;
    }
}

/// The topic as the broker describes it afterwards, if it does.
async fn operate(course: &Course, process: &str, name: &str, operation: TopicOperation) -> Option<Topic> {
    let action = |exists, why| Action::Topic { name: name.to_owned(), operation, exists, why };
    let op = course.recorder().invoke(process, action(None, String::new()));
    match execute(course, name, operation).await {
        Ok(topic) => {
            course.recorder().end(&op, Phase::Ok, action(None, String::new()));
            topic
        }
        Err(error) => {
            let phase = if error.executed() == Executed::No { Phase::Fail } else { Phase::Unknown };
            let exists = match phase {
                Phase::Fail if error.is(Reason::TopicExists) => Some(true),
                Phase::Fail if error.is(Reason::TopicNotFound) => Some(false),
                _ => None,
            };
            course.recorder().end(&op, phase, action(exists, error.to_string()));
            None
        }
    }
}

async fn execute(course: &Course, name: &str, operation: TopicOperation) -> Result<Option<Topic>, ClientError> {
    match operation {
        TopicOperation::Create { value } => make(course, name, value).await.map(Some),
        TopicOperation::Write { value } => {
            let update = TopicUpdate { labels: Some(labels(value)), ..TopicUpdate::default() };
            course.client()?.topics().update(name, update).await.map(Some)
        }
        TopicOperation::Delete => course.client()?.topics().delete(name).await.map(|()| None),
        TopicOperation::Look { .. } => course.client()?.topics().get(name).await.map(Some),
    }
}

async fn publish(course: &Course, process: &str, topic: &Topic, value: u64) {
    let message = format!("{}/{value}", topic.topic_id);
    let action =
        |why| Action::PublishTo { name: topic.name.clone(), topic: topic.topic_id, message: message.clone(), why };
    let op = course.recorder().invoke(process, action(String::new()));
    let sent = async {
        let client = course.client()?;
        let publisher = client.publisher(&topic.name).delivery_timeout(PUBLISH_DEADLINE / 2).build().await?;
        // Another may have taken its place meanwhile: a message for this one doesn't belong there.
        if publisher.topic_id() != topic.topic_id {
            return Ok(Phase::Fail);
        }
        let published = publisher.publish(Message::new(message.clone())).await;
        Ok::<Phase, ClientError>(match published {
            Ok(_) => Phase::Ok,
            Err(error) if error.is_unknown() => Phase::Unknown,
            Err(_) => Phase::Fail,
        })
    };
    let (phase, why) = match sent.await {
        Ok(phase) => (phase, String::new()),
        Err(error) => (Phase::Fail, error.to_string()),
    };
    course.recorder().end(&op, phase, action(why));
}

/// In the end: what there is, and what is in it.
async fn look(course: Course, process: &'static str) {
    course.reached(Stage::Final).await;
    for name in NAMES {
        let action = |value, why| Action::Topic {
            name: name.to_owned(),
            operation: TopicOperation::Look { value },
            exists: None,
            why,
        };
        let op = course.recorder().invoke(process, action(None, String::new()));
        let topic = match execute(&course, name, TopicOperation::Look { value: None }).await {
            Ok(topic) => topic,
            Err(error) if error.is(Reason::TopicNotFound) => None,
            Err(error) => {
                course.recorder().end(&op, Phase::Unknown, action(None, error.to_string()));
                continue;
            }
        };
        let value = topic.as_ref().and_then(|topic| topic.labels.get(VALUE)?.parse().ok());
        course.recorder().end(&op, Phase::Ok, action(value, String::new()));
        if let Some(topic) = topic {
            find(&course, process, &topic).await;
        }
    }
}

async fn find(course: &Course, process: &str, topic: &Topic) {
    let action = |id, messages, why| Action::Found { name: topic.name.clone(), topic: id, messages, why };
    let op = course.recorder().invoke(process, action(None, Vec::new(), String::new()));
    let mut messages = Vec::new();
    let read = async {
        let reader = course.client()?.reader(&topic.name).patience(LOOK_PATIENCE).stop_at_end();
        let mut reader = reader.build().await?;
        while let Some(received) = reader.next().await {
            messages.push(String::from_utf8_lossy(&received?.data).into_owned());
        }
        Ok::<(), ClientError>(())
    };
    match read.await {
        Ok(()) => {
            course.recorder().end(&op, Phase::Ok, action(Some(topic.topic_id), messages, String::new()));
        }
        Err(error) => course.recorder().end(&op, Phase::Unknown, action(None, messages, error.to_string())),
    }
}

//! The topic of the dead letters: who follows it all the time, and who reads all of it in the end.

use std::time::Duration;

use futures::StreamExt as _;
use quorate_client::{ClientError, ReceivedMessage, Start, TopicSpec};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::history::{Action, DeadLetter, Phase};
use crate::workload::log::{REPLICAS, what_was_seen};
use crate::workload::{Course, Stage};

/// Its name. It has one partition: every dead letter has a number.
pub(super) const TOPIC: &str = "dead";

/// How long a reader waits for a leader before it gives up.
const PATIENCE: Duration = Duration::from_secs(8);

/// The same once the faults are over, and how often it is tried.
const FINAL_PATIENCE: Duration = Duration::from_secs(20);
const FINAL_ATTEMPTS: usize = 3;

/// Makes the topic.
pub(super) async fn create_topic(course: &Course) {
    while create(course).await.is_err() {
        sleep(Duration::from_millis(100)).await;
    }
}

async fn create(course: &Course) -> Result<(), ClientError> {
    let spec = TopicSpec { partitions: Some(1), replication_factor: Some(REPLICAS), ..TopicSpec::named(TOPIC) };
    course.client()?.topics().create(spec).await.map(drop)
}

/// Notes every dead letter as it comes in, until it is over.
pub(super) async fn follow(course: Course, process: &'static str, mut over: watch::Receiver<bool>) {
    course.reached(Stage::Faults).await;
    let mut next = 0;
    let following = async {
        loop {
            // Why it ended doesn't matter: it goes on where it stopped.
            let _ = follow_from(&course, process, &mut next).await;
            sleep(Duration::from_millis(fastrand::u64(20..500))).await;
        }
    };
    tokio::select! {
        () = following => {}
        _ = over.wait_for(|over| *over) => {}
    }
}

async fn follow_from(course: &Course, process: &str, next: &mut u64) -> Result<(), ClientError> {
    let reader = course.client()?.reader(TOPIC).patience(PATIENCE).from(Start::Offset(*next));
    let mut reader = reader.build().await?;
    while let Some(received) = reader.next().await {
        let letter = letter(&received?);
        *next = letter.letter + 1;
        course.recorder().remark(process, Action::DeadLetter { letter });
    }
    Ok(())
}

/// In the end.
pub(super) async fn read_finally(course: &Course, process: &str) {
    let action = |seen, why| Action::DeadLetters { seen, why };
    let op = course.recorder().invoke(process, action(Vec::new(), String::new()));
    let mut why = String::new();
    for _ in 0..FINAL_ATTEMPTS {
        match read(course).await {
            Ok(seen) => return course.recorder().end(&op, Phase::Ok, action(seen, String::new())),
            Err(error) => why = error.to_string(),
        }
    }
    course.recorder().end(&op, Phase::Unknown, action(Vec::new(), why));
}

async fn read(course: &Course) -> Result<Vec<DeadLetter>, ClientError> {
    let reader = course.client()?.reader(TOPIC).patience(FINAL_PATIENCE).stop_at_end();
    let mut reader = reader.build().await?;
    let mut seen = Vec::new();
    while let Some(received) = reader.next().await {
        seen.push(letter(&received?));
    }
    Ok(seen)
}

/// What a record of the topic says of the message that it was. Where it says nothing, it is a message that nobody sent.
fn letter(received: &ReceivedMessage) -> DeadLetter {
    let said = |name: &str| {
        let attribute = received.attributes.iter().find(|(key, _)| key.strip_prefix("quorate.") == Some(name));
        attribute.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    DeadLetter {
        letter: received.offset,
        subscription: said("subscription"),
        message: what_was_seen(received).message,
        partition: said("source_partition").parse().unwrap_or(u32::MAX),
        offset: said("source_offset").parse().unwrap_or(u64::MAX),
        attempts: said("attempts").parse().unwrap_or(0),
    }
}

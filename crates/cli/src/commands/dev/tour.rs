//! The first message: a topic, something published, read back, and what to try next.

use crate::dev::cluster::DevCluster;
use crate::failure::Failure;
use crate::output::Output;
use futures::StreamExt;
use quorate_client::{Client, Message, Reason, Start, TopicSpec};
use serde::Serialize;
use std::env;

const TOPIC: &str = "hello";
const GREETING: &str = "Hello, Quorate";

#[derive(Serialize)]
struct Tour {
    servers: Vec<String>,
    topic: &'static str,
    partition: u32,
    offset: u64,
    data: String,
}

/// Publishes one message and reads it back, so that "ready" is more than a word.
pub(super) async fn take(cluster: &DevCluster, output: Output) -> Result<(), Failure> {
    let servers = cluster.client_addresses();
    let tour = greet(servers).await.map_err(|failure| failure.during("the first message"))?;
    output.result(&tour, || {
        format!(
            "published to topic {TOPIC} and read back from partition {} at offset {}: {}\n\n\
             Try next, in another terminal:\n{}\n\nCtrl-C ends the cluster.",
            tour.partition,
            tour.offset,
            tour.data,
            suggestions()
        )
    })
}

async fn greet(servers: Vec<String>) -> Result<Tour, Failure> {
    let client = Client::builder().servers(&servers).build()?;
    match client.topics().create(TopicSpec::named(TOPIC)).await {
        // A cluster whose data was kept has greeted before.
        Err(error) if !error.is(Reason::TopicExists) => return Err(error.into()),
        _ => {}
    }
    let published = client.publisher(TOPIC).build().await?.publish(Message::new(GREETING)).await;
    let published = published.map_err(|error| Failure::from(error.error().clone()))?;
    let start = Start::Offset(published.offset);
    let mut reader = client.reader(TOPIC).partition(published.partition, start).build().await?;
    let message = reader.next().await.ok_or_else(|| Failure::new("the reader ended before its first message"))??;
    let data = String::from_utf8_lossy(&message.data).into_owned();
    Ok(Tour { servers, topic: TOPIC, partition: message.partition, offset: message.offset, data })
}

fn suggestions() -> String {
    let mut lines = Vec::new();
    let program = env::current_exe().unwrap_or_default();
    let in_path =
        env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|folder| folder.join("quorate") == program));
    if !in_path {
        lines.push(format!("alias quorate={}", program.display()));
    }
    lines.extend(
        [
            "quorate topic create books --partitions 6",
            "quorate pub books --file Cargo.lock",
            "quorate dev kill leader",
            "quorate read books --from earliest --exit",
            "quorate cluster status",
        ]
        .map(str::to_owned),
    );
    lines.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

//! Publishes the lines of standard input to a topic, and tells failed from unknown.
//!
//! `cargo run -p quorate-client --example publish -- 127.0.0.1:50051 books < Cargo.lock`

use std::io::BufRead as _;

use futures::stream::{FuturesUnordered, StreamExt as _};
use quorate_client::{Client, Compression, Message, PublishError, Published};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(server), Some(topic)) = (arguments.next(), arguments.next()) else {
        return Err("usage: publish HOST:PORT TOPIC".into());
    };
    let client = Client::connect(server)?;
    let publisher = client.publisher(topic).compression(Compression::Lz4).build().await?;

    let mut receipts = FuturesUnordered::new();
    for line in std::io::stdin().lock().lines() {
        // Waits while the buffer is full: that is the back-pressure.
        receipts.push(publisher.send(Message::new(line?)).await?);
        // Outcomes are looked at as they come, so that the receipts don't pile up.
        while receipts.len() > 10_000 {
            report(receipts.next().await);
        }
    }
    while let Some(outcome) = receipts.next().await {
        report(Some(outcome));
    }

    let totals = publisher.close().await;
    println!("published {}, failed {}, unknown {}", totals.published, totals.failed, totals.unknown);
    Ok(())
}

fn report(outcome: Option<Result<Published, PublishError>>) {
    match outcome {
        Some(Err(error @ PublishError::Failed { .. })) => eprintln!("{error}; publishing it again is safe"),
        Some(Err(error @ PublishError::Unknown { .. })) => eprintln!("{error}; read back before publishing it again"),
        Some(Ok(_)) | None => {}
    }
}

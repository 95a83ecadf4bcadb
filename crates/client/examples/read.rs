//! Reads a topic from its beginning to its present end; with `follow`, goes on from there.
//!
//! `cargo run -p quorate-client --example read -- 127.0.0.1:50051 books [follow]`

use futures::StreamExt as _;
use quorate_client::{Client, Start};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(server), Some(topic)) = (arguments.next(), arguments.next()) else {
        return Err("usage: read HOST:PORT TOPIC [follow]".into());
    };
    let follow = arguments.next().is_some_and(|argument| argument == "follow");
    let client = Client::connect(server)?;
    let reader = client.reader(topic).from(Start::Earliest);
    let mut reader = if follow { reader.build().await? } else { reader.stop_at_end().build().await? };

    while let Some(message) = reader.next().await {
        let message = message?;
        let text = String::from_utf8_lossy(&message.data);
        println!("{}/{}\t{text}", message.partition, message.offset);
    }
    eprintln!("to continue later, start at {:?}", reader.positions());
    Ok(())
}

//! Knows one address, and shows who leads what; prints a line whenever a leader changes.
//!
//! `cargo run -p quorate-client --example leader_discovery -- 127.0.0.1:50051`, then stop a node.

use std::collections::BTreeMap;

use futures::StreamExt as _;
use quorate_client::Client;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = std::env::args().nth(1).ok_or("usage: leader_discovery HOST:PORT")?;
    let client = Client::connect(server)?;

    let mut known = BTreeMap::new();
    let mut views = client.cluster().watch();
    while let Some(view) = views.next().await {
        for (name, topic) in &view.topics {
            for (partition, placement) in topic.partitions.iter().enumerate() {
                let leadership = placement.leadership;
                if known.insert((topic.id, partition), leadership) == Some(leadership) {
                    continue;
                }
                match leadership.node.and_then(|node| view.nodes.get(&node)) {
                    Some(node) => println!("{name}/{partition}: {} leads, term {}", node.address, leadership.term),
                    None => println!("{name}/{partition}: no leader, term {}", leadership.term),
                }
            }
        }
    }
    Ok(())
}

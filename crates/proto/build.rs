//! Compiles `proto/` with protox, so that no system `protoc` is needed.

use std::path::PathBuf;

const FILES: [&str; 10] = [
    "quorate/v1/message.proto",
    "quorate/v1/messages.proto",
    "quorate/v1/publisher.proto",
    "quorate/v1/reader.proto",
    "quorate/v1/subscriber.proto",
    "quorate/v1/subscription.proto",
    "quorate/v1/topic.proto",
    "quorate/v1/cluster.proto",
    "quorate/internal/v1/raft.proto",
    "quorate/internal/v1/node.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let descriptors = protox::compile(FILES, [&root])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // Reflection serves the public surface only.
    let mut public = descriptors.clone();
    public.file.retain(|file| !file.package().starts_with("quorate.internal"));
    std::fs::write(out.join("descriptors.bin"), prost::Message::encode_to_vec(&public))?;
    tonic_prost_build::configure().bytes(".").btree_map(".").compile_fds(descriptors)?;
    Ok(())
}

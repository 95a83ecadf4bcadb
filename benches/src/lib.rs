//! Measurements, of parts and of whole clusters. Compare figures of one run on one machine only: as ratios,
//! before and after a change.
//!
//! Micro-benchmarks of the parts that every message passes; run `cargo bench -p quorate-benches`:
//! - `model`: record batch, encodings, partition machine, placement
//! - `storage`: group commit on RocksDB, with the fsync that an acknowledgement waits for
//! - `engine`: rows of the database below it
//!
//! Clusters of processes; run `cargo xtask bench`:
//! - [`failover`]: how long publishing stops when nodes die, freeze, or are restarted
//! - [`idle`]: what an unused cluster costs
//! - [`sweep`]: throughput and latency against one thing that grows; with plots
//! - [`cluster`], [`usage`], [`figures`]: the processes, what they use, and how figures are printed
//!
//! The same load on other brokers is in `peers/`, a workspace of its own.

pub mod cluster;
pub mod failover;
pub mod failure;
pub mod figures;
pub mod idle;
mod plot;
pub mod sweep;
pub mod usage;

use bytes::Bytes;
use quorate_model::{
    BatchError, Codec, PartitionId, ProducerId, ProducerStamp, Record, RecordBatch, RecordBatchBuilder, TopicId,
};

/// The partition that all benchmarks write to.
pub const PARTITION: PartitionId = PartitionId::new(TopicId::new(1), 0);

/// A message of `bytes` bytes that compresses about as well as text does.
#[must_use]
pub fn record(bytes: usize) -> Record {
    const TEXT: &[u8] = b"the quick brown fox jumps over the lazy dog; pack my box with five dozen jugs. ";
    let data: Bytes = TEXT.iter().copied().cycle().take(bytes).collect();
    Record::new(1_700_000_000_000, "key", [], data)
}

/// A batch as the SDK would send it: `records` messages of `bytes` bytes, with a producer's `sequence`.
///
/// # Errors
/// If the sizes exceed the limits of a batch.
pub fn batch(codec: Codec, records: usize, bytes: usize, sequence: u64) -> Result<RecordBatch, BatchError> {
    let producer = ProducerStamp { id: ProducerId::new(7), epoch: 0, base_sequence: sequence };
    let mut builder = RecordBatchBuilder::new(PARTITION, codec, Some(producer));
    for _ in 0..records {
        builder.push(record(bytes))?;
    }
    builder.build()
}

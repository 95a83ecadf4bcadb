//! What both ways of publishing share: a checked batch becomes a command, a reply becomes an answer.

use bytes::Bytes;
use quorate_model::{Appended, PartitionCommand, RecordBatch, Reply};

use super::error::ApiError;
use crate::front::{Front, Partition};

/// Checks a batch that a client made: its checksum (which covers the partition), its structure, and each of its
/// messages against the limits.
pub(crate) fn check(bytes: Bytes, partition: &Partition) -> Result<RecordBatch, ApiError> {
    let batch = RecordBatch::decode(bytes, partition.id)?;
    batch.check_records(partition.max_message_bytes)?;
    Ok(batch)
}

/// The command that appends a batch, stamped with this node's time.
pub(crate) fn command(front: &Front, batch: &RecordBatch) -> Bytes {
    let time_ms = front.env.wall_clock_ms();
    PartitionCommand::Append { time_ms, batch: batch.bytes().clone() }.encode()
}

/// The partition's answer to an append.
pub(crate) fn appended(reply: Reply) -> Result<Appended, ApiError> {
    match reply {
        Reply::Partition(outcome) => outcome.map_err(ApiError::from),
        Reply::Meta(_)
        | Reply::LogStart(_)
        | Reply::Subscription(_)
        | Reply::Released(_)
        | Reply::Deleted(_)
        | Reply::Seeked(_) => Err(ApiError::internal("the partition answered what it wasn't asked")),
        Reply::Refused(why) => Err(ApiError::internal(format!("the partition can't read the command: {why}"))),
    }
}

//! Why bytes are no record batch, or records can't become one.

use serde::{Deserialize, Serialize};

use crate::batch::header::FORMAT_VERSION;
use crate::limits::BATCH_RECORDS_MAX;
use crate::reason::Reason;
use crate::record::RecordError;

/// One fact for each way in which a batch can be wrong. Numbers are fixed-width, because the error
/// travels between nodes inside a rejected append.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than the batch needs.
    #[error("batch is cut short: it needs {need} bytes and has {have}")]
    Truncated {
        /// Bytes needed.
        need: u64,
        /// Bytes present.
        have: u64,
    },
    /// More bytes than the batch says it has.
    #[error("batch says it has {need} bytes and is followed by {extra} more")]
    Trailing {
        /// Bytes that the header announces.
        need: u64,
        /// Bytes beyond them.
        extra: u64,
    },
    /// A layout that this version doesn't know.
    #[error("batch has format version {actual}, known is {FORMAT_VERSION}")]
    Version {
        /// The version found.
        actual: u8,
    },
    /// A codec that this version doesn't know.
    #[error("batch has codec {actual}, known are 0 (none), 1 (lz4) and 2 (zstd)")]
    Codec {
        /// The byte found.
        actual: u8,
    },
    /// Flags that this version doesn't know, or that don't go together.
    #[error("batch has the flags {actual:#06x}, known are 0 (none), 1 (options) and 3 (options and lanes)")]
    Flags {
        /// The value found.
        actual: u16,
    },
    /// The records aren't as the flags say.
    #[error("batch has the flags {actual:#06x} and its records give {expected:#06x}")]
    FlagsMismatch {
        /// What the header says.
        actual: u16,
        /// What the records give.
        expected: u16,
    },
    /// The checksum doesn't match: the bytes changed on the way, or were made for another partition.
    #[error(
        "batch checksum is {expected:#010x} and its bytes give {actual:#010x}: \
         it was damaged, or made for another partition"
    )]
    Crc {
        /// What the header says.
        expected: u32,
        /// What the bytes give.
        actual: u32,
    },
    /// Too many bytes, before or after compression.
    #[error("batch has {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// Size given.
        bytes: u64,
        /// Size allowed.
        limit: u64,
    },
    /// No records.
    #[error("batch has no records; it needs 1 to {BATCH_RECORDS_MAX}")]
    Empty,
    /// Too many records.
    #[error("batch has {count} records, the limit is {BATCH_RECORDS_MAX}")]
    TooManyRecords {
        /// Number given.
        count: u64,
    },
    /// The header's time span is upside down.
    #[error("batch has base timestamp {base_ms} ms after its greatest timestamp {max_ms} ms")]
    Timestamps {
        /// The header's smallest timestamp.
        base_ms: u64,
        /// The header's greatest timestamp.
        max_ms: u64,
    },
    /// Epoch or sequence without a producer.
    #[error("batch has producer epoch {epoch} and sequence {base_sequence} without a producer id")]
    StampWithoutProducer {
        /// The epoch found.
        epoch: u32,
        /// The sequence found.
        base_sequence: u64,
    },
    /// A stamp whose producer id is zero, which means no producer.
    #[error("producer id is 0, which stands for no producer")]
    ProducerZero,
    /// The producer's sequences would leave the number line.
    #[error("batch has base sequence {base_sequence} and {count} records, which overflows")]
    SequenceOverflow {
        /// First sequence.
        base_sequence: u64,
        /// Records.
        count: u32,
    },
    /// The payload can't be decompressed, or not to the announced length.
    #[error("batch payload does not decompress to the announced {expected} bytes: {detail}")]
    Decompress {
        /// Length that the header announces.
        expected: u64,
        /// What the decompressor found.
        detail: String,
    },
    /// The compressor failed.
    #[error("batch payload could not be compressed: {detail}")]
    Compress {
        /// What the compressor said.
        detail: String,
    },
    /// A field of a record can't be read.
    #[error("record {index} of the batch: {field} is malformed or cut short")]
    Malformed {
        /// Which record, from zero.
        index: u32,
        /// The field.
        field: RecordField,
    },
    /// Offset deltas must count 0, 1, 2, …
    #[error("record {index} of the batch has offset delta {actual}")]
    OffsetDelta {
        /// Which record, from zero; also the delta expected.
        index: u32,
        /// The delta found.
        actual: u64,
    },
    /// A record lies outside the header's time span, or the records don't fill it.
    #[error("the batch's timestamps do not span {base_ms} to {max_ms} ms as its header says")]
    TimestampSpan {
        /// The header's smallest timestamp.
        base_ms: u64,
        /// The header's greatest timestamp.
        max_ms: u64,
    },
    /// Bytes after the last record.
    #[error("batch payload has {extra} bytes after its last record")]
    TrailingPayload {
        /// How many.
        extra: u64,
    },
    /// A record breaks a limit.
    #[error("record {index} of the batch: {error}")]
    Record {
        /// Which record, from zero.
        index: u32,
        /// What is wrong with it.
        error: RecordError,
    },
}

/// A field of an encoded record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecordField {
    /// Distance from the batch's base offset.
    OffsetDelta,
    /// Distance from the batch's base timestamp.
    TimestampDelta,
    /// The ordering key.
    OrderingKey,
    /// The number of attributes, a key or a value.
    Attributes,
    /// Priority, time of delivery, time of expiry.
    Options,
    /// The payload.
    Data,
}

impl std::fmt::Display for RecordField {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            RecordField::OffsetDelta => "offset_delta",
            RecordField::TimestampDelta => "timestamp_delta",
            RecordField::OrderingKey => "ordering_key",
            RecordField::Attributes => "attributes",
            RecordField::Options => "options",
            RecordField::Data => "data",
        })
    }
}

impl BatchError {
    /// The entry of the error table.
    pub fn reason(&self) -> Reason {
        match self {
            BatchError::Empty => Reason::EmptyBatch,
            BatchError::TooLarge { .. } => Reason::BatchTooLarge,
            BatchError::TooManyRecords { .. } => Reason::TooManyMessages,
            BatchError::ProducerZero
            | BatchError::SequenceOverflow { .. }
            | BatchError::StampWithoutProducer { .. } => Reason::InvalidArgument,
            BatchError::Compress { .. } => Reason::Internal,
            BatchError::Record { error, .. } => error.reason(),
            _ => Reason::CorruptBatch,
        }
    }

    /// Facts for a program: the field, and the value and limit where there is one.
    pub fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            BatchError::Record { index, error } => {
                let mut facts = error.metadata();
                facts.push(("record", index.to_string()));
                facts
            }
            BatchError::TooLarge { bytes, limit } => {
                vec![("field", "batch".to_owned()), ("value", bytes.to_string()), ("limit", limit.to_string())]
            }
            BatchError::TooManyRecords { count } => vec![
                ("field", "batch".to_owned()),
                ("value", count.to_string()),
                ("limit", BATCH_RECORDS_MAX.to_string()),
            ],
            _ => vec![("field", "batch".to_owned())],
        }
    }
}

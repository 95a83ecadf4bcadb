//! The record batch: what a producer sends, what the log stores, what replicas exchange and what a
//! reader receives are the same bytes. The layout is in `docs/record-batch.md`.

mod builder;
mod compression;
mod error;
mod header;
mod payload;

pub use builder::RecordBatchBuilder;
pub use error::BatchError;
pub use header::{BatchFlags, BatchHeader, Codec, FORMAT_VERSION, HEADER_BYTES, ProducerStamp};

use bytes::Bytes;

use crate::ids::PartitionId;
use crate::limits::{BATCH_BYTES_MAX, MESSAGE_BYTES_CAP};
use crate::record::Record;

/// A record batch whose header has been read. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordBatch {
    header: BatchHeader,
    bytes: Bytes,
}

impl RecordBatch {
    /// Reads bytes from outside: checks the structure of the header and the checksum, which also proves
    /// that the batch was made for this partition.
    ///
    /// A matching checksum says that the bytes are what their maker meant, not that the maker meant
    /// well: the front door also calls [`RecordBatch::check_records`].
    pub fn decode(bytes: Bytes, partition: PartitionId) -> Result<RecordBatch, BatchError> {
        let batch = RecordBatch::trusted(bytes)?;
        let actual = header::checksum(&batch.bytes, partition);
        let expected = batch.header.crc;
        if actual != expected {
            return Err(BatchError::Crc { expected, actual });
        }
        Ok(batch)
    }

    /// Reads bytes that were verified before: checks the structure of the header only.
    pub fn trusted(bytes: Bytes) -> Result<RecordBatch, BatchError> {
        // Before anything is read, so that no later step sees more than the bound.
        if bytes.len() > BATCH_BYTES_MAX {
            return Err(BatchError::TooLarge { bytes: bytes.len() as u64, limit: BATCH_BYTES_MAX as u64 });
        }
        let header = BatchHeader::read(&bytes)?;
        Ok(RecordBatch { header, bytes })
    }

    /// The batch as it is stored and sent.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// What the header says.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// Size as it is stored and sent.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The records, decompressed if need be. The `n`-th record's offset is the batch's base offset plus `n`.
    ///
    /// Keys and data are slices of one buffer: of the batch itself where it isn't compressed.
    pub fn records(&self) -> Result<Vec<Record>, BatchError> {
        payload::read_records(&self.header, &self.payload()?, MESSAGE_BYTES_CAP)
    }

    /// Whether every record can be read and keeps every limit, including the topic's own on the size of a
    /// message.
    pub fn check_records(&self, message_bytes_max: u64) -> Result<(), BatchError> {
        payload::check_records(&self.header, &self.payload()?, message_bytes_max)
    }

    fn payload(&self) -> Result<Bytes, BatchError> {
        let stored = self.bytes.slice(HEADER_BYTES..);
        compression::decompress(self.header.codec, stored, self.header.uncompressed_len)
    }
}

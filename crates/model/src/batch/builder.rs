//! Making a batch out of records.

use crate::batch::header::{BatchHeader, HEADER_BYTES};
use crate::batch::{BatchError, Codec, ProducerStamp, RecordBatch, compression, payload};
use crate::ids::PartitionId;
use crate::limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, MESSAGE_BYTES_CAP};
use crate::record::Record;

/// Collects records for one partition.
#[derive(Debug)]
pub struct RecordBatchBuilder {
    partition: PartitionId,
    codec: Codec,
    producer: Option<ProducerStamp>,
    records: Vec<Record>,
    bytes_estimate: usize,
}

impl RecordBatchBuilder {
    /// An empty batch. `codec` is a wish: a payload that compression doesn't make smaller is stored as it is.
    pub fn new(partition: PartitionId, codec: Codec, producer: Option<ProducerStamp>) -> Self {
        Self { partition, codec, producer, records: Vec::new(), bytes_estimate: HEADER_BYTES }
    }

    /// Adds a record. On an error the batch is as before; ask [`RecordBatchBuilder::has_room`] first to
    /// keep the record.
    pub fn push(&mut self, record: Record) -> Result<(), BatchError> {
        let index = u32::try_from(self.records.len()).expect("a batch's record count is bounded");
        record.validate(MESSAGE_BYTES_CAP).map_err(|error| BatchError::Record { index, error })?;
        if self.records.len() == BATCH_RECORDS_MAX {
            return Err(BatchError::TooManyRecords { count: BATCH_RECORDS_MAX as u64 + 1 });
        }
        let bytes = self.bytes_estimate + payload::record_bytes_max(&record);
        if bytes > BATCH_BYTES_MAX {
            return Err(BatchError::TooLarge { bytes: bytes as u64, limit: BATCH_BYTES_MAX as u64 });
        }
        self.bytes_estimate = bytes;
        self.records.push(record);
        Ok(())
    }

    /// Whether the batch can take this record without breaking a bound of the batch.
    pub fn has_room(&self, record: &Record) -> bool {
        self.records.len() < BATCH_RECORDS_MAX
            && self.bytes_estimate + payload::record_bytes_max(record) <= BATCH_BYTES_MAX
    }

    /// Number of records so far.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are no records yet.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Size of the batch without compression; never too small, and too large by a few bytes a record.
    pub fn bytes_estimate(&self) -> usize {
        self.bytes_estimate
    }

    /// Encodes, compresses and seals the batch.
    pub fn build(self) -> Result<RecordBatch, BatchError> {
        let timestamps = || self.records.iter().map(|record| record.timestamp_ms);
        let (Some(base_timestamp_ms), Some(max_timestamp_ms)) = (timestamps().min(), timestamps().max()) else {
            return Err(BatchError::Empty);
        };
        let mut batch = Vec::with_capacity(self.bytes_estimate);
        batch.resize(HEADER_BYTES, 0);
        let flags = payload::flags(self.records.iter().map(|record| &record.options));
        let mut count = 0;
        for record in &self.records {
            payload::put_record(&mut batch, record, count, base_timestamp_ms, flags);
            count += 1;
        }
        let uncompressed_len = u32::try_from(batch.len() - HEADER_BYTES).expect("the estimate bounds the payload");
        let compressed = compression::compress(self.codec, &batch[HEADER_BYTES..])?;
        let codec = match compressed {
            Some(compressed) => {
                batch.truncate(HEADER_BYTES);
                batch.extend_from_slice(&compressed);
                self.codec
            }
            None => Codec::None,
        };
        let header = BatchHeader {
            codec,
            flags,
            crc: 0,
            count,
            base_timestamp_ms,
            max_timestamp_ms,
            producer: self.producer,
            uncompressed_len,
        };
        let (header, bytes) = header.seal(batch, self.partition)?;
        Ok(RecordBatch { header, bytes })
    }
}

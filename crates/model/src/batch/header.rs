//! The fixed head of a record batch. All numbers are little-endian.
//!
//! ```text
//!  0        4       5      6         8     12      16         24        32        40      44         52          56
//!  | length | version | codec | flags    | crc | count | base time | max time | producer | epoch | sequence | uncompressed | payload…
//! ```

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};
use serde::{Deserialize, Serialize};

use crate::batch::BatchError;
use crate::ids::{PartitionId, ProducerId};
use crate::limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX};

/// The layout that this version writes, and the only one it reads.
pub const FORMAT_VERSION: u8 = 1;
/// Size of the header; the payload follows.
pub const HEADER_BYTES: usize = 56;

/// Where the checksum stands. It covers every other byte of the batch.
const CRC_AT: std::ops::Range<usize> = 8..12;

/// How a payload is compressed. The numbers stand in stored bytes and never change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Codec {
    /// Not at all.
    #[default]
    None = 0,
    /// An LZ4 block.
    Lz4 = 1,
    /// A Zstandard frame.
    Zstd = 2,
}

impl Codec {
    fn from_byte(byte: u8) -> Result<Codec, BatchError> {
        match byte {
            0 => Ok(Codec::None),
            1 => Ok(Codec::Lz4),
            2 => Ok(Codec::Zstd),
            actual => Err(BatchError::Codec { actual }),
        }
    }
}

/// What makes a batch recognisable when it is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProducerStamp {
    /// The producer; not zero.
    pub id: ProducerId,
    /// A producer that restarts under the same id takes a higher epoch, which fences off its former self.
    pub epoch: u32,
    /// Number of the batch's first record among all that the producer sent to this partition in this epoch.
    pub base_sequence: u64,
}

/// What is special about the records of a batch: two bits, the others are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchFlags {
    /// Bit 0. Some record has [`DeliveryOptions`](crate::DeliveryOptions), and every record says which.
    pub options: bool,
    /// Bit 1, only with bit 0. Some record has a place of its own besides the one in the log.
    pub lanes: bool,
}

impl BatchFlags {
    pub(super) fn bits(self) -> u16 {
        u16::from(self.options) | u16::from(self.lanes) << 1
    }

    fn from_bits(bits: u16) -> Result<BatchFlags, BatchError> {
        let flags = BatchFlags { options: bits & 1 != 0, lanes: bits & 2 != 0 };
        if flags.bits() != bits || (flags.lanes && !flags.options) {
            return Err(BatchError::Flags { actual: bits });
        }
        Ok(flags)
    }
}

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// How the payload is compressed.
    pub codec: Codec,
    /// What is special about the records.
    pub flags: BatchFlags,
    /// The checksum, as stored.
    pub crc: u32,
    /// Number of records, at least one.
    pub count: u32,
    /// The smallest timestamp of any record.
    pub base_timestamp_ms: u64,
    /// The greatest timestamp of any record.
    pub max_timestamp_ms: u64,
    /// The producer's stamp, for idempotent producers.
    pub producer: Option<ProducerStamp>,
    /// Length of the payload before compression.
    pub uncompressed_len: u32,
}

impl BatchHeader {
    /// Reads and checks the header of a whole batch; the checksum is left to the caller.
    pub(super) fn read(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        let have = bytes.len();
        let Some(head) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(truncated(HEADER_BYTES, have));
        };
        // The version comes first: of any other field, another version may think differently.
        if head[4] != FORMAT_VERSION {
            return Err(BatchError::Version { actual: head[4] });
        }
        let need = u32_at(head, 0) as usize;
        if need > have {
            return Err(truncated(need, have));
        }
        if need < have {
            return Err(BatchError::Trailing { need: need as u64, extra: (have - need) as u64 });
        }
        let codec = Codec::from_byte(head[5])?;
        let header = BatchHeader {
            codec,
            flags: BatchFlags::from_bits(u16::from_le_bytes([head[6], head[7]]))?,
            crc: u32_at(head, CRC_AT.start),
            count: u32_at(head, 12),
            base_timestamp_ms: u64_at(head, 16),
            max_timestamp_ms: u64_at(head, 24),
            producer: stamp(u64_at(head, 32), u32_at(head, 40), u64_at(head, 44))?,
            uncompressed_len: u32_at(head, 52),
        };
        header.check(have - HEADER_BYTES)?;
        Ok(header)
    }

    /// What must hold between the fields, whether they were read or are about to be written.
    fn check(&self, payload_bytes: usize) -> Result<(), BatchError> {
        if self.count == 0 {
            return Err(BatchError::Empty);
        }
        if self.count as usize > BATCH_RECORDS_MAX {
            return Err(BatchError::TooManyRecords { count: u64::from(self.count) });
        }
        if self.base_timestamp_ms > self.max_timestamp_ms {
            return Err(BatchError::Timestamps { base_ms: self.base_timestamp_ms, max_ms: self.max_timestamp_ms });
        }
        if let Some(ProducerStamp { base_sequence, .. }) = self.producer
            && base_sequence.checked_add(u64::from(self.count)).is_none()
        {
            return Err(BatchError::SequenceOverflow { base_sequence, count: self.count });
        }
        let uncompressed = self.uncompressed_len as usize;
        if uncompressed > BATCH_BYTES_MAX {
            return Err(BatchError::TooLarge { bytes: uncompressed as u64, limit: BATCH_BYTES_MAX as u64 });
        }
        if self.codec == Codec::None && uncompressed != payload_bytes {
            return Err(BatchError::Decompress {
                expected: uncompressed as u64,
                detail: format!("it is not compressed and has {payload_bytes}"),
            });
        }
        Ok(())
    }

    /// Puts the header in front of a payload and seals both with the checksum. `batch` begins with
    /// [`HEADER_BYTES`] of room; the `crc` field of `self` is ignored.
    pub(super) fn seal(
        mut self,
        mut batch: Vec<u8>,
        partition: PartitionId,
    ) -> Result<(BatchHeader, Bytes), BatchError> {
        let length = u32::try_from(batch.len())
            .ok()
            .filter(|length| *length as usize <= BATCH_BYTES_MAX)
            .ok_or(BatchError::TooLarge { bytes: batch.len() as u64, limit: BATCH_BYTES_MAX as u64 })?;
        self.check(batch.len() - HEADER_BYTES)?;
        let (id, epoch, base_sequence) = match self.producer {
            Some(stamp) if stamp.id.get() == 0 => return Err(BatchError::ProducerZero),
            Some(stamp) => (stamp.id.get(), stamp.epoch, stamp.base_sequence),
            None => (0, 0, 0),
        };
        batch[0..4].copy_from_slice(&length.to_le_bytes());
        batch[4] = FORMAT_VERSION;
        batch[5] = self.codec as u8;
        batch[6..8].copy_from_slice(&self.flags.bits().to_le_bytes());
        batch[8..12].fill(0);
        batch[12..16].copy_from_slice(&self.count.to_le_bytes());
        batch[16..24].copy_from_slice(&self.base_timestamp_ms.to_le_bytes());
        batch[24..32].copy_from_slice(&self.max_timestamp_ms.to_le_bytes());
        batch[32..40].copy_from_slice(&id.to_le_bytes());
        batch[40..44].copy_from_slice(&epoch.to_le_bytes());
        batch[44..52].copy_from_slice(&base_sequence.to_le_bytes());
        batch[52..56].copy_from_slice(&self.uncompressed_len.to_le_bytes());
        self.crc = checksum(&batch, partition);
        batch[CRC_AT].copy_from_slice(&self.crc.to_le_bytes());
        Ok((self, Bytes::from(batch)))
    }
}

/// CRC-32C over the partition's identity and every byte of the batch but the checksum itself.
///
/// The identity is covered and not stored, so that a batch that storage or a bug brought to another
/// partition can't be taken for one of its own.
pub(super) fn checksum(batch: &[u8], partition: PartitionId) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(&partition.topic.get().to_le_bytes());
    digest.update(&partition.index.to_le_bytes());
    digest.update(&batch[..CRC_AT.start]);
    digest.update(&batch[CRC_AT.end..]);
    u32::try_from(digest.finalize()).expect("a 32-bit checksum has 32 bits")
}

fn stamp(id: u64, epoch: u32, base_sequence: u64) -> Result<Option<ProducerStamp>, BatchError> {
    if id != 0 {
        return Ok(Some(ProducerStamp { id: ProducerId::new(id), epoch, base_sequence }));
    }
    if epoch != 0 || base_sequence != 0 {
        return Err(BatchError::StampWithoutProducer { epoch, base_sequence });
    }
    Ok(None)
}

fn truncated(need: usize, have: usize) -> BatchError {
    BatchError::Truncated { need: need as u64, have: have as u64 }
}

fn u32_at(head: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(head: &[u8; HEADER_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"))
}

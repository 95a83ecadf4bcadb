//! The offset index: where in the log an offset stands.
//!
//! Offsets count records, log indices count entries, and some entries hold no records: blank ones,
//! membership changes, rejected and duplicate appends. A segment says for up to 64 consecutive entries
//! which of them are accepted appends. Within it, a reader adds up the batches' record counts.
//!
//! ```text
//! log index    100   101   102    103   104        first_index 100, entries 5
//! entry        10r   blank dup    5r    3r         accepted    0b11001
//! offsets      0–9                10–14 15–17      offsets     0..18
//! ```

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::codec::CodecError;
use crate::ids::Offset;
use crate::limits::{SEGMENT_BYTES, SEGMENT_ENTRIES_MAX};

const ROW_VERSION: u8 = 1;
const ROW_BYTES: usize = 1 + 6 * 8 + 4;

/// One row of the offset index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexSegment {
    /// The first log index that it covers.
    pub first_index: u64,
    /// Offset of the first record in it.
    pub base_offset: Offset,
    /// Bit `i`: the entry at `first_index + i` is an accepted append.
    pub accepted: u64,
    /// How many log indices it covers.
    pub entries: u32,
    /// The offset after the last record in it.
    pub end_offset: Offset,
    /// The greatest timestamp of any record in it.
    pub max_timestamp_ms: u64,
    /// Bytes of the accepted batches.
    pub bytes: u64,
}

impl IndexSegment {
    /// A segment that covers nothing yet.
    pub fn empty(first_index: u64, base_offset: Offset) -> Self {
        Self {
            first_index,
            base_offset,
            accepted: 0,
            entries: 0,
            end_offset: base_offset,
            max_timestamp_ms: 0,
            bytes: 0,
        }
    }

    /// Whether there are no records in it.
    pub fn is_empty(&self) -> bool {
        self.accepted == 0
    }

    /// The log indices that it covers.
    pub fn indices(&self) -> Range<u64> {
        self.first_index..self.first_index + u64::from(self.entries)
    }

    /// The offsets of the records in it.
    pub fn offsets(&self) -> Range<Offset> {
        self.base_offset..self.end_offset
    }

    /// Whether the entry at this log index is an accepted append.
    pub fn is_accepted(&self, index: u64) -> bool {
        self.indices().contains(&index) && self.accepted >> (index - self.first_index) & 1 == 1
    }

    /// Log indices of the accepted appends, in order.
    pub fn accepted_indices(&self) -> impl Iterator<Item = u64> + use<> {
        let segment = *self;
        segment.indices().filter(move |index| segment.is_accepted(*index))
    }

    /// The row as it is stored: a version byte, then the fields in their order, little-endian.
    pub fn encode(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(ROW_BYTES);
        row.push(ROW_VERSION);
        row.extend(self.first_index.to_le_bytes());
        row.extend(self.base_offset.get().to_le_bytes());
        row.extend(self.accepted.to_le_bytes());
        row.extend(self.entries.to_le_bytes());
        row.extend(self.end_offset.get().to_le_bytes());
        row.extend(self.max_timestamp_ms.to_le_bytes());
        row.extend(self.bytes.to_le_bytes());
        row
    }

    /// Reads a row.
    pub fn decode(row: &[u8]) -> Result<Self, CodecError> {
        const WHAT: &str = "index segment";
        let Some((&actual, fields)) = row.split_first() else {
            return Err(CodecError::Empty { what: WHAT });
        };
        if actual != ROW_VERSION {
            return Err(CodecError::Version { what: WHAT, actual, known: ROW_VERSION });
        }
        if row.len() < ROW_BYTES {
            return Err(CodecError::Truncated { what: WHAT, need: ROW_BYTES, have: row.len() });
        }
        if row.len() > ROW_BYTES {
            return Err(CodecError::Trailing { what: WHAT, extra: row.len() - ROW_BYTES });
        }
        let u64_at = |at: usize| u64::from_le_bytes(fields[at..at + 8].try_into().expect("8 bytes"));
        Ok(Self {
            first_index: u64_at(0),
            base_offset: Offset::new(u64_at(8)),
            accepted: u64_at(16),
            entries: u32::from_le_bytes(fields[24..28].try_into().expect("4 bytes")),
            end_offset: Offset::new(u64_at(28)),
            max_timestamp_ms: u64_at(36),
            bytes: u64_at(44),
        })
    }

    /// Whether the bitmap reaches `index`. A segment that covers nothing takes any first index.
    pub(super) fn has_room_for(&self, index: u64) -> bool {
        index.checked_sub(self.first_index).is_some_and(|distance| distance < u64::from(SEGMENT_ENTRIES_MAX))
    }

    pub(super) fn is_full(&self) -> bool {
        self.entries >= SEGMENT_ENTRIES_MAX || self.bytes >= SEGMENT_BYTES
    }

    pub(super) fn push_skipped(&mut self, index: u64) {
        assert!(index >= self.indices().end && self.has_room_for(index));
        let distance = index - self.first_index;
        self.entries = u32::try_from(distance + 1).expect("a segment covers few entries");
    }

    pub(super) fn push_accepted(&mut self, index: u64, end: Offset, max_timestamp_ms: u64, bytes: u64) {
        assert!(end > self.end_offset, "an accepted batch has records");
        self.push_skipped(index);
        self.accepted |= 1 << (index - self.first_index);
        self.end_offset = end;
        self.max_timestamp_ms = self.max_timestamp_ms.max(max_timestamp_ms);
        self.bytes += bytes;
    }
}

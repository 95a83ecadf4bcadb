use bytes::{BufMut, Bytes, BytesMut};

use crate::engine::Table;
use crate::error::StorageError;

/// Names one log entry. A term has one leader at most, and so one entry at an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryId {
    /// The term in which it was proposed.
    pub term: u64,
    /// Its place in the log, from 0.
    pub index: u64,
}

impl EntryId {
    pub(crate) const BYTES: usize = 16;

    /// Two little-endian integers: term, index.
    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.term.to_le_bytes());
        bytes[8..].copy_from_slice(&self.index.to_le_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<EntryId> {
        let (term, rest) = bytes.split_first_chunk()?;
        let index = rest.try_into().ok()?;
        Some(EntryId { term: u64::from_le_bytes(*term), index: u64::from_le_bytes(index) })
    }
}

/// What an entry is for. The numbers are on disk: never change one, never use a retired one again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum EntryKind {
    /// A new leader's first entry; no body.
    Blank = 0,
    /// A command for the state machine.
    Command = 1,
    /// A change of the group's members.
    Membership = 2,
}

impl EntryKind {
    /// The kind with this tag byte.
    pub fn from_byte(byte: u8) -> Option<EntryKind> {
        match byte {
            0 => Some(EntryKind::Blank),
            1 => Some(EntryKind::Command),
            2 => Some(EntryKind::Membership),
            _ => None,
        }
    }
}

/// One entry of a replica's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Its name.
    pub id: EntryId,
    /// What it is for.
    pub kind: EntryKind,
    /// Bytes that this crate does not look into.
    pub body: Bytes,
}

/// First byte of every log row, so that a later layout can be told from this one.
const ENTRY_FORMAT: u8 = 1;
/// Format, kind, term. The index is in the key.
const HEADER_BYTES: usize = 10;

impl LogEntry {
    /// The row's value, and the same entry with its body sliced out of that value: the writer and
    /// the tail cache then share one buffer, and the caller's (perhaps a whole network frame) is freed.
    pub(crate) fn into_row(self) -> (Bytes, LogEntry) {
        let mut row = BytesMut::with_capacity(HEADER_BYTES + self.body.len());
        row.put_u8(ENTRY_FORMAT);
        row.put_u8(self.kind as u8);
        row.put_u64_le(self.id.term);
        row.put_slice(&self.body);
        let row = row.freeze();
        let body = row.slice(HEADER_BYTES..);
        (row, LogEntry { body, ..self })
    }

    /// Reads a row back; the body is a slice of `row`.
    pub(crate) fn from_row(index: u64, row: &Bytes) -> Result<LogEntry, StorageError> {
        let malformed = |why| StorageError::malformed(Table::Log, why);
        let header: &[u8; HEADER_BYTES] = row.first_chunk().ok_or(malformed("shorter than its header"))?;
        if header[0] != ENTRY_FORMAT {
            return Err(malformed("unknown entry format"));
        }
        let kind = EntryKind::from_byte(header[1]).ok_or(malformed("unknown entry kind"))?;
        let mut term = [0; 8];
        term.copy_from_slice(&header[2..]);
        let id = EntryId { term: u64::from_le_bytes(term), index };
        Ok(LogEntry { id, kind, body: row.slice(HEADER_BYTES..) })
    }

    /// What the entry weighs in memory, for bounds: its row, and what holds it.
    pub(crate) fn weight(&self) -> u64 {
        (HEADER_BYTES + self.body.len() + size_of::<LogEntry>()) as u64
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
    use super::*;

    #[test]
    fn the_row_of_an_entry_is_fixed_for_ever() {
        let id = EntryId { term: 3, index: 9 };
        let entry = LogEntry { id, kind: EntryKind::Command, body: Bytes::from_static(b"abc") };
        let (row, shared) = entry.clone().into_row();
        let golden = [&[1, 1, 3, 0, 0, 0, 0, 0, 0, 0][..], b"abc"].concat();
        assert_eq!(row, golden);
        assert_eq!(shared, entry);
        assert_eq!(LogEntry::from_row(9, &row).unwrap(), entry);
    }

    #[test]
    fn rows_that_are_not_entries_are_refused() {
        for (row, why) in [
            (vec![1, 1, 0], "shorter than its header"),
            ([vec![2, 1], vec![0; 8]].concat(), "unknown entry format"),
            ([vec![1, 3], vec![0; 8]].concat(), "unknown entry kind"),
        ] {
            let error = LogEntry::from_row(0, &Bytes::from(row)).unwrap_err();
            assert_eq!(error, StorageError::malformed(Table::Log, why));
        }
    }

    #[test]
    fn an_entry_id_survives_its_bytes() {
        let id = EntryId { term: u64::MAX, index: 1 << 40 };
        assert_eq!(EntryId::from_bytes(&id.to_bytes()), Some(id));
        assert_eq!(EntryId::from_bytes(&id.to_bytes()[..15]), None);
    }
}

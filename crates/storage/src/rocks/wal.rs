//! What the write-ahead log proves by itself about the writes that were durable.
//!
//! RocksDB's recovery stops at the first record that doesn't match its checksum and drops the rest. That is
//! right for writes that a power loss tore, and wrong for damage in the middle. A later record that is intact
//! can't tell the two apart by being there: the pages of an unsynced tail reach the disk in any order. But it
//! can by what it says: every commit of ours begins with a mark that names the last write which had been synced
//! before it.
//!
//! ```text
//!   ── 90 ──╳── 92 ─── 93 says: 90 was synced      torn: 91 never was, and nothing acknowledged is lost
//!   ── 90 ──╳── 92 ─── 93 says: 92 was synced      corrupt: recovery would end at 90
//! ```
//!
//! So the newest mark that is anywhere in the files is a floor for what must be recovered.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use super::records::{self, BLOCK_BYTES, FIRST, FULL};

/// A commit begins with `[sequence number u64][operations u32]`; the mark follows, as data that only the log
/// keeps: `[tag 3][length][magic][sequence number u64]`.
const BATCH_HEADER_BYTES: usize = 12;
const LOG_DATA: u8 = 3;
const MAGIC: [u8; 4] = *b"sync";
const MARK_BYTES: usize = MAGIC.len() + 8;

/// The mark of a commit that follows the sync of all writes up to `synced`.
pub(super) fn mark(synced: u64) -> [u8; MARK_BYTES] {
    let mut mark = [0; MARK_BYTES];
    mark[..MAGIC.len()].copy_from_slice(&MAGIC);
    mark[MAGIC.len()..].copy_from_slice(&synced.to_le_bytes());
    mark
}

/// The newest mark in the log files of a database; 0 without one.
pub(super) fn proved(database: &Path) -> io::Result<u64> {
    let mut newest = 0;
    for entry in fs::read_dir(database)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            newest = newest.max(newest_mark(fs::File::open(&path)?)?);
        }
    }
    Ok(newest)
}

fn newest_mark(mut log: impl Read) -> io::Result<u64> {
    let mut newest = 0;
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    while log.by_ref().take(BLOCK_BYTES as u64).read_to_end(&mut block)? > 0 {
        newest = block_marks(&block).fold(newest, u64::max);
        block.clear();
    }
    Ok(newest)
}

/// The marks of the commits that begin in this block. After a damaged record the search goes on at the next one.
fn block_marks(block: &[u8]) -> impl Iterator<Item = u64> {
    let begun = records::intact(block).filter(|record| matches!(record.kind, FULL | FIRST));
    begun.filter_map(|record| mark_of(record.data))
}

fn mark_of(commit: &[u8]) -> Option<u64> {
    let (tag, rest) = commit.get(BATCH_HEADER_BYTES..)?.split_first()?;
    let (length, rest) = rest.split_first()?;
    let mark = rest.get(..MARK_BYTES)?;
    let (magic, synced) = mark.split_at(MAGIC.len());
    let ours = *tag == LOG_DATA && usize::from(*length) == MARK_BYTES && magic == MAGIC;
    ours.then(|| u64::from_le_bytes(synced.try_into().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
    use super::*;

    /// A record as RocksDB writes it, with a commit that begins with a mark.
    fn record(kind: u8, synced: u64, padding: usize) -> Vec<u8> {
        let mut data = vec![0; BATCH_HEADER_BYTES];
        data.extend([LOG_DATA, MARK_BYTES as u8]);
        data.extend(mark(synced));
        data.resize(data.len() + padding, 0xee);
        records::record(kind, &data)
    }

    #[test]
    fn the_mark_is_fixed_for_ever() {
        assert_eq!(mark(0x0102), *b"sync\x02\x01\0\0\0\0\0\0");
    }

    #[test]
    fn the_newest_mark_counts_wherever_it_is() {
        let mut log = [record(FULL, 7, 100), record(FIRST, 9, 0), record(FULL, 8, 0)].concat();
        assert_eq!(newest_mark(&log[..]).unwrap(), 9);
        // Zeros are space that was reserved and not written yet.
        log.resize(BLOCK_BYTES, 0);
        log.extend(record(FULL, 12, 0));
        assert_eq!(newest_mark(&log[..]).unwrap(), 12);
    }

    #[test]
    fn a_damaged_record_hides_the_rest_of_its_block_and_no_other() {
        let mut log = [record(FULL, 7, 0), record(FULL, 8, 0), record(FULL, 9, 0)].concat();
        let middle = log.len() / 2;
        log[middle] ^= 1;
        assert_eq!(newest_mark(&log[..]).unwrap(), 7);
        log.resize(BLOCK_BYTES, 0);
        log.extend(record(FULL, 10, 0));
        assert_eq!(newest_mark(&log[..]).unwrap(), 10);
    }

    #[test]
    fn any_bytes_are_read() {
        let mut rng = fastrand::Rng::with_seed(1);
        for len in 0..200 {
            let bytes: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(len).collect();
            assert_eq!(newest_mark(&bytes[..]).unwrap(), 0);
        }
    }
}

//! The format of RocksDB's logs, in which both its write-ahead log and its manifest are written
//! (its wiki, "Write Ahead Log File Format").

use crc_fast::crc32_iscsi;

/// Records of `[crc u32][length u16][type u8]` and data never straddle the border of a block; larger ones are split.
pub(super) const BLOCK_BYTES: usize = 32 << 10;
/// Less than this at the end of a block is filled with zeros.
pub(super) const HEADER_BYTES: usize = 7;
pub(super) const FULL: u8 = 1;
pub(super) const FIRST: u8 = 2;

pub(super) struct Record<'a> {
    pub(super) kind: u8,
    pub(super) data: &'a [u8],
    /// Where it ends in its block.
    pub(super) end: usize,
}

/// The records at the beginning of a block up to the first that is not intact: its length can't be believed.
pub(super) fn intact(block: &[u8]) -> impl Iterator<Item = Record<'_>> {
    let mut rest = block;
    std::iter::from_fn(move || {
        let (header, after) = rest.split_first_chunk::<HEADER_BYTES>()?;
        let [c0, c1, c2, c3, l0, l1, kind] = *header;
        let length = usize::from(u16::from_le_bytes([l0, l1]));
        let (data, next) = after.split_at_checked(length)?;
        // The checksum covers the type as well. Zeros are space that was reserved and not written yet.
        let covered = &rest[HEADER_BYTES - 1..HEADER_BYTES + length];
        if (kind == 0 && length == 0) || u32::from_le_bytes([c0, c1, c2, c3]) != masked_crc(covered) {
            return None;
        }
        rest = next;
        Some(Record { kind, data, end: block.len() - next.len() })
    })
}

/// RocksDB stores checksums masked, so that data which contains checksums has good ones.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32_iscsi(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
pub(super) fn record(kind: u8, data: &[u8]) -> Vec<u8> {
    let covered = [&[kind], data].concat();
    let length = u16::try_from(data.len()).unwrap_or(u16::MAX);
    [&masked_crc(&covered).to_le_bytes()[..], &length.to_le_bytes(), &covered].concat()
}

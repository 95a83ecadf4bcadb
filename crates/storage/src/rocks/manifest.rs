//! How much of the engine's list of files is known to be durable.
//!
//! The engine takes the longest intact beginning of its manifest for the whole: right for an end that a power
//! loss tore, wrong for a manifest that lost durable entries, or has one whose length was damaged. It would then
//! open an older set of files, delete the newer ones, and replay what is left of the write-ahead log over the gap.
//! So the length of the intact beginning that has been synced is noted, in the folder's floor.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use super::records::{self, BLOCK_BYTES, HEADER_BYTES};

/// One manifest, and how long its intact beginning is at least. A new one replaces it at every opening.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ManifestFloor {
    pub(super) number: u64,
    pub(super) bytes: u64,
}

impl ManifestFloor {
    /// The manifest that `CURRENT` names, as it is now, synced or not.
    pub(super) fn found(database: &Path) -> io::Result<ManifestFloor> {
        let (path, number) = current(database)?;
        Ok(ManifestFloor { number, bytes: intact_bytes(&mut File::open(path)?, 0)? })
    }
}

/// Where the intact beginning of a file of records ends, of which `known` bytes are known to be intact.
fn intact_bytes(file: &mut File, known: u64) -> io::Result<u64> {
    let mut start = known - known % BLOCK_BYTES as u64;
    file.seek(SeekFrom::Start(start))?;
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    loop {
        block.clear();
        file.take(BLOCK_BYTES as u64).read_to_end(&mut block)?;
        let end = records::intact(&block).last().map_or(0, |record| record.end);
        if BLOCK_BYTES - end >= HEADER_BYTES {
            return Ok(start + end as u64);
        }
        start += BLOCK_BYTES as u64;
    }
}

/// Watches the manifest of an open database.
pub(super) struct Manifest {
    database: PathBuf,
    synced: ManifestFloor,
}

impl Manifest {
    pub(super) fn of(database: &Path) -> Manifest {
        Manifest { database: database.to_owned(), synced: ManifestFloor::default() }
    }

    /// What is durable now. Syncs only if the manifest has grown; the engine has usually done so itself.
    pub(super) fn synced(&mut self) -> io::Result<ManifestFloor> {
        match self.sync() {
            // The engine has begun a new one meanwhile; the next time will tell.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            synced => self.synced = synced?,
        }
        Ok(self.synced)
    }

    fn sync(&self) -> io::Result<ManifestFloor> {
        let (path, number) = current(&self.database)?;
        let mut file = File::open(&path)?;
        let known = if number == self.synced.number { self.synced.bytes } else { 0 };
        if file.metadata()?.len() == known {
            return Ok(self.synced);
        }
        // What was durable once stays the floor, whatever happens to it.
        let bytes = intact_bytes(&mut file, known)?.max(known);
        file.sync_data()?;
        Ok(ManifestFloor { number, bytes })
    }
}

fn current(database: &Path) -> io::Result<(PathBuf, u64)> {
    let name = std::fs::read_to_string(database.join("CURRENT"))?;
    let name = name.trim();
    let number = name.strip_prefix("MANIFEST-").and_then(|number| number.parse().ok()).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("db/CURRENT names {name:?}, which is no manifest"))
    })?;
    Ok((database.join(name), number))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write as _;

    use super::*;

    fn intact(bytes: &[u8], known: u64) -> u64 {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        intact_bytes(&mut file, known).unwrap()
    }

    #[test]
    fn whole_records_count_also_across_blocks() {
        let one = records::record(records::FULL, &[7; 100]);
        assert_eq!(intact(&[], 0), 0);
        assert_eq!(intact(&one, 0), 107);
        assert_eq!(intact(&[&one[..], &one[..50]].concat(), 0), 107);

        // A block that is filled up to the last byte, and one with too little room for another header.
        for padding in [0, 3] {
            let mut file = records::record(records::FULL, &vec![7; BLOCK_BYTES - HEADER_BYTES - padding]);
            file.resize(BLOCK_BYTES, 0);
            file.extend(&one);
            let end = BLOCK_BYTES as u64 + 107;
            assert_eq!((intact(&file, 0), intact(&file, BLOCK_BYTES as u64), intact(&file, end)), (end, end, end));
        }
    }

    #[test]
    fn no_flip_goes_unnoticed() {
        let one = records::record(records::FULL, &[7; 20]);
        let whole = [&one[..], &one[..], &one[..]].concat();
        for bit in 0..one.len() * 8 {
            let mut flipped = whole.clone();
            flipped[one.len() + bit / 8] ^= 1 << (bit % 8);
            assert_eq!(intact(&flipped, 0), one.len() as u64, "bit {bit}");
        }
    }
}

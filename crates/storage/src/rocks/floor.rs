use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::StorageError;

/// How many writes are known to be durable, kept outside the database.
///
/// RocksDB's recovery stops at the first damaged WAL record and drops everything after it without a
/// word: right for a write torn by a power loss, wrong for damage in the middle. So the number of a
/// write that has been synced is noted here, and an open that recovers less than that is refused.
/// The file is written after the sync it speaks of and needs no sync itself: an old floor is only a
/// weaker one. What it can't see is damage to the writes of the last second before a crash.
pub(super) struct Floor {
    file: File,
    noted: u64,
    noted_at: Option<Instant>,
    latest: u64,
    slot: u64,
}

/// Two slots, written in turn, so that a torn write leaves the other: `[number u64][its complement u64]`.
const SLOTS: u64 = 2;
const SLOT_BYTES: usize = 16;
const NOTE_EVERY: Duration = Duration::from_secs(1);

impl Floor {
    pub(super) fn open(path: &Path) -> io::Result<Floor> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut noted = 0;
        let mut newest = SLOTS - 1;
        for slot in 0..SLOTS {
            if let Some(number) = read_slot(&file, slot)?
                && number >= noted
            {
                (noted, newest) = (number, slot);
            }
        }
        Ok(Floor { file, noted, noted_at: None, latest: noted, slot: (newest + 1) % SLOTS })
    }

    /// The highest number that was noted before.
    pub(super) fn noted(&self) -> u64 {
        self.noted
    }

    /// Makes `number` the floor for good, if it is higher.
    pub(super) fn keep(&mut self, number: u64) -> io::Result<()> {
        self.latest = self.latest.max(number);
        self.note()?;
        self.file.sync_data()
    }

    /// Everything up to `number` has been synced.
    pub(super) fn raise(&mut self, number: u64) -> Result<(), StorageError> {
        self.latest = number;
        if self.noted_at.is_some_and(|at| at.elapsed() < NOTE_EVERY) {
            return Ok(());
        }
        self.note().map_err(|error| StorageError::Io { detail: format!("writing the durable floor: {error}") })
    }

    fn note(&mut self) -> io::Result<()> {
        let mut bytes = [0; SLOT_BYTES];
        bytes[..8].copy_from_slice(&self.latest.to_le_bytes());
        bytes[8..].copy_from_slice(&(!self.latest).to_le_bytes());
        self.file.write_all_at(&bytes, self.slot * SLOT_BYTES as u64)?;
        self.noted = self.latest;
        self.noted_at = Some(Instant::now());
        self.slot = (self.slot + 1) % SLOTS;
        Ok(())
    }
}

impl Drop for Floor {
    /// A clean stop leaves the exact number. Failing to is no reason to fail: the old floor holds.
    fn drop(&mut self) {
        if self.latest != self.noted {
            let _ = self.note().and_then(|()| self.file.sync_data());
        }
    }
}

fn read_slot(file: &File, slot: u64) -> io::Result<Option<u64>> {
    let mut bytes = [0; SLOT_BYTES];
    match file.read_exact_at(&mut bytes, slot * SLOT_BYTES as u64) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let (number, complement) = bytes.split_at(8);
    let intact = number.iter().zip(complement).all(|(a, b)| *a == !b);
    let mut le = [0; 8];
    le.copy_from_slice(number);
    Ok(intact.then_some(u64::from_le_bytes(le)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
    use super::*;

    #[test]
    fn the_newest_intact_slot_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("floor");
        for number in [7, 9, 12] {
            let mut floor = Floor::open(&path).unwrap();
            floor.raise(number).unwrap();
        }
        assert_eq!(Floor::open(&path).unwrap().noted(), 12);

        // 12 went to the first slot again; a torn write there leaves the 9 in the second.
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[0xaa; 3], 0).unwrap();
        assert_eq!(Floor::open(&path).unwrap().noted(), 9);
    }

    #[test]
    fn a_clean_stop_notes_the_exact_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("floor");
        let mut floor = Floor::open(&path).unwrap();
        assert_eq!(floor.noted(), 0);
        floor.raise(1).unwrap();
        floor.raise(2).unwrap();
        drop(floor);
        assert_eq!(Floor::open(&path).unwrap().noted(), 2);
    }
}

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::manifest::{Manifest, ManifestFloor};
use crate::error::StorageError;

/// How many writes, and how much of the manifest, are known to be durable, kept outside the database.
///
/// RocksDB's recovery stops at the first damaged WAL record and drops everything after it without a
/// word: right for a write torn by a power loss, wrong for damage in the middle. So the number of a
/// write that has been synced is noted here, and an open that recovers less than that is refused.
/// The file is written after the sync it speaks of and needs no sync itself: an old floor is only a
/// weaker one. What it can't see is damage to the writes of the last second before a crash.
pub(super) struct Floor {
    file: File,
    noted: u64,
    manifest: ManifestFloor,
    /// None until the database is open.
    watched: Option<Manifest>,
    noted_at: Option<Instant>,
    latest: u64,
    slot: u64,
}

/// Two slots, written in turn, so that a torn write leaves the other: `[number u64][its complement u64]`.
/// After them two for the manifest: `[number u64][bytes u64][complements of both]`.
const SLOTS: u64 = 2;
const SLOT_BYTES: usize = 16;
const MANIFEST_SLOT_BYTES: usize = 32;
const MANIFEST_SLOTS_AT: u64 = SLOTS * SLOT_BYTES as u64;
const NOTE_EVERY: Duration = Duration::from_secs(1);

impl Floor {
    pub(super) fn open(path: &Path) -> io::Result<Floor> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut noted = 0;
        let mut newest = SLOTS - 1;
        for slot in 0..SLOTS {
            if let Some([number]) = read_slot(&file, slot * SLOT_BYTES as u64)?
                && number >= noted
            {
                (noted, newest) = (number, slot);
            }
        }
        let mut manifest = ManifestFloor::default();
        for slot in 0..SLOTS {
            let at = MANIFEST_SLOTS_AT + slot * MANIFEST_SLOT_BYTES as u64;
            if let Some([number, bytes]) = read_slot(&file, at)?
                && (number, bytes) > (manifest.number, manifest.bytes)
            {
                manifest = ManifestFloor { number, bytes };
            }
        }
        let slot = (newest + 1) % SLOTS;
        Ok(Floor { file, noted, manifest, watched: None, noted_at: None, latest: noted, slot })
    }

    /// The newest manifest that was noted before.
    pub(super) fn manifest(&self) -> ManifestFloor {
        self.manifest
    }

    /// From now on notes this manifest, too.
    pub(super) fn watch(&mut self, manifest: Manifest) -> io::Result<()> {
        self.watched = Some(manifest);
        self.note_manifest()
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
        self.file.write_all_at(&slot([self.latest]), self.slot * SLOT_BYTES as u64)?;
        self.note_manifest()?;
        self.noted = self.latest;
        self.noted_at = Some(Instant::now());
        self.slot = (self.slot + 1) % SLOTS;
        Ok(())
    }

    fn note_manifest(&mut self) -> io::Result<()> {
        let Some(watched) = &mut self.watched else { return Ok(()) };
        self.manifest = watched.synced()?;
        let at = MANIFEST_SLOTS_AT + self.slot * MANIFEST_SLOT_BYTES as u64;
        self.file.write_all_at(&slot([self.manifest.number, self.manifest.bytes]), at)
    }
}

impl Drop for Floor {
    /// A clean stop leaves the exact numbers. Failing to is no reason to fail: the old floor holds.
    fn drop(&mut self) {
        if self.latest != self.noted || self.watched.is_some() {
            let _ = self.note().and_then(|()| self.file.sync_data());
        }
    }
}

/// The numbers, then their complements.
fn slot<const N: usize>(numbers: [u64; N]) -> Vec<u8> {
    numbers.iter().copied().chain(numbers.map(|number| !number)).flat_map(u64::to_le_bytes).collect()
}

fn read_slot<const N: usize>(file: &File, at: u64) -> io::Result<Option<[u64; N]>> {
    let mut slot = vec![0; 2 * N * 8];
    match file.read_exact_at(&mut slot, at) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let (words, _) = slot.as_chunks();
    let (numbers, complements) = words.split_at(N);
    let intact = numbers.iter().zip(complements).all(|(a, b)| u64::from_le_bytes(*a) == !u64::from_le_bytes(*b));
    Ok(intact.then(|| std::array::from_fn(|place| u64::from_le_bytes(numbers[place]))))
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
    fn slots_are_fixed_for_ever() {
        let golden = [0x02, 0x01, 0, 0, 0, 0, 0, 0, 0xfd, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(slot([0x0102]), golden);
        let numbers = slot([3, 4]);
        assert_eq!((numbers[0], numbers[8], numbers[16], numbers[24], numbers.len()), (3, 4, 0xfc, 0xfb, 32));
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

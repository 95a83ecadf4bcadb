//! How much of the engine's list of files is known to be durable.
//!
//! The engine takes the longest intact beginning of its manifest for the whole: right for an end that a power
//! loss tore, wrong for a manifest that lost durable entries. It would then open an older set of files, delete
//! the newer ones, and replay what is left of the write-ahead log over the gap. So the length that has been synced
//! is noted, in the folder's floor.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// One manifest, and how long it is at least. A new one replaces it at every opening.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ManifestFloor {
    pub(super) number: u64,
    pub(super) bytes: u64,
}

impl ManifestFloor {
    /// The manifest that `CURRENT` names, as long as it is now, synced or not.
    pub(super) fn found(database: &Path) -> io::Result<ManifestFloor> {
        let (path, number) = current(database)?;
        Ok(ManifestFloor { number, bytes: path.metadata()?.len() })
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
        let found = ManifestFloor { number, bytes: path.metadata()?.len() };
        if found != self.synced {
            File::open(&path)?.sync_data()?;
        }
        Ok(found)
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

//! A clock for one process alone, through libfaketime. The monotonic clock stays what it is: no machine's jumps.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::host::FAKE_CLOCK;

/// A node's wall clock.
pub(super) struct Clock {
    file: PathBuf,
}

impl Clock {
    /// One that is right.
    pub(super) fn new(folder: &Path) -> io::Result<Self> {
        let clock = Self { file: folder.join("clock") };
        clock.set("+0")?;
        Ok(clock)
    }

    /// Sets it: `+90s` goes before the right one, `+0 x1.5` runs faster.
    pub(super) fn set(&self, to: &str) -> io::Result<()> {
        // Replaced, because the process may read it at any moment.
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{to}\n"))?;
        fs::rename(new, &self.file)
    }

    /// Variables of the process that goes by it.
    pub(super) fn variables(&self) -> Vec<String> {
        vec![
            format!("LD_PRELOAD={FAKE_CLOCK}"),
            format!("FAKETIME_TIMESTAMP_FILE={}", self.file.display()),
            "FAKETIME_CACHE_DURATION=1".to_owned(),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        ]
    }
}

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

/// Seconds from 1970 to a date such as `Sun, 06 Nov 1994 08:49:37 GMT`.
pub(super) fn seconds_of(date: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = date.split_whitespace().skip(1);
    let day: u64 = words.next()?.parse().ok()?;
    let month = words.next()?;
    let month = 1 + MONTHS.iter().position(|name| *name == month)? as u64;
    let year: u64 = words.next()?.parse().ok()?;
    let mut time = words.next()?.split(':').map(str::parse::<u64>);
    let (hours, minutes, seconds) = (time.next()?.ok()?, time.next()?.ok()?, time.next()?.ok()?);
    // A year that begins in March has its leap day at its end.
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    Some((days - 719_468) * 86_400 + hours * 3_600 + minutes * 60 + seconds)
}

#[cfg(test)]
mod tests {
    use super::seconds_of;

    #[test]
    fn dates_are_understood() {
        assert_eq!(seconds_of("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(seconds_of("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(seconds_of("Tue, 29 Feb 2028 12:00:00 GMT"), Some(1_835_438_400));
        assert_eq!(seconds_of("yesterday"), None);
    }
}

//! What a process uses, from `/proc`.

use crate::failure::Failure;
use std::fs;
use std::time::Duration;

/// Linux counts processor time in hundredths of a second, whatever the kernel's own tick is.
const TICKS_PER_SECOND: u64 = 100;

/// A look at a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time since its start, all threads together.
    pub cpu: Duration,
    /// Memory that it holds, in KiB.
    pub resident_kib: u64,
}

impl Usage {
    /// Looks at a process.
    ///
    /// # Errors
    /// If there is no such process.
    pub fn of(pid: i32) -> Result<Usage, Failure> {
        let read = |file: &str| {
            let path = format!("/proc/{pid}/{file}");
            fs::read_to_string(&path).map_err(|error| Failure::new(format!("{path}: {error}")))
        };
        let (stat, status) = (read("stat")?, read("status")?);
        parse(&stat, &status).ok_or_else(|| Failure::new(format!("/proc/{pid} has an unknown form")))
    }
}

fn parse(stat: &str, status: &str) -> Option<Usage> {
    // The second field is the program's name in brackets and may hold anything, even brackets.
    let (_, after_name) = stat.rsplit_once(')')?;
    // User and system time are the 14th and 15th field; the one after the name is the third.
    let mut fields = after_name.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let resident_kib = resident.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(Usage { cpu: Duration::from_millis((user + system) * 1000 / TICKS_PER_SECOND), resident_kib })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_memory_are_found_behind_any_name() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 96 0 0 0 120 30 0 0 20 0 1 0 98765 2 3 4";
        let status = "Name:\ta\nVmHWM:\t 9 kB\nVmRSS:\t  2048 kB\n";
        let expected = Usage { cpu: Duration::from_millis(1500), resident_kib: 2048 };
        assert_eq!(parse(stat, status), Some(expected));
        assert!(Usage::of(i32::try_from(std::process::id()).unwrap_or(0)).is_ok_and(|usage| usage.resident_kib > 0));
    }
}

use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, io};

/// What this process has used since a moment, as the kernel counts it.
pub(crate) struct Meter {
    started: Instant,
    at_start: Counters,
}

/// Differences between two readings.
pub(crate) struct Reading {
    pub(crate) elapsed: Duration,
    /// Seconds of processor time, all threads.
    pub(crate) cpu_s: f64,
    /// The part of the engine's background threads.
    pub(crate) background_cpu_s: f64,
    /// Bytes sent to the disk, pages that were written twice counted twice.
    pub(crate) disk_bytes: u64,
    /// Bytes given to write calls.
    pub(crate) call_bytes: u64,
    /// Bytes returned by read calls, whether from the disk or from the page cache.
    pub(crate) read_bytes: u64,
}

struct Counters {
    cpu_ticks: u64,
    background_ticks: u64,
    disk_bytes: u64,
    call_bytes: u64,
    read_bytes: u64,
}

/// The unit of processor times in `/proc`; the same on every Linux that Rust runs on.
const TICKS_PER_S: f64 = 100.0;

impl Meter {
    pub(crate) fn start() -> io::Result<Meter> {
        Ok(Meter { started: Instant::now(), at_start: Counters::read()? })
    }

    pub(crate) fn read(&self) -> io::Result<Reading> {
        let now = Counters::read()?;
        let ticks = |now: u64, start: u64| (now - start) as f64 / TICKS_PER_S;
        Ok(Reading {
            elapsed: self.started.elapsed(),
            cpu_s: ticks(now.cpu_ticks, self.at_start.cpu_ticks),
            background_cpu_s: ticks(now.background_ticks, self.at_start.background_ticks),
            disk_bytes: now.disk_bytes - self.at_start.disk_bytes,
            call_bytes: now.call_bytes - self.at_start.call_bytes,
            read_bytes: now.read_bytes - self.at_start.read_bytes,
        })
    }
}

impl Counters {
    fn read() -> io::Result<Counters> {
        let io = fs::read_to_string("/proc/self/io")?;
        let counter = |name: &str| {
            let line = io.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            line.and_then(|value| value.parse().ok()).unwrap_or(0)
        };
        let mut background_ticks = 0;
        for task in fs::read_dir("/proc/self/task")? {
            let task = task?.path();
            // A thread may end between the listing and the reading; its time is in the sum of the process.
            let Ok(stat) = fs::read_to_string(task.join("stat")) else { continue };
            if stat.contains("(rocksdb:") {
                background_ticks += ticks(&stat);
            }
        }
        Ok(Counters {
            cpu_ticks: ticks(&fs::read_to_string("/proc/self/stat")?),
            background_ticks,
            disk_bytes: counter("write_bytes"),
            call_bytes: counter("wchar"),
            read_bytes: counter("rchar"),
        })
    }
}

/// User and system time in a `stat` file: the 14th and 15th field, counted after the name in brackets.
fn ticks(stat: &str) -> u64 {
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

/// Blocks that the files of a folder and its folders occupy.
pub(crate) fn disk_bytes(dir: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // The engine may delete a file while we look.
        let Ok(metadata) = entry.metadata() else { continue };
        bytes += if metadata.is_dir() { disk_bytes(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}

pub(crate) fn payload_mib(bytes: u64) -> u64 {
    bytes >> 20
}

//! A limit of memory for one process alone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::host::MEMORY_GROUPS;

/// A group that a node's processes belong to from their start.
pub(super) struct MemoryGroup {
    path: PathBuf,
}

impl MemoryGroup {
    pub(super) fn new(name: &str) -> io::Result<Self> {
        let path = Path::new(MEMORY_GROUPS).join(name);
        fs::create_dir(&path)?;
        Ok(Self { path })
    }

    pub(super) fn add(&self, pid: u32) -> io::Result<()> {
        fs::write(self.path.join("cgroup.procs"), pid.to_string())
    }

    /// Allows no more than so many bytes above what its process holds for itself; `None`: as many as it likes.
    pub(super) fn limit(&self, above: Option<u64>) -> Result<(), String> {
        let limit = match above {
            None => "-1".to_owned(),
            Some(above) => (self.figure("memory.stat", "rss ")? + above).to_string(),
        };
        let path = self.path.join("memory.limit_in_bytes");
        fs::write(&path, limit).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// How often the limit was met, and how often a process was killed for it.
    pub(super) fn failures(&self) -> Result<(u64, u64), String> {
        Ok((self.figure("memory.failcnt", "")?, self.figure("memory.oom_control", "oom_kill ")?))
    }

    fn figure(&self, file: &str, label: &str) -> Result<u64, String> {
        let path = self.path.join(file);
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let figure = text.lines().find_map(|line| line.strip_prefix(label)?.trim().parse().ok());
        figure.ok_or_else(|| format!("{}: no {label:?} in {text:?}", path.display()))
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
    }
}

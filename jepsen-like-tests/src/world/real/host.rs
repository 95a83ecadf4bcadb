//! What the machine lets a run have. What is missing is left out of a run, and said.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::tool;

/// Where Debian keeps the library that gives a process a clock of its own.
pub(super) const FAKE_CLOCK: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// Where groups of processes are given limits of memory.
pub(super) const MEMORY_GROUPS: &str = "/sys/fs/cgroup/memory";

/// Something that a fault can't do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Namespaces, mounts and the like are for root alone.
    Root,
    /// A network namespace for each node, and rules for what goes between them.
    Network,
    /// A file system for each node.
    Disk,
    /// A library that fakes the clock.
    FakeClock,
    /// A program of the system.
    Program(&'static str),
    /// Limits of memory.
    MemoryGroups,
}

/// What there is.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    root: bool,
}

impl Host {
    /// Looks around.
    #[must_use]
    pub fn look() -> Self {
        // The owner of the process is who runs it.
        Self { root: fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) }
    }

    /// Why something can't be had; `None` if it can.
    #[must_use]
    pub fn lacks(&self, need: Need) -> Option<String> {
        if !self.root {
            return Some("needs root".to_owned());
        }
        match need {
            Need::Root => None,
            Need::Network => lacks_program(&["ip", "nsenter", "nft"]),
            Need::Disk => lacks_program(&["mkfs.ext4", "mount", "umount", "dumpe2fs", "python3"]),
            Need::FakeClock => lacks_file(FAKE_CLOCK),
            Need::Program(name) => lacks_program(&[name]),
            Need::MemoryGroups => lacks_file(&format!("{MEMORY_GROUPS}/memory.limit_in_bytes")),
        }
    }
}

fn lacks_program(names: &[&str]) -> Option<String> {
    names.iter().find(|name| !tool::is_there(name)).map(|name| format!("needs the program {name}"))
}

fn lacks_file(path: &str) -> Option<String> {
    (!Path::new(path).exists()).then(|| format!("needs {path}"))
}

//! A file system for one node alone: an ext4 in a file, which can lose its power, and be full.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::tool::run;

/// Room on each disk. The file takes only what is written.
const BYTES: u64 = 2 << 30;

/// Stops file systems as a power loss would: nothing more is written, not even their own journals.
const CUT: &str = "import fcntl, os, struct, sys\n\
                   for path in sys.argv[1:]:\n    \
                   fcntl.ioctl(os.open(path, os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";

/// A mounted file system.
pub(super) struct Disk {
    image: PathBuf,
    mounted_at: PathBuf,
}

impl Disk {
    /// Makes an empty one and mounts it.
    pub(super) fn new(image: PathBuf, mounted_at: PathBuf) -> Result<Self, String> {
        let made = File::create(&image).and_then(|file| file.set_len(BYTES));
        made.map_err(|error| format!("{}: {error}", image.display()))?;
        let disk = Self { image, mounted_at };
        run(&["mkfs.ext4", "-q", "-F", "-m", "0", &disk.image()])?;
        disk.mount()?;
        Ok(disk)
    }

    pub(super) fn mount(&self) -> Result<(), String> {
        run(&["mount", "-o", "loop", &self.image(), &self.path()]).map(drop)
    }

    pub(super) fn unmount(&self) -> Result<(), String> {
        run(&["umount", &self.path()]).map(drop)
    }

    /// Cuts several off at the same moment.
    pub(super) fn cut_power(disks: &[&Disk]) -> Result<(), String> {
        let paths: Vec<String> = disks.iter().map(|disk| disk.path()).collect();
        let words: Vec<&str> = ["python3", "-c", CUT].into_iter().chain(paths.iter().map(String::as_str)).collect();
        run(&words).map(drop)
    }

    /// Mounts it again after it was cut off. True if it needs its journal, so it was cut off in the midst of its work.
    pub(super) fn come_back(&self) -> Result<bool, String> {
        self.unmount()?;
        let header = run(&["dumpe2fs", "-h", &self.image()])?;
        self.mount()?;
        Ok(header.contains("needs_recovery"))
    }

    /// Takes all room that is left.
    pub(super) fn fill(&self) -> Result<u64, String> {
        let ballast = self.ballast();
        // What can be promised to a file at once, and then the rest: it ends when there is no more.
        let room = run(&["df", "--output=avail", "-B1M", &self.path()])?;
        let room: u64 = room.lines().last().and_then(|room| room.trim().parse().ok()).unwrap_or(0);
        // A file needs some room for what describes it.
        let room = room.saturating_sub(16).max(1);
        run(&["fallocate", "-l", &format!("{room}MiB"), &ballast.display().to_string()])?;
        let _ = run(&[
            "dd",
            "if=/dev/zero",
            &format!("of={}", ballast.display()),
            "bs=64K",
            "oflag=append",
            "conv=notrunc",
            "status=none",
        ]);
        fs::metadata(&ballast).map(|ballast| ballast.len()).map_err(|error| format!("{}: {error}", ballast.display()))
    }

    /// Gives it back.
    pub(super) fn empty(&self) -> Result<(), String> {
        fs::remove_file(self.ballast()).map_err(|error| format!("{}: {error}", self.ballast().display()))
    }

    fn ballast(&self) -> PathBuf {
        self.mounted_at.join("ballast")
    }

    fn image(&self) -> String {
        self.image.display().to_string()
    }

    fn path(&self) -> String {
        self.mounted_at.display().to_string()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.unmount();
    }
}

/// Unmounts whatever is left below a folder.
pub(super) fn unmount_all_below(folder: &Path) {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let paths = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    for path in paths.filter(|path| Path::new(path).starts_with(folder)) {
        let _ = run(&["umount", "--lazy", path]);
    }
}

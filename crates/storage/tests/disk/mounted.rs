//! A file system of our own, as root: one that loses its power, and one that is full.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use quorate_storage::{Completion, StorageError};

use crate::journal::{self, Promises, entry, next_index, verify};
use crate::killed::Writer;

/// Stops the file system as a power loss would: nothing more is written, not even its own journal.
const CUT: &str = "import fcntl, os, struct, sys; \
                   fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";

/// An ext4 in a file, unmounted when it is dropped.
struct Mounted {
    dir: tempfile::TempDir,
}

impl Mounted {
    /// None where that isn't allowed or not possible.
    fn new(mib: u64) -> Option<Mounted> {
        let mounted = Mounted { dir: tempfile::tempdir().unwrap() };
        let image = std::fs::File::create(mounted.image()).unwrap();
        image.set_len(mib << 20).unwrap();
        std::fs::create_dir(mounted.path()).unwrap();
        let made = run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(mounted.image())) && mounted.mount();
        if !made {
            skip("needs root");
        }
        made.then_some(mounted)
    }

    fn mount(&self) -> bool {
        run(Command::new("mount").args(["-o", "loop"]).arg(self.image()).arg(self.path()))
    }

    fn unmount(&self) -> bool {
        run(Command::new("umount").arg(self.path()))
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("mounted")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = self.unmount();
    }
}

/// Where everything that the tests need is there, nothing may be skipped: `.ci/run` says so as root.
fn skip(why: &str) {
    println!("skipped: {why}");
    assert!(std::env::var_os("QUORATE_SKIP_NOTHING").is_none(), "skipped: {why}");
}

fn run(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

#[tokio::test]
async fn a_power_cut_takes_nothing_acknowledged() {
    let Some(disk) = Mounted::new(512) else { return };
    let mut promises = Promises::new();
    let mut rng = Rng::with_seed(5);
    let mut acknowledged = 0;
    for life in 0..6 {
        let writer = Writer::start(&disk.path());
        thread::sleep(Duration::from_millis(rng.u64(50..500)));
        writer.freeze();
        if !run(Command::new("python3").args(["-c", CUT]).arg(disk.path())) {
            writer.kill(&mut promises);
            skip("needs python3 and ext4's shutdown");
            return;
        }
        acknowledged += writer.kill(&mut promises);
        assert!(disk.unmount() && disk.mount());
        if let Err(refusal) = verify(&disk.path(), &promises).await {
            panic!("life {life}: {refusal:?}");
        }
    }
    println!("{acknowledged} acknowledgements");
    assert!(acknowledged > 30, "a writer that is cut off before it writes shows nothing");
}

#[tokio::test]
async fn a_full_disk_stops_the_writer_by_name_and_keeps_what_was_acknowledged() {
    let Some(disk) = Mounted::new(48) else { return };
    // What an administrator deletes when it has come to this.
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![1; 16 << 20]).unwrap();
    let promises = fill(&disk.path()).await;
    std::fs::remove_file(ballast).unwrap();
    verify(&disk.path(), &promises).await.unwrap();
}

async fn fill(dir: &Path) -> Promises {
    let storage = journal::open(dir).unwrap();
    let logs = journal::open_logs(&storage).await.unwrap();
    let mut promises = Promises::new();
    let failure = 'full: loop {
        for log in &logs {
            let index = next_index(log);
            let (done, durable) = tokio::sync::oneshot::channel();
            let completion = Completion::call(move |result| done.send(result).unwrap());
            log.append(vec![entry(log.replica(), index)], completion);
            match durable.await.unwrap() {
                Ok(()) => promises.entry(log.replica()).or_default().next = index + 1,
                Err(error) => break 'full error,
            }
        }
    };
    assert!(matches!(failure, StorageError::DiskFull { .. }), "{failure}");
    assert_eq!(storage.failed().await, failure);
    assert_eq!(storage.commit(Vec::new()).await, Err(failure), "nothing is tried again");
    storage.close().await;
    promises
}

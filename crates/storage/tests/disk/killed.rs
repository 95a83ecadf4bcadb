//! A process of its own writes until it is killed, and says on its standard output what was acknowledged.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use quorate_storage::{Checkpoint, Completion, StateStore};

use crate::journal::{self, KEPT, Promises, REPLICAS, entry, id, next_index, verify, vote};

const FOLDER: &str = "QUORATE_TEST_WRITER_FOLDER";
const LIVES: usize = 10;

#[tokio::test]
async fn a_killed_process_leaves_everything_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut promises = Promises::new();
    let mut rng = Rng::with_seed(3);
    let mut acknowledged = 0;
    for life in 0..LIVES {
        let writer = Writer::start(dir.path());
        // Any moment will do: it says what it has done until then.
        thread::sleep(Duration::from_millis(rng.u64(30..400)));
        acknowledged += writer.kill(&mut promises);
        if let Err(refusal) = verify(dir.path(), &promises).await {
            panic!("life {life}: {refusal:?}");
        }
    }
    println!("{acknowledged} acknowledgements in {LIVES} lives");
    assert!(acknowledged > 100, "a writer that is killed before it writes shows nothing");
}

/// A writer in a process of its own.
pub(crate) struct Writer {
    process: Child,
}

impl Writer {
    pub(crate) fn start(dir: &Path) -> Writer {
        // The test program once more, with this one test that is none.
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "killed::writer", "--nocapture"])
            .env(FOLDER, dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Writer { process }
    }

    /// Stops all its threads where they are, as a power loss would; only then is everything it says true for sure: one that
    /// still runs when ext4 is shut down under it may be told that a sync succeeded that never happened.
    pub(crate) fn freeze(&self) {
        let pid = Pid::from_raw(i32::try_from(self.process.id()).unwrap());
        kill(pid, Signal::SIGSTOP).unwrap();
        let stopped = waitpid(pid, Some(WaitPidFlag::WUNTRACED)).unwrap();
        assert!(matches!(stopped, WaitStatus::Stopped(..)), "{stopped:?}");
    }

    /// Kills it and takes what it said into `promises`; the answer is how much that was.
    pub(crate) fn kill(mut self, promises: &mut Promises) -> usize {
        self.process.kill().unwrap();
        let said = BufReader::new(self.process.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut count = 0;
        // The last line may be torn, and then ends without its mark.
        for line in said.filter(|line| line.ends_with('.')) {
            let words: Vec<&str> = line.trim_end_matches('.').split(' ').collect();
            let [kind, replica, number] = words[..] else { continue };
            let Some(replica) = REPLICAS.iter().find(|known| known.get().to_string() == replica) else { continue };
            let promised = promises.entry(*replica).or_default();
            let number: u64 = number.parse().unwrap();
            match kind {
                "log" => promised.next = promised.next.max(number),
                "vote" => promised.vote = promised.vote.max(number),
                _ => continue,
            }
            count += 1;
        }
        self.process.wait().unwrap();
        count
    }
}

/// Not a test: what [`Writer`] runs.
#[test]
fn writer() {
    let Some(dir) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(write_for_ever(&dir));
}

async fn write_for_ever(dir: &Path) {
    let storage = journal::open(dir).unwrap();
    let logs = journal::open_logs(&storage).await.unwrap();
    let mut rng = Rng::new();
    loop {
        let log = rng.choice(&logs).unwrap();
        let replica = log.replica();
        let first = next_index(log);
        let entries: Vec<_> = (first..first + rng.u64(1..6)).map(|index| entry(replica, index)).collect();
        let next = first + entries.len() as u64;
        log.append(
            entries,
            Completion::call(move |result| {
                result.unwrap();
                say("log", replica.get(), next);
            }),
        );
        if rng.u32(0..10) == 0 && next > 2 * KEPT {
            let last_applied = Some(id(next - 1 - KEPT));
            let checkpoint = Checkpoint { last_applied, membership: vec![1].into(), machine: vec![2; 50].into() };
            StateStore::new(&storage, replica).save_checkpoint(&checkpoint);
            log.purge(id(next - 1 - KEPT));
        }
        // Also what keeps the writer from running ahead of the disk for ever.
        if rng.u32(0..5) == 0 {
            let before = log.vote().map_or(0, |vote| u64::from_be_bytes(vote.as_ref().try_into().unwrap()));
            log.save_vote(vote(before + 1)).await.unwrap();
            say("vote", replica.get(), before + 1);
        }
    }
}

fn say(kind: &str, replica: u64, number: u64) {
    let line = format!("{kind} {replica} {number}.\n");
    // Unbuffered and in one call, past the capture of the test harness.
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
}

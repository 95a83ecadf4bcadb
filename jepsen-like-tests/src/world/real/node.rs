//! A node's process, and the files that belong to it.
//!
//! ```text
//! FOLDER/n1/config.toml
//!           server.log    standard output and error of all its lives
//!           image         its disk, where it has one of its own, mounted at
//!           disk/         data/ in it is the database
//! ```

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::clock::Clock;
use super::disk::Disk;
use super::memory::MemoryGroup;

/// The least there can be, so that files come and go during a run.
const STORAGE_BYTES: u64 = 32 << 20;

/// A node.
pub(super) struct Node {
    pub(super) id: u64,
    pub(super) folder: PathBuf,
    /// Where clients reach it.
    pub(super) client: String,
    /// Where the other nodes do.
    pub(super) peer: String,
    /// Where its metrics are.
    pub(super) metrics: String,
    /// Network namespace, if it has its own.
    pub(super) namespace: Option<String>,
    /// Disk, if it has its own.
    pub(super) disk: Option<Disk>,
    /// Clock, if it has its own.
    pub(super) clock: Option<Clock>,
    /// Limit of memory, if it has its own.
    pub(super) memory: Option<MemoryGroup>,
    pub(super) process: Option<Child>,
    /// How its last process ended by itself.
    pub(super) ended: Option<ExitStatus>,
    /// A fault under way may make it give up.
    pub(super) may_give_up: bool,
    /// Its disk was damaged, and it didn't notice yet.
    pub(super) is_damaged: bool,
    /// Its disk is lost: it doesn't come back in this run.
    pub(super) is_out: bool,
    pub(super) peak: Peak,
    /// Where in its log the words of its present life begin.
    log_from: u64,
}

/// How a node names what is wrong with its disk.
const REFUSALS: [&str; 11] = [
    "no space left on the disk",
    "disk input or output failed",
    "is corrupt",
    "lost durable writes",
    "is malformed",
    "has a hole",
    "durable entries were lost",
    "has no segment",
    "has layout version",
    "cannot open the data folder",
    "CORRUPT_LOG",
];

/// The most that its processes used.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Peak {
    pub(super) resident_kib: u64,
    pub(super) open_files: u64,
}

impl Node {
    pub(super) fn new(id: u64, folder: PathBuf, [client, peer, metrics]: [String; 3]) -> Self {
        Self {
            id,
            folder,
            client,
            peer,
            metrics,
            namespace: None,
            disk: None,
            clock: None,
            memory: None,
            is_damaged: false,
            is_out: false,
            process: None,
            ended: None,
            may_give_up: false,
            peak: Peak::default(),
            log_from: 0,
        }
    }

    pub(super) fn disk_folder(&self) -> PathBuf {
        self.folder.join("disk")
    }

    pub(super) fn data(&self) -> PathBuf {
        self.disk_folder().join("data")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("server.log")
    }

    pub(super) fn write_config(&self, voters: &str, suspect_after_ms: u64) -> io::Result<()> {
        let Self { id, client, peer, metrics, .. } = self;
        let data = self.data();
        let text = format!(
            "[node]\nid = {id}\ndata_dir = {data:?}\n\n[cluster]\nname = \"chaos\"\nvoters = [{voters}]\n\n\
             [listen]\nclient = \"{client}\"\npeer = \"{peer}\"\nmetrics = \"{metrics}\"\n\n\
             [detection]\nsuspect_after_ms = {suspect_after_ms}\n\n[storage]\nmemory_bytes = {STORAGE_BYTES}\n"
        );
        fs::write(self.folder.join("config.toml"), text)
    }

    /// Starts its process, which ends with the thread that calls this: also if this program is killed.
    pub(super) fn start(&mut self, quorate: &Path) -> io::Result<()> {
        let log = File::options().create(true).append(true).open(self.log())?;
        self.log_from = log.metadata()?.len();
        let mut words: Vec<String> = Vec::new();
        if let Some(namespace) = &self.namespace {
            words.extend(["nsenter".to_owned(), format!("--net=/run/netns/{namespace}")]);
        }
        // Each of these is replaced by the next: the process that is started here is the server in the end.
        words.extend(["setpriv", "--pdeathsig", "KILL", "env", "NO_COLOR=1"].map(str::to_owned));
        words.extend(self.clock.iter().flat_map(Clock::variables));
        words.extend([quorate.display().to_string(), "server".to_owned(), "--config".to_owned()]);
        words.push(self.folder.join("config.toml").display().to_string());
        let mut command = Command::new(&words[0]);
        let ours =
            std::env::vars_os().map(|(name, _)| name).filter(|name| name.to_string_lossy().starts_with("QUORATE_"));
        ours.for_each(|name| _ = command.env_remove(name));
        command.args(&words[1..]).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process = command.spawn()?;
        if let Some(memory) = &self.memory {
            memory.add(process.id())?;
        }
        self.process = Some(process);
        self.ended = None;
        Ok(())
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Sends a signal to its process. False: it has none.
    pub(super) fn signal(&self, signal: Signal) -> Result<bool, String> {
        let Some(pid) = self.pid() else { return Ok(false) };
        // It is our child and has not been waited for: the number can't belong to anybody else.
        let sent = kill(Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX)), signal);
        sent.map(|()| true).map_err(|error| format!("node {}: {error}", self.id))
    }

    /// Notices whether its process has ended.
    pub(super) fn look(&mut self) -> io::Result<()> {
        if let Some(process) = &mut self.process
            && let Some(status) = process.try_wait()?
        {
            self.ended = Some(status);
            self.process = None;
        }
        Ok(())
    }

    /// Kills its process and waits for its end. True if there was one, and this is what it died of.
    pub(super) fn kill(&mut self) -> Result<bool, String> {
        let Some(mut process) = self.process.take() else { return Ok(false) };
        let ended =
            process.kill().and_then(|()| process.wait()).map_err(|error| format!("node {}: {error}", self.id))?;
        Ok(ended.signal() == Some(Signal::SIGKILL as i32))
    }

    /// State of its process, as the kernel has it: `T` is stopped.
    pub(super) fn state(&self) -> Option<char> {
        state_in(&fs::read_to_string(format!("/proc/{}/stat", self.pid()?)).ok()?)
    }

    /// Whether each of its threads is stopped, or waits within the kernel for a disk and will be stopped then.
    pub(super) fn stands_still(&self) -> bool {
        let Some(pid) = self.pid() else { return true };
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let stats = threads.filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
        stats.filter_map(|stat| state_in(&stat)).all(|state| matches!(state, 'T' | 'D'))
    }

    /// Notes what its process uses.
    pub(super) fn measure(&mut self) {
        let Some(pid) = self.pid() else { return };
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let most = most.and_then(|most| most.trim().strip_suffix("kB")?.trim().parse().ok());
        let open = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |files| files.count() as u64);
        self.peak.resident_kib = self.peak.resident_kib.max(most.unwrap_or(0));
        self.peak.open_files = self.peak.open_files.max(open);
    }

    /// What it has logged in its present, or last, life.
    pub(super) fn said(&self) -> String {
        self.said_from(self.log_from)
    }

    /// The line in which it named what is wrong with its disk.
    pub(super) fn refusal(&self) -> Option<String> {
        let said = self.said();
        let line = said.lines().rev().find(|line| REFUSALS.iter().any(|words| line.contains(words)));
        line.map(|line| line.chars().take(200).collect())
    }

    /// How often it has panicked in all its lives.
    pub(super) fn panics(&self) -> u64 {
        self.said_from(0).matches("panicked at").count() as u64
    }

    /// The last lines of its log.
    pub(super) fn last_words(&self) -> String {
        let said = self.said();
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }

    fn said_from(&self, from: u64) -> String {
        let mut bytes = Vec::new();
        let read = || {
            let mut log = File::open(self.log())?;
            log.seek(SeekFrom::Start(from))?;
            log.read_to_end(&mut bytes)
        };
        // What can't be read was not said.
        let _: io::Result<usize> = { read }();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn state_in(stat: &str) -> Option<char> {
    // The second field is the program's name in brackets and may hold anything, even brackets.
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.trim_start().chars().next()
}

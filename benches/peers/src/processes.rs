//! Processes of other brokers: started in groups of their own, in a folder that goes with them.

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use quorate_benches::failure::Failure;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::sleep;

/// The slowest broker takes half of this on a busy machine.
const START_PATIENCE: Duration = Duration::from_secs(120);

/// A broker that was asked to stop is killed after this; its data is thrown away in any case.
const STOP_PATIENCE: Duration = Duration::from_secs(3);

const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The processes of one broker and their folder. All end when this value is dropped.
pub(crate) struct Processes {
    folder: TempDir,
    children: Vec<Child>,
}

impl Processes {
    pub(crate) fn new() -> Result<Processes, Failure> {
        Ok(Processes { folder: tempfile::Builder::new().prefix("bench-peer-").tempdir()?, children: Vec::new() })
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file into the folder.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf, Failure> {
        let path = self.folder.path().join(name);
        fs::write(&path, text)?;
        Ok(path)
    }

    /// Starts a process that logs into the folder.
    pub(crate) fn start(&mut self, name: &str, command: &mut Command) -> Result<(), Failure> {
        let log = File::create(self.log(name))?;
        // A group of its own, so that its children end with it, and Ctrl-C is for this program alone.
        command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().map_err(|error| Failure::new(format!("{program} can't be started: {error}")))?;
        self.children.push(child);
        Ok(())
    }

    /// Waits until something listens at the port, as long as every process runs.
    pub(crate) async fn wait_for_port(&mut self, name: &str, port: u16) -> Result<(), Failure> {
        let begun = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
            let ended = self.children.iter_mut().any(|child| !matches!(child.try_wait(), Ok(None)));
            if ended || begun.elapsed() > START_PATIENCE {
                return Err(Failure::new(format!("{name} doesn't serve; its last words:\n{}", self.last_words(name))));
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.out"))
    }

    fn last_words(&self, name: &str) -> String {
        let text = fs::read(self.log(name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        let signal = |child: &Child, signal| {
            // Not yet waited for, so the number is still its own.
            if let Ok(pid) = i32::try_from(child.id()) {
                _ = killpg(Pid::from_raw(pid), signal);
            }
        };
        self.children.iter().for_each(|child| signal(child, Signal::SIGTERM));
        let begun = Instant::now();
        for child in &mut self.children {
            while matches!(child.try_wait(), Ok(None)) && begun.elapsed() < STOP_PATIENCE {
                std::thread::sleep(LOOK_EVERY);
            }
            // Also what the process itself started and left behind.
            signal(child, Signal::SIGKILL);
            _ = child.wait();
        }
    }
}

/// As many different ports of the loopback interface, free at this moment.
pub(crate) fn free_ports<const COUNT: usize>() -> Result<[u16; COUNT], Failure> {
    let mut listeners = Vec::new();
    for _ in 0..COUNT {
        listeners.push(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?);
    }
    let mut ports = [0; COUNT];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}

/// What a program prints about itself, in one line; `None` if there is no such program.
pub(crate) fn said_by(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok()?;
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    let text = String::from_utf8_lossy(&text).into_owned();
    Some(text.lines().next().unwrap_or_default().trim().to_owned())
}

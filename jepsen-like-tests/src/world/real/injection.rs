//! A tracer that lets some of a process's system calls fail or take their time.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A tracer at work, until it is dropped.
pub(super) struct Injection {
    tracer: Child,
    record: PathBuf,
}

impl Injection {
    /// Attaches to a process. `rules` are words for `strace`.
    pub(super) fn start(pid: u32, rules: &[String], record: PathBuf) -> io::Result<Self> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "strace", "-f", "-q", "-p", &pid.to_string(), "-o"]).arg(&record);
        let tracer = command.args(rules).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Self { tracer, record })
    }

    /// System calls that were tampered with so far.
    pub(super) fn count(&self) -> usize {
        let record = fs::read_to_string(&self.record).unwrap_or_default();
        record.matches("(INJECTED)").count() + record.matches("(DELAYED)").count()
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        // Our child, and not waited for. It lets go of the process when it is told to end.
        let _ = kill(Pid::from_raw(i32::try_from(self.tracer.id()).unwrap_or(i32::MAX)), Signal::SIGTERM);
        let _ = self.tracer.wait();
    }
}

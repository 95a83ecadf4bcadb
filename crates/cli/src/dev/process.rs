//! A process that we started, told apart from any later one that got its number.

use nix::errno::Errno;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How often a process is looked at while waiting for its end.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Process numbers are reused, so a number alone is no licence to send a signal: the start time must
/// fit too, and the machine must not have been restarted since.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub(crate) struct ProcessIdentity {
    pub(crate) pid: i32,
    /// Clock ticks between the machine's start and the process's.
    started_ticks: u64,
    /// Changes with every start of the machine.
    boot: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProcessState {
    Running,
    /// By SIGSTOP.
    Paused,
    Gone,
}

impl ProcessIdentity {
    /// The process that has this number now. The caller must still be its parent, so that the number
    /// can't have passed on.
    pub(crate) fn of(pid: u32) -> io::Result<ProcessIdentity> {
        let pid = i32::try_from(pid).map_err(io::Error::other)?;
        let (_, started_ticks) = look_at(pid)?;
        Ok(ProcessIdentity { pid, started_ticks, boot: boot()? })
    }

    pub(crate) fn state(&self) -> ProcessState {
        let same_boot = boot().is_ok_and(|boot| boot == self.boot);
        match look_at(self.pid) {
            // A process that ended but whose parent hasn't noticed yet is as good as gone.
            Ok((letter, started)) if same_boot && started == self.started_ticks => match letter {
                'Z' | 'X' => ProcessState::Gone,
                'T' => ProcessState::Paused,
                _ => ProcessState::Running,
            },
            _ => ProcessState::Gone,
        }
    }

    /// Sends a signal, if the process is still there; says whether it was.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<bool> {
        if self.state() == ProcessState::Gone {
            return Ok(false);
        }
        match signal::kill(Pid::from_raw(self.pid), signal) {
            Ok(()) => Ok(true),
            Err(Errno::ESRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for the end of the process; says whether it came in time.
    pub(crate) async fn ends_within(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while self.state() != ProcessState::Gone {
            if Instant::now() >= deadline {
                return false;
            }
            sleep(LOOK_EVERY).await;
        }
        true
    }
}

/// State letter and start time, from `/proc/PID/stat`.
fn look_at(pid: i32) -> io::Result<(char, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    state_and_start(&stat).ok_or_else(|| io::Error::other("malformed /proc/PID/stat"))
}

fn state_and_start(stat: &str) -> Option<(char, u64)> {
    // The second field is the program's name in brackets and may hold anything, even brackets.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace();
    let state = fields.next()?.chars().next()?;
    // The start time is the 22nd field; the state was the third.
    let started = fields.nth(18)?.parse().ok()?;
    Some((state, started))
}

fn boot() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn the_start_time_is_found_behind_any_name() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 96 0 0 0 0 1 0 0 20 0 1 0 98765 2 3 4";
        assert_eq!(state_and_start(stat), Some(('S', 98765)));
    }

    #[tokio::test]
    async fn a_process_is_paused_resumed_and_ended_by_its_identity() {
        let mut child = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().expect("sleep starts");
        let process = ProcessIdentity::of(child.id()).expect("it is there");
        assert_ne!(process.state(), ProcessState::Gone);

        assert!(process.signal(Signal::SIGSTOP).expect("may be stopped"));
        while process.state() != ProcessState::Paused {
            tokio::task::yield_now().await;
        }
        assert!(process.signal(Signal::SIGCONT).expect("may be continued"));
        assert!(process.signal(Signal::SIGKILL).expect("may be killed"));
        assert!(process.ends_within(Duration::from_secs(10)).await);
        assert!(!process.signal(Signal::SIGKILL).expect("nothing to do"));
        child.wait().expect("it ended");
    }

    #[test]
    fn another_process_with_the_same_number_is_left_alone() {
        let mut own = ProcessIdentity::of(std::process::id()).expect("we are there");
        own.started_ticks += 1;
        assert_eq!(own.state(), ProcessState::Gone);
        assert!(!own.signal(Signal::SIGKILL).expect("nothing was sent"));
    }
}

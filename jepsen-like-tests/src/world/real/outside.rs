//! What can be done to the nodes from outside: to what is between them, to their disks, clocks and memory.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::clock::seconds_of;
use super::disk::Disk;
use super::injection::Injection;
use super::memory::MemoryGroup;
use super::network::{Network, Treatment, Way, within};
use super::switch::{Delivery, Switch};
use super::{Clock, RealWorld};

/// Threads stop when they next leave the kernel, at once unless that waits for a disk.
const FREEZE_PATIENCE: Duration = Duration::from_secs(5);

/// How long a node's answer is waited for.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);

impl RealWorld {
    /// Treats packets of some ways differently from now on.
    ///
    /// # Errors
    /// If the rules can't be changed.
    pub fn treat(&self, treatment: Treatment, ways: &[Way]) -> Result<(), String> {
        self.network()?.treat(treatment, ways)
    }

    /// Treats them as all others again.
    ///
    /// # Errors
    /// If the rules can't be changed.
    pub fn leave_alone(&self, treatment: Treatment, ways: &[Way]) -> Result<(), String> {
        self.network()?.leave_alone(treatment, ways)
    }

    /// How many of a hundred packets are lost on a lossy way.
    ///
    /// # Errors
    /// If the rules can't be changed.
    pub fn lose(&self, percent: u8) -> Result<(), String> {
        self.network()?.lose(percent)
    }

    /// Packets that a treatment has dropped so far.
    ///
    /// # Errors
    /// If the rules can't be read.
    pub fn dropped(&self, treatment: Treatment) -> Result<u64, String> {
        self.network()?.dropped(treatment)
    }

    /// Brings packets of some ways late to their place from now on, and some twice.
    ///
    /// # Errors
    /// If the cables can't be reached.
    pub fn slow_down(&mut self, ways: &[Way], delivery: Delivery, seed: u64) -> Result<(), String> {
        let switch = Switch::start(self.network()?.hub(), ways, delivery, seed)?;
        self.network()?.treat(Treatment::Slow, ways)?;
        self.switch = Some(switch);
        Ok(())
    }

    /// Brings them straight to their place again. Packets that came late, and those of them that came twice.
    ///
    /// # Errors
    /// If the rules can't be changed.
    pub fn speed_up(&mut self, ways: &[Way]) -> Result<(u64, u64), String> {
        self.network()?.leave_alone(Treatment::Slow, ways)?;
        Ok(self.switch.take().map_or((0, 0), |switch| switch.counts()))
    }

    /// Breaks the connections between two parties. Returns how many there were.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn reset_connections(&self, a: u64, b: u64) -> Result<usize, String> {
        self.network()?.reset_connections(a, b)
    }

    /// Takes the power of nodes and their disks at the same moment.
    ///
    /// # Errors
    /// If a disk goes on.
    pub fn cut_power(&mut self, nodes: &[u64]) -> Result<(), String> {
        // What they do when their disks go is nobody's concern: they are dead.
        nodes.iter().for_each(|node| self.let_give_up(*node, true));
        // They must stand still before their disks do: a sync that is under way then may return without an error, and a
        // machine without power tells nobody of it.
        nodes.iter().try_for_each(|node| self.freeze(*node))?;
        let disks = nodes.iter().map(|node| self.disk(*node)).collect::<Result<Vec<&Disk>, String>>()?;
        Disk::cut_power(&disks)?;
        nodes.iter().try_for_each(|node| self.kill(*node).map(drop))
    }

    /// Stops a node, and returns when none of its threads does anything any more of its own accord.
    pub(super) fn freeze(&self, node: u64) -> Result<(), String> {
        if !self.signal(node, Signal::SIGSTOP)? {
            return Ok(());
        }
        let deadline = Instant::now() + FREEZE_PATIENCE;
        while !self.node(node).stands_still() {
            if Instant::now() > deadline {
                return Err(format!("node {node} doesn't stand still"));
            }
            thread::yield_now();
        }
        Ok(())
    }

    /// Gives nodes their power again and starts them. How many disks had been cut off in the midst of their work.
    ///
    /// # Errors
    /// If a disk doesn't come back.
    pub fn restore_power(&mut self, nodes: &[u64]) -> Result<usize, String> {
        let mut cut_off = 0;
        for node in nodes {
            cut_off += usize::from(self.disk(*node)?.come_back()?);
            self.let_give_up(*node, false);
            self.start(*node)?;
        }
        Ok(cut_off)
    }

    /// Takes all room that is left on a node's disk, and returns how much that was.
    ///
    /// # Errors
    /// If there is no such disk.
    pub fn fill_disk(&self, node: u64) -> Result<u64, String> {
        self.disk(node)?.fill()
    }

    /// Gives it back.
    ///
    /// # Errors
    /// If it wasn't taken.
    pub fn make_room(&self, node: u64) -> Result<(), String> {
        self.disk(node)?.empty()
    }

    /// Sets a node's wall clock: `+90` goes 90 s before the right one, `+0 x1.5` runs faster.
    ///
    /// # Errors
    /// If it has none of its own.
    pub fn set_clock(&self, node: u64, to: &str) -> Result<(), String> {
        let clock: Option<&Clock> = self.node(node).clock.as_ref();
        let clock = clock.ok_or_else(|| format!("node {node} has no clock of its own"))?;
        clock.set(to).map_err(|error| error.to_string())
    }

    /// The time of day as a node has it, in seconds: it puts it on each of its answers. `None`: it didn't answer.
    #[must_use]
    pub fn time_of(&self, node: u64) -> Option<u64> {
        let node = self.node(node);
        let ask = || ask_for_time(&node.metrics).map_err(|error| error.to_string());
        let answer = match &node.namespace {
            Some(namespace) => within(namespace, ask),
            None => ask(),
        };
        let answer = answer.ok()?;
        let date = answer.lines().find_map(|line| line.strip_prefix("date: "))?;
        seconds_of(date)
    }

    /// Lets a node have no more than so many bytes above what it holds; `None`: as many as it likes.
    ///
    /// # Errors
    /// If its memory isn't counted.
    pub fn limit_memory(&self, node: u64, above: Option<u64>) -> Result<(), String> {
        self.memory(node)?.limit(above)
    }

    /// How often a node met its limit, and how often it was killed for that.
    ///
    /// # Errors
    /// If its memory isn't counted.
    pub fn memory_failures(&self, node: u64) -> Result<(u64, u64), String> {
        self.memory(node)?.failures()
    }

    /// Lets some of a node's system calls fail or take their time from now on. False: it has no process.
    ///
    /// # Errors
    /// If the tracer can't be started.
    pub fn inject(&mut self, node: u64, rules: &[String]) -> Result<bool, String> {
        let Some(pid) = self.pid(node) else { return Ok(false) };
        let record = self.node(node).folder.join("injected");
        let injection = Injection::start(pid, rules, record).map_err(|error| error.to_string())?;
        self.injection = Some(injection);
        Ok(true)
    }

    /// System calls that were tampered with so far.
    #[must_use]
    pub fn injected(&self) -> usize {
        self.injection.as_ref().map_or(0, Injection::count)
    }

    /// No longer.
    pub fn stop_injecting(&mut self) {
        self.injection = None;
    }

    /// Where a node's database is.
    #[must_use]
    pub fn data(&self, node: u64) -> PathBuf {
        self.node(node).data()
    }

    /// Copies a node's database, as it is on its disk, to where [`Self::bring_back`] finds it.
    ///
    /// # Errors
    /// If it can't be read or written.
    pub fn set_aside(&self, node: u64) -> Result<PathBuf, String> {
        let node = self.node(node);
        let aside = node.folder.join("aside");
        replace(&node.data(), &aside)?;
        Ok(aside)
    }

    /// Replaces a node's database by what was set aside.
    ///
    /// # Errors
    /// If it can't be read or written.
    pub fn bring_back(&self, node: u64) -> Result<(), String> {
        let node = self.node(node);
        replace(&node.folder.join("aside"), &node.data())
    }

    fn network(&self) -> Result<&Network, String> {
        self.network.as_ref().ok_or_else(|| "the nodes have no network of their own".to_owned())
    }

    fn disk(&self, node: u64) -> Result<&Disk, String> {
        self.node(node).disk.as_ref().ok_or_else(|| format!("node {node} has no disk of its own"))
    }

    fn memory(&self, node: u64) -> Result<&MemoryGroup, String> {
        self.node(node).memory.as_ref().ok_or_else(|| format!("the memory of node {node} isn't counted"))
    }
}

/// Makes `to` a copy of `from`. Files that go meanwhile are not in it.
fn replace(from: &Path, to: &Path) -> Result<(), String> {
    let copy = || -> std::io::Result<()> {
        if to.exists() {
            fs::remove_dir_all(to)?;
        }
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let copied = to.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                replace(&entry.path(), &copied).map_err(std::io::Error::other)?;
            } else if let Err(error) = fs::copy(entry.path(), copied)
                && error.kind() != ErrorKind::NotFound
            {
                return Err(error);
            }
        }
        Ok(())
    };
    copy().map_err(|error| format!("{} to {}: {error}", from.display(), to.display()))
}

fn ask_for_time(address: &str) -> std::io::Result<String> {
    let address: SocketAddr = address.parse().map_err(std::io::Error::other)?;
    let mut connection = TcpStream::connect_timeout(&address, ANSWER_PATIENCE)?;
    connection.set_read_timeout(Some(ANSWER_PATIENCE))?;
    connection.write_all(b"GET /livez HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer)
}

//! The processes of the development cluster, remembered in a file from one command to the next.

use super::layout::NodeLayout;
use super::process::{ProcessIdentity, ProcessState};
use crate::failure::Failure;
use crate::folders;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use std::env;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A node that was asked to stop hands over its leaderships first; after this it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// The cluster that `quorate dev` started last on behalf of this user.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct DevCluster {
    pub(crate) folder: PathBuf,
    /// Whether the folder goes when the cluster stops.
    pub(crate) ephemeral: bool,
    /// The context that was selected before, and is again afterwards.
    pub(crate) previous_context: Option<String>,
    pub(crate) nodes: Vec<DevNode>,
}

/// One server process and what belongs to it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct DevNode {
    pub(crate) id: u64,
    pub(crate) client: String,
    pub(crate) peer: String,
    pub(crate) metrics: String,
    pub(crate) folder: PathBuf,
    process: Option<ProcessIdentity>,
}

/// Held by a command that starts or stops processes, so that two of them don't mix.
pub(crate) struct DevLock(#[expect(dead_code, reason = "closing the file gives the lock back")] File);

impl DevLock {
    pub(crate) fn take() -> Result<DevLock, Failure> {
        let path = folders::dev_state_file()?.with_extension("lock");
        let lock = || {
            fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
            let file = File::options().create(true).truncate(false).write(true).open(&path)?;
            file.lock()?;
            Ok(DevLock(file))
        };
        lock().map_err(|error: io::Error| Failure::new(format!("{} can't be locked: {error}", path.display())))
    }
}

impl DevCluster {
    /// The cluster that runs, or at least has a process left.
    pub(crate) fn running() -> Result<DevCluster, Failure> {
        let none = || Failure::new("no development cluster is running").advise("`quorate dev` starts one");
        DevCluster::load()?.ok_or_else(none)
    }

    /// What the file says, whether the processes are still there or not.
    pub(crate) fn load() -> Result<Option<DevCluster>, Failure> {
        let path = folders::dev_state_file()?;
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::new(format!("{} can't be read: {error}", path.display()))),
        };
        serde_json::from_str(&text).map(Some).map_err(|error| {
            Failure::new(format!("{}: {error}", path.display()))
                .advise("stop the processes by hand and remove the file")
        })
    }

    pub(crate) fn save(&self) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(self).map_err(|error| Failure::new(error.to_string()))?;
        folders::replace_file(&folders::dev_state_file()?, &text)
    }

    pub(crate) fn node(&self, id: u64) -> Result<&DevNode, Failure> {
        self.position(id).map(|position| &self.nodes[position])
    }

    pub(crate) fn client_addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.client.clone()).collect()
    }

    pub(crate) fn any_process(&self) -> bool {
        self.nodes.iter().any(|node| node.state() != ProcessState::Gone)
    }

    /// Whether more than half of the nodes have a process that isn't paused.
    pub(crate) fn majority_runs(&self) -> bool {
        2 * self.nodes.iter().filter(|node| node.state() == ProcessState::Running).count() > self.nodes.len()
    }

    /// Starts the process of a node and remembers it.
    pub(crate) fn start(&mut self, id: u64) -> Result<(), Failure> {
        let position = self.position(id)?;
        self.nodes[position].start()?;
        self.save()
    }

    /// Stops all processes: all are asked first, so that they stop side by side.
    pub(crate) async fn stop(&self) -> Result<(), Failure> {
        for node in &self.nodes {
            node.ask_to_stop()?;
        }
        for node in &self.nodes {
            node.see_stopped().await?;
        }
        Ok(())
    }

    /// Removes the data, if it was to be thrown away.
    pub(crate) fn remove_ephemeral_folder(&self) -> Result<(), Failure> {
        if self.ephemeral && self.folder.exists() {
            fs::remove_dir_all(&self.folder)
                .map_err(|error| Failure::new(format!("{} can't be removed: {error}", self.folder.display())))?;
        }
        Ok(())
    }

    /// Forgets the processes.
    pub(crate) fn forget(&self) -> Result<(), Failure> {
        match fs::remove_file(folders::dev_state_file()?) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn position(&self, id: u64) -> Result<usize, Failure> {
        self.nodes.iter().position(|node| node.id == id).ok_or_else(|| {
            let ids: Vec<String> = self.nodes.iter().map(|node| node.id.to_string()).collect();
            Failure::new(format!("there is no node {id}")).advise(format!("choose one of {}", ids.join(", ")))
        })
    }
}

impl DevNode {
    pub(crate) fn new(layout: NodeLayout) -> DevNode {
        let NodeLayout { id, folder, client, peer, metrics } = layout;
        DevNode { id, client, peer, metrics, folder, process: None }
    }

    pub(crate) fn pid(&self) -> Option<i32> {
        self.process.as_ref().filter(|process| process.state() != ProcessState::Gone).map(|process| process.pid)
    }

    pub(crate) fn state(&self) -> ProcessState {
        self.process.as_ref().map_or(ProcessState::Gone, ProcessIdentity::state)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.join("config.toml")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("server.log")
    }

    /// The last lines that the server wrote, to say why it isn't there.
    pub(crate) fn last_words(&self) -> String {
        let text = fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }

    /// Sends a signal to the node's process.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Failure> {
        let sent = self.process.as_ref().map_or(Ok(false), |process| process.signal(signal));
        match sent {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failure::new(format!("node {} has no process", self.id))
                .advise(format!("`quorate dev restart {}` starts it again", self.id))),
            Err(error) => Err(Failure::new(format!("node {} can't be signalled: {error}", self.id))),
        }
    }

    /// Waits for the end of a process that was killed.
    pub(crate) async fn see_killed(&self) -> Result<(), Failure> {
        match &self.process {
            Some(process) if !process.ends_within(STOP_PATIENCE).await => {
                Err(Failure::new(format!("node {} (process {}) doesn't end", self.id, process.pid)))
            }
            _ => Ok(()),
        }
    }

    /// Asks the process to stop, if there is one.
    pub(crate) fn ask_to_stop(&self) -> Result<(), Failure> {
        if let Some(process) = &self.process {
            process.signal(Signal::SIGTERM)?;
            // A paused process can't act on it before it runs again.
            process.signal(Signal::SIGCONT)?;
        }
        Ok(())
    }

    /// Waits until the process has stopped, and in the end makes it.
    pub(crate) async fn see_stopped(&self) -> Result<(), Failure> {
        let Some(process) = &self.process else { return Ok(()) };
        if process.ends_within(STOP_PATIENCE).await {
            return Ok(());
        }
        eprintln!("node {} has not stopped within {} s: killing it", self.id, STOP_PATIENCE.as_secs());
        process.signal(Signal::SIGKILL)?;
        self.see_killed().await
    }

    fn start(&mut self) -> Result<(), Failure> {
        let spawn = || {
            let log = File::options().create(true).append(true).open(self.log())?;
            let mut command = Command::new(env::current_exe()?);
            command.arg("server").arg("--config").arg(self.config());
            // Variables meant for the command line, or for one node, must not reach all of them.
            let ours =
                env::vars_os().map(|(name, _)| name).filter(|name| name.to_string_lossy().starts_with("QUORATE_"));
            ours.for_each(|name| _ = command.env_remove(name));
            command.env("NO_COLOR", "1");
            // A group of its own: Ctrl-C is for the foreground command, which then stops the nodes in order.
            command.process_group(0);
            command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
            ProcessIdentity::of(command.spawn()?.id())
        };
        let process = spawn();
        let process =
            process.map_err(|error: io::Error| Failure::new(format!("node {} can't be started: {error}", self.id)))?;
        self.process = Some(process);
        Ok(())
    }
}

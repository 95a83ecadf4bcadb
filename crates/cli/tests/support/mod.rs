//! A real cluster for a test: processes started and stopped through `quorate dev`, as a person would.

#![allow(dead_code, reason = "each test binary uses a part")]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longest that any single command may take. Generous: it only bounds how long a hang goes unnoticed.
const COMMAND_PATIENCE: Duration = Duration::from_secs(180);

/// Pause between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Two clusters at once would only make each other slow: the tests of a binary take turns.
static TURN: Mutex<()> = Mutex::new(());

/// A user of his own, whom contexts and clusters of others don't concern. His cluster ends with this value.
pub(crate) struct User {
    home: TempDir,
}

/// What a command said and how it ended.
pub(crate) struct Said {
    pub(crate) command: String,
    pub(crate) code: Option<i32>,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

/// A cluster that lives as long as this value; torn down even when the test panics.
pub(crate) struct Cluster {
    // Before the turn, because values are dropped in this order.
    user: User,
    pub(crate) nodes: Vec<Node>,
    _turn: MutexGuard<'static, ()>,
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) id: u64,
    pub(crate) client: String,
    pub(crate) config: PathBuf,
    pub(crate) log: PathBuf,
}

impl User {
    pub(crate) fn new() -> User {
        User { home: tempfile::tempdir().expect("a home folder") }
    }

    /// A command line of `quorate`, not yet run.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
        command.args(arguments).env_remove("QUORATE_SERVER").env("NO_COLOR", "1");
        command.env("HOME", self.home.path()).env("TMPDIR", self.home.path());
        for variable in ["XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME"] {
            command.env(variable, self.home.path().join(variable));
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        self.run_with_input(arguments, b"")
    }

    pub(crate) fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Said {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().expect("quorate starts");
        let mut pipe = child.stdin.take().expect("its input is a pipe");
        let input = input.to_vec();
        // A command may end without reading its input: then the rest has no reader, which is no error.
        thread::spawn(move || _ = pipe.write_all(&input));
        finish(child, arguments)
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }
}

/// Waits for a command's end, but not forever.
pub(crate) fn finish(child: std::process::Child, arguments: &[&str]) -> Said {
    let command = format!("quorate {}", arguments.join(" "));
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process number"));
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || _ = sender.send(child.wait_with_output()));
    let output: Output = match receiver.recv_timeout(COMMAND_PATIENCE) {
        Ok(output) => output.expect("its output can be read"),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            // Still our child and not yet waited for: the number can't belong to anybody else.
            _ = kill(pid, Signal::SIGKILL);
            panic!("`{command}` hangs: no end after {COMMAND_PATIENCE:?}");
        }
    };
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    Said { command, code: output.status.code(), out: output.stdout, err }
}

impl Said {
    /// The command must have succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> Said {
        assert_eq!(self.code, Some(0), "`{}` failed\n{}\n{}", self.command, self.text(), self.err);
        self
    }

    /// The command must have failed with this code, and said why.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, says: &[&str]) -> Said {
        assert_eq!(self.code, Some(code), "`{}`\n{}\n{}", self.command, self.text(), self.err);
        for word in says {
            assert!(self.err.contains(word), "`{}` doesn't say {word:?}:\n{}", self.command, self.err);
        }
        self
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// The lines of a `-o json` output.
    #[track_caller]
    pub(crate) fn objects(&self) -> Vec<Value> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        self.text().lines().map(parse).collect()
    }

    /// The only line of a `-o json` output.
    #[track_caller]
    pub(crate) fn object(&self) -> Value {
        let mut objects = self.objects();
        assert_eq!(objects.len(), 1, "`{}`: {}", self.command, self.text());
        objects.remove(0)
    }
}

impl Cluster {
    /// A new cluster on a folder of its own, ready to use.
    pub(crate) fn start(nodes: usize) -> Cluster {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let user = User::new();
        let count = nodes.to_string();
        let started = user.run(&["dev", "--nodes", &count, "--ephemeral", "--detach", "-o", "json"]).ok().object();
        let nodes = started["nodes"].as_array().expect("a list of nodes").iter().map(Node::of).collect();
        Cluster { user, nodes, _turn: turn }
    }

    pub(crate) fn user(&self) -> &User {
        &self.user
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        self.user.run(arguments)
    }

    pub(crate) fn servers(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.client.clone()).collect()
    }

    pub(crate) fn node(&self, id: u64) -> &Node {
        self.nodes.iter().find(|node| node.id == id).expect("a node of the cluster")
    }

    /// The process of a node, if it has one.
    pub(crate) fn pid(&self, id: u64) -> Option<Pid> {
        let rows = self.run(&["dev", "status", "-o", "json"]).ok().objects();
        let row = rows.into_iter().find(|row| row["node_id"] == id).expect("the node is listed");
        row["pid"].as_i64().map(|pid| Pid::from_raw(i32::try_from(pid).expect("a process number")))
    }

    /// The leader of a partition, once there is one.
    pub(crate) fn leader(&self, topic: &str, partition: usize) -> u64 {
        eventually("the partition has a leader", || {
            let topic = self.run(&["topic", "get", topic, "-o", "json"]).ok().object();
            topic["partition_status"][partition]["leader_node_id"].as_u64().filter(|leader| *leader != 0)
        })
    }

    /// Waits until every node is up and every partition led.
    pub(crate) fn wait_healthy(&self) {
        self.run(&["cluster", "health", "--wait"]).ok();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if thread::panicking() {
            for node in &self.nodes {
                let log = std::fs::read_to_string(&node.log).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                eprintln!("--- node {}, last lines:\n{}", node.id, lines[lines.len().saturating_sub(30)..].join("\n"));
            }
        }
    }
}

/// No process of a user outlives him.
impl Drop for User {
    fn drop(&mut self) {
        if !self.home.path().join("XDG_STATE_HOME/quorate/dev.json").exists() {
            return;
        }
        // Must not panic: the test's own panic may be under way.
        let stopped = self.command(&["dev", "stop"]).output();
        if !stopped.is_ok_and(|output| output.status.success()) {
            eprintln!("the cluster could not be stopped");
        }
    }
}

impl Node {
    fn of(row: &Value) -> Node {
        let text = |field: &str| row[field].as_str().unwrap_or_else(|| panic!("{field} in {row}")).to_owned();
        Node {
            id: row["node_id"].as_u64().expect("a number"),
            client: text("client"),
            config: text("config").into(),
            log: text("log").into(),
        }
    }
}

/// Looks again and again until the answer is there; fails after a minute.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(answer) = look() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        thread::park_timeout(LOOK_EVERY);
    }
}

/// The bytes of a message printed as JSON.
#[track_caller]
pub(crate) fn data(message: &Value) -> Vec<u8> {
    use base64::Engine;
    match (&message["data"], &message["data_base64"]) {
        (Value::String(text), Value::Null) => text.clone().into_bytes(),
        (Value::Null, Value::String(text)) => base64::engine::general_purpose::STANDARD.decode(text).expect("base64"),
        _ => panic!("a message has either data or data_base64: {message}"),
    }
}

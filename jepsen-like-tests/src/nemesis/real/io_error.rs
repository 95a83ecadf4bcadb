//! The disk refuses a write or a sync. Nobody knows then what is on it: the node must say so and stop, not try again.

use fastrand::Rng;

use super::damage::files;
use super::refusal::refusal;
use super::{Begun, any, any_node};
use crate::nemesis::Fault;
use crate::world::real::RealWorld;

struct IoError {
    node: u64,
    outcome: String,
}

pub(super) fn begin(world: &mut RealWorld, rng: &mut Rng) -> Result<Begun, String> {
    let node = any_node(world, rng);
    let nth = rng.u32(1..=200);
    let (calls, error) =
        any(&[("fsync,fdatasync", "EIO"), ("write,pwrite64", "EIO"), ("write,pwrite64", "ENOSPC")], rng);
    world.let_give_up(node, true);
    let mut rules = vec![
        "-e".to_owned(),
        format!("trace={calls}"),
        "-e".to_owned(),
        format!("inject={calls}:error={error}:when={nth}+"),
    ];
    if calls.starts_with("write") {
        // Connections are written to with the same calls.
        let files = log_files(world, node)?;
        rules.extend(files.into_iter().flat_map(|file| ["-P".to_owned(), file]));
    }
    world.inject(node, &rules)?;
    let detail = format!("{calls} of node {node} fail with {error}, from the {nth}th of each thread on");
    Ok((Box::new(IoError { node, outcome: String::new() }), detail))
}

/// The database's own log, which every append is written to.
fn log_files(world: &RealWorld, node: u64) -> Result<Vec<String>, String> {
    let data = world.data(node);
    let files = files(&data).map_err(|error| format!("{}: {error}", data.display()))?;
    let logs = files.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    let logs: Vec<String> = logs.map(|path| path.display().to_string()).collect();
    // Without a file to keep to, all of the node's writes would fail.
    if logs.is_empty() { Err(format!("{} holds no log", data.display())) } else { Ok(logs) }
}

impl Fault<RealWorld> for IoError {
    fn go_on(&mut self, world: &mut RealWorld) -> Result<bool, String> {
        Ok(!world.is_running(self.node))
    }

    fn end(&mut self, world: &mut RealWorld) -> Result<bool, String> {
        let gave_up = !world.is_running(self.node);
        world.stop_injecting();
        self.outcome = if gave_up { refusal(world, self.node)? } else { "it met no error".to_owned() };
        if !gave_up {
            // It may have met one since it was looked at.
            world.kill(self.node)?;
        }
        world.let_give_up(self.node, false);
        world.start(self.node)?;
        Ok(gave_up)
    }

    fn outcome(&self) -> String {
        self.outcome.clone()
    }
}

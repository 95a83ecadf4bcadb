//! Files of a node that was stopped are damaged: bits flip, an end goes missing, or an older state comes back. The node must
//! refuse them by name, or do as well with them as without the damage; it must never serve something else.
//!
//! A node that refuses to start has promised nothing since: it gets the files that it had, and goes on. One that starts
//! keeps its damaged files; if it finds the damage later, it must say so, and stays away for the rest of the run.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use fastrand::Rng;

use super::refusal::refusal;
use super::{Begun, Nothing, any_node};
use crate::nemesis::Fault;
use crate::world::real::RealWorld;

/// Age of an older state.
const AGE: Duration = Duration::from_millis(300);

/// One node in a run has damaged files, so that all others together always hold everything.
struct Damage {
    node: u64,
    outcome: String,
}

/// Does something to the files of a database, of which there is an older copy; what it did, if anything.
type Spoil = fn(&Path, &Path, &mut Rng) -> io::Result<Option<String>>;

pub(super) fn begin_flip(world: &mut RealWorld, rng: &mut Rng) -> Result<Begun, String> {
    begin(world, rng, flip)
}

pub(super) fn begin_truncate(world: &mut RealWorld, rng: &mut Rng) -> Result<Begun, String> {
    begin(world, rng, truncate)
}

pub(super) fn begin_stale(world: &mut RealWorld, rng: &mut Rng) -> Result<Begun, String> {
    begin(world, rng, stale)
}

fn begin(world: &mut RealWorld, rng: &mut Rng, spoil: Spoil) -> Result<Begun, String> {
    let node = world.damaged_node().unwrap_or_else(|| any_node(world, rng));
    if !world.nodes().contains(&node) {
        return Ok((Box::new(Nothing), format!("node {node} is away already")));
    }
    // An older state, while it works.
    let old = world.set_aside(node)?;
    let older = old.with_extension("older");
    let moved = fs::remove_dir_all(&older).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    });
    moved.and_then(|()| fs::rename(&old, &older)).map_err(|error| format!("{}: {error}", older.display()))?;
    // Some files must have changed since.
    thread::sleep(AGE);
    // In order, because then it has noted how much it had written. Of what it wrote in the last second before it was
    // killed it can't know that there was more (see docs/data-layout.md).
    world.let_give_up(node, true);
    world.stop(node)?;
    world.set_aside(node)?;
    let done = spoil(&world.data(node), &older, rng).map_err(|error| error.to_string())?;
    world.start(node)?;
    let Some(done) = done else {
        world.let_give_up(node, false);
        return Ok((Box::new(Nothing), format!("node {node}: no file had changed")));
    };
    let detail = format!("node {node}: {done}");
    Ok((Box::new(Damage { node, outcome: String::new() }), detail))
}

/// A few bits in one to three files.
fn flip(data: &Path, _: &Path, rng: &mut Rng) -> io::Result<Option<String>> {
    let mut done = Vec::new();
    for _ in 0..rng.u8(1..=3) {
        let path = any_file(data, rng)?;
        let mut bytes = fs::read(&path)?;
        for _ in 0..2 {
            let at = rng.usize(..bytes.len());
            bytes[at] ^= 1 << rng.u8(..8);
            done.push(format!("a bit of byte {at} of {} in {}", bytes.len(), name(&path)));
        }
        fs::write(&path, bytes)?;
    }
    Ok(Some(format!("{} flipped", done.join(", "))))
}

/// The end of one file: mostly little, sometimes most of it.
fn truncate(data: &Path, _: &Path, rng: &mut Rng) -> io::Result<Option<String>> {
    let path = any_file(data, rng)?;
    let bytes = fs::metadata(&path)?.len();
    let at_most = 1 << rng.u8(1..24);
    let gone = rng.u64(1..=bytes.min(at_most));
    File::options().write(true).open(&path)?.set_len(bytes - gone)?;
    Ok(Some(format!("the last {gone} bytes of {bytes} of {} gone", name(&path))))
}

/// An older state of one file.
fn stale(data: &Path, older: &Path, rng: &mut Rng) -> io::Result<Option<String>> {
    let mut changed = Vec::new();
    for path in files(data)? {
        let old = older.join(path.strip_prefix(data).unwrap_or(&path));
        if old.exists() && fs::read(&old)? != fs::read(&path)? {
            changed.push((old, path));
        }
    }
    rng.shuffle(&mut changed);
    let Some((old, path)) = changed.pop() else { return Ok(None) };
    let (was, is) = (fs::metadata(&old)?.len(), fs::metadata(&path)?.len());
    fs::copy(&old, &path)?;
    Ok(Some(format!("{} as it was a moment ago, {was} bytes instead of {is}", name(&path))))
}

fn any_file(data: &Path, rng: &mut Rng) -> io::Result<PathBuf> {
    let mut files = files(data)?;
    rng.shuffle(&mut files);
    files.pop().ok_or_else(|| io::Error::other("the database has no files"))
}

/// Files that hold something. What the database logs for people and the lock file are nothing that it reads.
pub(super) fn files(data: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(data)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(self::files(&path)?);
            continue;
        }
        let read = !name(&path).starts_with("LOG") && name(&path) != "LOCK";
        if read && fs::metadata(&path)?.len() > 0 {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

impl Fault<RealWorld> for Damage {
    fn go_on(&mut self, world: &mut RealWorld) -> Result<bool, String> {
        Ok(!world.is_running(self.node))
    }

    fn end(&mut self, world: &mut RealWorld) -> Result<bool, String> {
        if world.is_running(self.node) {
            self.outcome = "opened, and goes on with it".to_owned();
            world.is_damaged(self.node);
        } else if world.has_served(self.node) {
            // It may have promised something since: the files that it had are too old.
            self.outcome = format!("opened, and later {}; stays away", refusal(world, self.node)?);
            world.give_up_on(self.node);
        } else {
            self.outcome = refusal(world, self.node)?;
            world.bring_back(self.node)?;
            world.start(self.node)?;
        }
        world.let_give_up(self.node, false);
        Ok(true)
    }

    fn outcome(&self) -> String {
        self.outcome.clone()
    }
}

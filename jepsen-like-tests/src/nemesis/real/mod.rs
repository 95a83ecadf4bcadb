//! Faults of the real world. Each says what it needs; what can't be had is left out.

mod clock;
mod damage;
mod delay;
mod flapping;
mod full_disk;
mod io_error;
mod kill;
mod leader;
mod loss;
mod memory;
mod partition;
mod pause;
mod power;
mod refusal;
mod reset;
mod rolling;
mod slow_disk;

use super::{Begin, Fault, Harm, any};
use crate::world::real::{Host, Need, RealWorld, Way};

type Begun = super::Begun<RealWorld>;
type Kind = super::Kind<RealWorld>;

/// What can be had here, and what can't, with the reason.
#[must_use]
pub fn kinds(host: &Host) -> (Vec<Kind>, Vec<(&'static str, String)>) {
    let (mut kinds, mut missing) = (Vec::new(), Vec::new());
    for (needs, kind) in table() {
        match needs.iter().find_map(|need| host.lacks(*need)) {
            None => kinds.push(kind),
            Some(why) => missing.push((kind.name, why)),
        }
    }
    (kinds, missing)
}

/// Every kind of fault, with what it needs.
fn table() -> Vec<(&'static [Need], Kind)> {
    let of = |harms| {
        move |name, begin: Begin<RealWorld>, lasts_ms| Kind { name, harms, begin, lasts_ms, spares_majority: false }
    };
    let (process, network) = (of(Harm::Processes), of(Harm::Network));
    let minority = |name, begin, lasts_ms| Kind { spares_majority: true, ..process(name, begin, lasts_ms) };
    const STRACE: &[Need] = &[Need::Root, Need::Program("strace")];
    vec![
        (&[], minority("kill", |world, rng| of_one(world, rng, kill::begin), 100..=8_000)),
        (&[], minority("kill-minority", |world, rng| of_minority(world, rng, kill::begin), 100..=6_000)),
        (&[], process("kill-all", |world, _| of_all(world, kill::begin), 100..=3_000)),
        (&[], process("pause", pause::begin_any, 100..=8_000)),
        (&[], minority("kill-leader", |world, rng| leader::begin(world, rng, kill::begin), leader::LASTS_MS)),
        (&[], minority("pause-leader", |world, rng| leader::begin(world, rng, pause::begin), leader::LASTS_MS)),
        (&[], minority("rolling", rolling::begin, 90_000..=90_000)),
        (&[Need::Disk], minority("power", |world, rng| of_one(world, rng, power::begin), 100..=6_000)),
        (&[Need::Disk], minority("power-minority", |world, rng| of_minority(world, rng, power::begin), 100..=5_000)),
        (&[Need::Disk], process("power-all", |world, _| of_all(world, power::begin), 100..=2_000)),
        (&[Need::Disk], minority("full-disk", full_disk::begin, 20_000..=20_000)),
        (STRACE, minority("io-error", io_error::begin, 8_000..=8_000)),
        (STRACE, minority("slow-disk", slow_disk::begin, 2_000..=10_000)),
        (&[], minority("bit-flip", damage::begin_flip, 3_000..=6_000)),
        (&[], minority("truncated-file", damage::begin_truncate, 3_000..=6_000)),
        (&[], minority("stale-file", damage::begin_stale, 3_000..=6_000)),
        (&[Need::MemoryGroups], minority("memory", memory::begin, 4_000..=10_000)),
        (&[Need::FakeClock], minority("clock", clock::begin, 4_000..=10_000)),
        (&[Need::Network], network("partition", partition::begin, 500..=8_000)),
        (&[Need::Network], network("one-way", partition::begin_one_way, 500..=8_000)),
        (&[Need::Network], network("clients", partition::begin_clients, 500..=8_000)),
        (
            &[Need::Network],
            Kind { spares_majority: true, ..network("isolate-leader", begin_isolated_leader, leader::LASTS_MS) },
        ),
        (&[Need::Network], network("flapping", flapping::begin, 2_000..=10_000)),
        (&[Need::Network], network("loss", loss::begin, 2_000..=10_000)),
        (&[Need::Network, Need::Program("ethtool")], network("delay", delay::begin, 2_000..=10_000)),
        (&[Need::Network, Need::Program("ss")], network("reset", reset::begin, 2_000..=8_000)),
    ]
}

/// Begins a fault of several nodes at once.
type BeginOf = fn(&mut RealWorld, Vec<u64>) -> Result<Begun, String>;

fn of_one(world: &mut RealWorld, rng: &mut fastrand::Rng, begin: BeginOf) -> Result<Begun, String> {
    let node = any_node(world, rng);
    begin(world, vec![node])
}

fn of_minority(world: &mut RealWorld, rng: &mut fastrand::Rng, begin: BeginOf) -> Result<Begun, String> {
    let nodes = any_minority(world, rng);
    begin(world, nodes)
}

fn of_all(world: &mut RealWorld, begin: BeginOf) -> Result<Begun, String> {
    let nodes = world.nodes();
    begin(world, nodes)
}

fn begin_isolated_leader(world: &mut RealWorld, rng: &mut fastrand::Rng) -> Result<Begun, String> {
    leader::begin(world, rng, |world, nodes| partition::begin_isolated(world, &nodes))
}

/// There was nobody and nothing to harm.
struct Nothing;

impl Fault<RealWorld> for Nothing {
    fn go_on(&mut self, _: &mut RealWorld) -> Result<bool, String> {
        Ok(true)
    }

    fn end(&mut self, _: &mut RealWorld) -> Result<bool, String> {
        Ok(false)
    }
}

/// Any node.
fn any_node(world: &RealWorld, rng: &mut fastrand::Rng) -> u64 {
    any(&world.nodes(), rng)
}

/// As many nodes as a cluster can do without.
fn any_minority(world: &RealWorld, rng: &mut fastrand::Rng) -> Vec<u64> {
    let mut nodes = world.nodes();
    rng.shuffle(&mut nodes);
    nodes.truncate((world.size() - 1) / 2);
    nodes
}

/// All nodes but one.
fn others(world: &RealWorld, node: u64) -> Vec<u64> {
    world.nodes().into_iter().filter(|other| *other != node).collect()
}

/// All ways between the parties of one side and those of the other.
fn both_ways(left: &[u64], right: &[u64]) -> Vec<Way> {
    left.iter().flat_map(|a| right.iter().flat_map(|b| [(*a, *b), (*b, *a)])).collect()
}

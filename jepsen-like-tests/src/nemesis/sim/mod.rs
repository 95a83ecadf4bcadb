//! Faults of the simulated world.

mod blackout;
mod crash;
mod flapping;
mod hold;
mod one_way;
mod partition;
mod power;
mod restart;
mod slow_disk;

use super::{Harm, any};
use crate::world::sim::SimWorld;

type Begun = super::Begun<SimWorld>;
type Kind = super::Kind<SimWorld>;

/// Every kind of fault.
#[must_use]
pub fn kinds() -> Vec<Kind> {
    let of = |harms| move |name, begin, lasts_ms| Kind { name, harms, begin, lasts_ms, spares_majority: false };
    let (process, network) = (of(Harm::Processes), of(Harm::Network));
    let minority = |name, begin, lasts_ms| Kind { spares_majority: true, ..process(name, begin, lasts_ms) };
    vec![
        minority("crash", crash::begin, 20..=3_000),
        minority("restart", restart::begin, restart::LONGEST_MS..=restart::LONGEST_MS),
        minority("power", power::begin, 20..=4_000),
        process("blackout", blackout::begin, 20..=1_000),
        minority("slow-disk", slow_disk::begin, 500..=4_000),
        network("partition", partition::begin, 200..=5_000),
        network("one-way", one_way::begin, 200..=5_000),
        network("flapping", flapping::begin, 1_000..=6_000),
        network("hold", hold::begin, 100..=3_000),
    ]
}

/// Any node.
fn any_node(world: &SimWorld, rng: &mut fastrand::Rng) -> u64 {
    any(world.nodes(), rng)
}

/// All nodes but one.
fn all_but(world: &SimWorld, node: u64) -> Vec<u64> {
    world.nodes().iter().copied().filter(|other| *other != node).collect()
}

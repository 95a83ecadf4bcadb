//! Faults of the real world. Each says what it needs; what can't be had is left out.

mod kill;
mod pause;
mod rolling;

use super::{Begin, Harm, any};
use crate::world::real::{Host, Need, RealWorld};

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
    let process = |name, begin: Begin<RealWorld>, lasts_ms| Kind { name, harms: Harm::Processes, begin, lasts_ms };
    vec![
        (&[], process("kill", kill::begin_one, 100..=8_000)),
        (&[], process("kill-minority", kill::begin_minority, 100..=6_000)),
        (&[], process("kill-all", kill::begin_all, 100..=3_000)),
        (&[], process("pause", pause::begin, 100..=8_000)),
        (&[], process("rolling", rolling::begin, 90_000..=90_000)),
    ]
}

/// Any node.
fn any_node(world: &RealWorld, rng: &mut fastrand::Rng) -> u64 {
    any(world.nodes(), rng)
}

/// As many nodes as a cluster can do without.
fn any_minority(world: &RealWorld, rng: &mut fastrand::Rng) -> Vec<u64> {
    let mut nodes = world.nodes().to_vec();
    rng.shuffle(&mut nodes);
    nodes.truncate((nodes.len() - 1) / 2);
    nodes
}

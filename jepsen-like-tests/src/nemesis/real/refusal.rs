//! A node that can't go on must say by name why, and end with code 1.

use crate::world::real::RealWorld;

/// How a node that has given up named the reason.
pub(super) fn refusal(world: &RealWorld, node: u64) -> Result<String, String> {
    match (world.exit_code(node), world.refusal(node)) {
        (Some(1), Some(line)) => Ok(format!("refused: {line}")),
        (code, line) => Err(format!(
            "node {node} gave up with code {code:?} and {}; it said:\n{}",
            line.map_or_else(|| "without a name for what is wrong".to_owned(), |line| format!("named {line}")),
            world.said(node)
        )),
    }
}

//! A node that can't go on must say by name why, and end with code 1.

use crate::world::real::RealWorld;

/// How a node that has given up named the reason.
pub(super) fn refusal(world: &RealWorld, node: u64) -> Result<String, String> {
    let Some(ended) = world.ended(node) else { return Err(format!("node {node} has not ended")) };
    match world.refusal(node) {
        Some(line) if ended.code() == Some(1) => Ok(format!("refused: {line}")),
        _ => {
            Err(format!("node {node} ended ({ended}) without a name for what is wrong; it said:\n{}", world.said(node)))
        }
    }
}

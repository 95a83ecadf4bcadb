//! What clients asked for and what they were told, in the order in which it happened.
//!
//! An operation begins with `invoke` and ends as `ok`, `fail` (certainly not executed) or `unknown` (perhaps executed).
//! Checkers see nothing else, so a history that was written down can be judged again later.

mod action;
mod recorder;

use serde::{Deserialize, Serialize};

pub use self::action::{Action, DeadLetter, Purpose, Seen, Settled, Terms, TopicOperation};
pub use self::recorder::{History, Op, Recorder};

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Time since the world began.
    pub at_ms: u64,
    /// Who did it: a client, or `nemesis`.
    pub process: String,
    /// Number of the operation, the same in its first and its last event.
    pub op: u64,
    /// Where in its life the operation is.
    pub phase: Phase,
    /// What is done, and after the end what came of it.
    #[serde(flatten)]
    pub action: Action,
}

/// Where in its life an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It begins.
    Invoke,
    /// It was executed.
    Ok,
    /// It was not executed and never will be.
    Fail,
    /// Nobody can tell.
    Unknown,
}

//! What must hold of every history, one property per file, and whether a run saw enough to say anything.
//!
//! A checker looks at a history and names what contradicts its property. No complaint is a *pass* only if the run
//! covered what it set out to cover; otherwise it is *unknown*.

mod aborted;
mod attempts;
mod available;
mod consistent;
mod contiguous;
mod coverage;
mod dead_acknowledged;
mod dead_once;
mod dead_tried;
mod delivered;
mod deliveries;
mod duplicate;
mod early;
mod ended;
mod expired;
mod invariants;
mod key_order;
mod lost;
mod operations;
mod order;
mod outstanding;
mod phantom;
mod progress;
mod realtime;
mod recreated;
mod redelivered;
mod registers;
mod replicas;
mod resources;
mod rolled_back;
#[cfg(test)]
pub(crate) mod script;
mod settled;
mod stale;
mod trimmed;
mod unbroken;
mod unwanted;

use std::fmt;

pub use coverage::Expected;
pub use deliveries::{Deliveries, Delivery};
pub use operations::{Operations, Publish, Read};
pub use outstanding::Outstanding;
pub use replicas::{GroupLogs, LogLine};

use crate::history::History;

/// A property, and what in a history contradicts it.
type Property = (&'static str, fn(&Operations<'_>) -> Vec<String>);

/// Every property of a history.
const PROPERTIES: [Property; 23] = [
    ("lost write: what was acknowledged is there in the end", lost::check),
    ("phantom read: what is read was sent", phantom::check),
    ("aborted read: what failed is never read", aborted::check),
    ("duplicate: a message has one place", duplicate::check),
    ("inconsistent offsets: a place has one message", consistent::check),
    ("hole: a read from the log start skips and repeats no offset", contiguous::check),
    ("order: messages of one publisher keep their order within a partition", order::check),
    ("real time: what is published after an acknowledgement goes behind it", realtime::check),
    ("stale read: a read sees what was acknowledged before it began", stale::check),
    ("rollback: what was read stays", rolled_back::check),
    ("trimmed too much: retention leaves what it promises", trimmed::check),
    ("phantom delivery: what is delivered was sent", delivered::check),
    ("early: nothing is delivered before its time", early::check),
    ("expired: nothing is delivered after its time", expired::check),
    ("unwanted: nothing is delivered that the filter doesn't match", unwanted::check),
    ("redelivered: what is settled is never delivered again", redelivered::check),
    ("attempts: their number never goes down", attempts::check),
    ("key order: messages of one key are delivered one after another", key_order::check),
    ("dead letter twice: what is given up is in the dead-letter topic once", dead_once::check),
    ("dead and acknowledged: what is acknowledged is no dead letter", dead_acknowledged::check),
    ("dead too early: a dead letter was sent, wanted, and tried often enough", dead_tried::check),
    ("unending: every request ends within its deadline", ended::check),
    ("stuck: partitions make progress once the faults are over", progress::check),
];

/// What a run says about the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing contradicts any property, and the run covered what it should.
    Pass,
    /// Too little happened to say anything; what was missing.
    Unknown(Vec<String>),
    /// A property doesn't hold.
    Fail(Vec<Violation>),
}

/// A property that doesn't hold, with the evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The property.
    pub property: &'static str,
    /// What contradicts it, each in a sentence.
    pub evidence: Vec<String>,
}

/// Evidence shown per property; the rest is counted.
const EVIDENCE_SHOWN: usize = 8;

/// Judges a run by its history, now or years later.
#[must_use]
pub fn judge(history: &History) -> Verdict {
    let operations = Operations::of(history);
    let of_history = PROPERTIES.iter().map(|(property, check)| (*property, check(&operations)));
    let others = [
        (
            "available: while a majority is undisturbed, every partition acknowledges",
            available::check(history, &operations),
        ),
        (
            "unsettled: in every subscription all that it wants ends acknowledged, as a dead letter, or expired",
            settled::check(history, &operations),
        ),
        ("broken: no node gives up", unbroken::check(history)),
        ("registers: topics are made, changed and removed in one order", registers::check(history)),
        (
            "recreated: a topic has all that was published to it, and nothing of its predecessors",
            recreated::check(history),
        ),
        ("invariants: Raft's hold at every moment", invariants::check(history)),
        (
            "replicas: all replicas of a group hold the same log, and make the same state of it",
            replicas::check(history),
        ),
        ("resources: no node panics or uses more than it should", resources::check(history)),
    ];
    let violations: Vec<Violation> = of_history
        .chain(others)
        .filter(|(_, evidence)| !evidence.is_empty())
        .map(|(property, evidence)| Violation { property, evidence })
        .collect();
    if !violations.is_empty() {
        return Verdict::Fail(violations);
    }
    let missing = coverage::missing(history, &operations);
    if missing.is_empty() { Verdict::Pass } else { Verdict::Unknown(missing) }
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass => write!(out, "pass"),
            Self::Unknown(missing) => {
                write!(out, "unknown")?;
                missing.iter().try_for_each(|what| write!(out, "\n  not covered: {what}"))
            }
            Self::Fail(violations) => {
                write!(out, "fail")?;
                for Violation { property, evidence } in violations {
                    write!(out, "\n  {property}")?;
                    for line in evidence.iter().take(EVIDENCE_SHOWN) {
                        write!(out, "\n    {line}")?;
                    }
                    if evidence.len() > EVIDENCE_SHOWN {
                        write!(out, "\n    and {} more", evidence.len() - EVIDENCE_SHOWN)?;
                    }
                }
                Ok(())
            }
        }
    }
}

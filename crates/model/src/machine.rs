//! The machine that consensus replicates. An enum and not a trait, because there are two and the
//! metadata one is unlike any other.
//!
//! ```text
//! committed log entry ──► apply ──► reply    to the proposer
//!                               ├─► changes  rows for storage, the same on every replica
//!                               └─► effects  wake-ups; losing one loses nothing
//! ```

use bytes::Bytes;

use crate::codec::CodecError;
use crate::command::{MetaCommand, PartitionCommand};
use crate::ids::{Offset, PartitionId};
use crate::meta::MetaMachine;
use crate::partition::subscription::{Lane, Place, Position};
use crate::partition::{IndexSegment, PartitionMachine};
use crate::reply::Reply;

/// The state of one replica of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Machine {
    /// A partition.
    Partition(PartitionMachine),
    /// Nodes, topics, subscriptions and placement.
    Meta(MetaMachine),
}

/// Which machine a group has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MachineKind {
    /// The machine of this partition.
    Partition(PartitionId),
    /// The metadata machine.
    Meta,
}

/// What applying one command gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// For the proposer.
    pub reply: Reply,
    /// For storage.
    pub changes: Vec<Change>,
    /// For whoever waits.
    pub effects: Vec<Effect>,
}

/// A row for storage. Applying the same entries again gives the same rows again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A finished segment of the offset index.
    Segment(IndexSegment),
    /// Messages with an order of their own, and their places in it.
    Lanes(Vec<Position>),
    /// Retention removed from the log what stands before these places of lanes.
    LanesTrimmed(Vec<(Lane, Place)>),
    /// A checkpoint of the state after this entry, to be kept for as long as the log isn't cut behind it.
    Checkpoint,
}

/// A wake-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// There are records below `end` that weren't there before.
    RecordsAvailable {
        /// The offset that the next record will get.
        end: Offset,
    },
    /// The cluster map has a new version.
    MapChanged,
}

impl Machine {
    /// A machine that hasn't applied anything.
    pub fn new(kind: MachineKind) -> Machine {
        match kind {
            MachineKind::Partition(partition) => Machine::Partition(PartitionMachine::new(partition)),
            MachineKind::Meta => Machine::Meta(MetaMachine::new()),
        }
    }

    /// Which machine this is.
    pub fn kind(&self) -> MachineKind {
        match self {
            Machine::Partition(machine) => MachineKind::Partition(machine.partition()),
            Machine::Meta(_) => MachineKind::Meta,
        }
    }

    /// Applies the command of the committed log entry at `index`. Never fails: a command that can't be
    /// carried out is answered with why, alike on every replica.
    ///
    /// # Panics
    /// If `index` isn't above every index that the machine has seen. Applying an entry twice would give
    /// its records two offsets, so a group that does it must stop.
    pub fn apply(&mut self, index: u64, command: &Bytes) -> Applied {
        match self {
            Machine::Partition(machine) => match PartitionCommand::decode(command) {
                Ok(command) => machine.apply(index, command),
                Err(error) => refused(&error, machine.skip(index)),
            },
            Machine::Meta(machine) => match MetaCommand::decode(command) {
                Ok(command) => machine.apply(command),
                Err(error) => refused(&error, Vec::new()),
            },
        }
    }

    /// Passes over the committed log entry at `index`, which holds no command. Such entries use up log
    /// indices, and the offset index of a partition counts those.
    ///
    /// # Panics
    /// As [`Machine::apply`].
    pub fn skip(&mut self, index: u64) -> Vec<Change> {
        match self {
            Machine::Partition(machine) => machine.skip(index),
            Machine::Meta(_) => Vec::new(),
        }
    }

    /// The whole state as bytes: equal states give equal bytes on every replica.
    pub fn checkpoint(&self) -> Bytes {
        match self {
            Machine::Partition(machine) => machine.checkpoint(),
            Machine::Meta(machine) => machine.checkpoint(),
        }
    }

    /// The machine as it was when it gave this checkpoint.
    pub fn restore(kind: MachineKind, checkpoint: &Bytes) -> Result<Machine, CodecError> {
        match kind {
            MachineKind::Partition(partition) => {
                PartitionMachine::restore(partition, checkpoint).map(Machine::Partition)
            }
            MachineKind::Meta => MetaMachine::restore(checkpoint).map(Machine::Meta),
        }
    }

    /// The partition's machine, if it is one.
    pub fn as_partition(&self) -> Option<&PartitionMachine> {
        match self {
            Machine::Partition(machine) => Some(machine),
            Machine::Meta(_) => None,
        }
    }

    /// The metadata machine, if it is it.
    pub fn as_meta(&self) -> Option<&MetaMachine> {
        match self {
            Machine::Meta(machine) => Some(machine),
            Machine::Partition(_) => None,
        }
    }
}

fn refused(error: &CodecError, changes: Vec<Change>) -> Applied {
    Applied { reply: Reply::Refused(error.to_string()), changes, effects: Vec::new() }
}

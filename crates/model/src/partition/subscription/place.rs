//! Where a message stands in the order in which it becomes ready.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::Offset;
use crate::limits::PRIORITY_MAX;
use crate::record::Record;

/// Messages of one partition that have an order of their own: those of one priority that were ready when they were
/// published, or those that were not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Lane {
    /// 0 to 9; what is ready in a higher one is delivered first.
    pub priority: u8,
    /// Its messages become ready at a time of their own, and are ordered by it.
    pub delayed: bool,
}

impl Lane {
    /// Messages without a priority or a time of their own: the log as it is.
    pub const LOG: Lane = Lane { priority: 0, delayed: false };

    /// One byte that sorts as lanes do.
    pub fn to_byte(self) -> u8 {
        self.priority << 1 | u8::from(self.delayed)
    }

    /// The lane of such a byte; `None` if there is none.
    pub fn from_byte(byte: u8) -> Option<Lane> {
        let lane = Lane { priority: byte >> 1, delayed: byte & 1 == 1 };
        (lane.priority <= PRIORITY_MAX).then_some(lane)
    }

    /// Where a message waits, if that isn't the log.
    pub fn of(record: &Record) -> Option<Lane> {
        let options = &record.options;
        options.leaves_the_log().then_some(Lane { priority: options.priority, delayed: options.deliver_at_ms > 0 })
    }
}

/// A message's place in its lane. Once a place can be delivered, nothing is ever published before it: an offset is above
/// all earlier ones, and a message whose time has come when it is published isn't a delayed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// When the message becomes ready; 0 if that was when it was published.
    pub due_ms: u64,
    /// Its offset.
    pub offset: Offset,
}

impl Place {
    /// Before all others of a lane.
    pub const FIRST: Place = Place { due_ms: 0, offset: Offset::ZERO };

    /// Behind all others of a lane.
    pub const LAST: Place = Place { due_ms: u64::MAX, offset: Offset::new(u64::MAX) };

    /// The place of a message that was ready when it was published.
    pub const fn at(offset: Offset) -> Place {
        Place { due_ms: 0, offset }
    }

    /// What comes right behind it, whether there is a message or not.
    #[must_use]
    pub fn next(self) -> Place {
        Place { offset: self.offset.next(), ..self }
    }
}

/// A place and its lane: enough to name a message of the partition, to whoever delivers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// The lane.
    pub lane: Lane,
    /// The place in it.
    pub place: Place,
}

impl Position {
    /// Before all others.
    pub const FIRST: Position = Position { lane: Lane::LOG, place: Place::FIRST };

    /// Behind all others.
    pub const LAST: Position = Position { lane: Lane { priority: u8::MAX, delayed: true }, place: Place::LAST };

    /// The position of a message without a priority or a time of its own.
    pub const fn at(offset: Offset) -> Position {
        Position { lane: Lane::LOG, place: Place::at(offset) }
    }

    /// The message's offset.
    pub const fn offset(&self) -> Offset {
        self.place.offset
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.due_ms {
            0 => write!(f, "{}", self.offset),
            due_ms => write!(f, "{}@{due_ms}", self.offset),
        }
    }
}

//! Rows of messages with an order of their own: an index of the log, made by whoever applies it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use quorate_model::partition::subscription::{Lane, Place, Position};

use crate::engine::{Direction, RowOp, ScanLimit, Table};
use crate::error::StorageError;
use crate::keys;
use crate::log_writer::Completion;
use crate::state_store::StateStore;

/// Writes of such rows: how many there were, and how many can be read.
#[derive(Default)]
pub(crate) struct LaneWrites {
    begun: AtomicU64,
    readable: AtomicU64,
}

impl StateStore {
    /// Adds messages to lanes, in order with the log.
    pub fn put_places(&self, positions: &[Position]) {
        let key = |position: &Position| keys::place(self.replica(), *position);
        let put = |position| RowOp::Put { table: Table::State, key: key(position), value: Bytes::new() };
        self.write_lanes(positions.iter().map(put).collect());
    }

    /// Removes what stands before these places.
    pub fn trim_lanes(&self, trimmed: &[(Lane, Place)]) {
        let delete = |(lane, end): &(Lane, Place)| {
            let keys = keys::places(self.replica(), *lane, Place::FIRST..*end);
            RowOp::DeleteRange { table: Table::State, from: keys.start, to: keys.end }
        };
        self.write_lanes(trimmed.iter().map(delete).collect());
    }

    /// The first `most` places of a lane within a range. What was put before the call is found.
    pub async fn places(&self, lane: Lane, places: Range<Place>, most: usize) -> Result<Vec<Place>, StorageError> {
        let writes = self.lane_writes();
        if writes.readable.load(Ordering::Acquire) < writes.begun.load(Ordering::Acquire) {
            self.written().await?;
        }
        let keys = keys::places(self.replica(), lane, places);
        let limit = ScanLimit { rows: most, bytes: u64::MAX };
        let rows = self.reader().scan(Table::State, keys, limit, Direction::Forward).await?;
        let malformed = || StorageError::malformed(Table::State, "a place in a lane is cut short".to_owned());
        rows.iter().map(|(key, _)| keys::place_of(key).ok_or_else(malformed)).collect()
    }

    /// The operation that removes all rows, when a snapshot takes the place of the log that they are an index of.
    pub(crate) fn delete_lanes(&self) -> RowOp {
        let keys = keys::lanes(self.replica());
        RowOp::DeleteRange { table: Table::State, from: keys.start, to: keys.end }
    }

    fn write_lanes(&self, rows: Vec<RowOp>) {
        let writes = Arc::clone(self.lane_writes());
        let number = writes.begun.fetch_add(1, Ordering::AcqRel) + 1;
        let readable = move |result: Result<(), StorageError>| {
            if result.is_ok() {
                writes.readable.fetch_max(number, Ordering::AcqRel);
            }
        };
        self.storage().write_ordered(rows, Completion::call(readable));
    }
}

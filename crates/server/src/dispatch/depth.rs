//! How many messages of a subscription wait, by priority: counted when somebody asks, for nothing else needs to know.

use std::collections::BTreeMap;
use std::ops::Range;

use quorate_consensus::{RaftGroup, ReadError};
use quorate_model::partition::subscription::{Lane, Place, Settled, SubscriptionState};
use quorate_model::{Offset, PartitionMachine};

use crate::limits::DEPTH_PLACES_AT_ONCE;

/// What isn't settled.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Depth {
    /// By priority. What is in flight, or waits for its next attempt, is among it.
    pub(super) ready: BTreeMap<u8, u64>,
    /// By priority: messages whose `deliver_at` hasn't come.
    pub(super) waiting: BTreeMap<u8, u64>,
    /// There are more messages with a priority or a time of their own than are looked at: these numbers are too small.
    pub(super) is_partial: bool,
}

/// What there is to know of the state to count.
pub(super) struct Counting {
    start: Offset,
    /// What of the log isn't settled as far as it was read there, in order.
    unsettled: Vec<Range<Offset>>,
    lanes: Vec<(Lane, Settled)>,
    released_ms: u64,
}

impl Counting {
    pub(super) fn of(machine: &PartitionMachine, state: &SubscriptionState) -> Self {
        let log = machine.log_start()..machine.next_offset();
        let settled = |lane| state.lanes().get(&lane).cloned().unwrap_or_default();
        Self {
            start: state.start().max(log.start),
            unsettled: state.unsettled(log, machine.deleted()).collect(),
            lanes: machine.lanes().ends().map(|(lane, _)| (lane, settled(lane))).collect(),
            released_ms: machine.lanes().released_ms(),
        }
    }

    /// Counts what stands in the log, without those that have a place of their own, and those in their places.
    pub(super) async fn count(self, group: &RaftGroup, most: usize) -> Result<Depth, ReadError> {
        let mut depth = Depth::default();
        let mut in_log: u64 = self.unsettled.iter().map(count).sum();
        let mut left = most;
        for (lane, settled) in &self.lanes {
            let mut from = Place::FIRST;
            while left > 0 {
                let places = group.places(*lane, from..Place::LAST, DEPTH_PLACES_AT_ONCE.min(left)).await?;
                let Some(last) = places.last() else { break };
                from = last.next();
                left -= places.len();
                for place in places.into_iter().filter(|place| place.offset >= self.start) {
                    in_log -= u64::from(self.is_unsettled_in_log(place.offset));
                    if !settled.contains(place) && !group.is_deleted(place.offset) {
                        let is_due = place.due_ms <= self.released_ms;
                        let by_priority = if is_due { &mut depth.ready } else { &mut depth.waiting };
                        *by_priority.entry(lane.priority).or_default() += 1;
                    }
                }
            }
            depth.is_partial |= left == 0;
        }
        if in_log > 0 {
            *depth.ready.entry(Lane::LOG.priority).or_default() += in_log;
        }
        Ok(depth)
    }

    fn is_unsettled_in_log(&self, offset: Offset) -> bool {
        let behind = self.unsettled.partition_point(|range| range.end <= offset);
        self.unsettled.get(behind).is_some_and(|range| range.contains(&offset))
    }
}

fn count(range: &Range<Offset>) -> u64 {
    range.end.checked_since(range.start).unwrap_or_default()
}

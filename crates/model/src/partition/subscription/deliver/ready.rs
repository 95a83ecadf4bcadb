//! What can be handed out at once: higher priorities first, then what had a time of its own, then as published.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::{KeyHash, Lane, Parcel, Place, Position};

type Rank = (Reverse<u8>, Reverse<bool>, Place);

/// A message that can be handed out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    pub(super) parcel: Parcel,
    pub(super) key: Option<KeyHash>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct ReadyQueue {
    messages: BTreeMap<Rank, Ready>,
    by_lane: BTreeMap<Lane, usize>,
}

impl ReadyQueue {
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// How many of them are of this lane.
    pub(super) fn len_of(&self, lane: Lane) -> usize {
        self.by_lane.get(&lane).copied().unwrap_or(0)
    }

    /// The first one.
    pub(super) fn first(&self) -> Option<Position> {
        self.messages.keys().next().copied().map(position)
    }

    pub(super) fn insert(&mut self, position: Position, ready: Ready) {
        if self.messages.insert(rank(position), ready).is_none() {
            *self.by_lane.entry(position.lane).or_default() += 1;
        }
    }

    pub(super) fn remove(&mut self, position: Position) -> Option<Ready> {
        let removed = self.messages.remove(&rank(position))?;
        if let Some(left) = self.by_lane.get_mut(&position.lane) {
            *left -= 1;
        }
        Some(removed)
    }

    /// The first one of which that is true.
    pub(super) fn take_first(&mut self, wanted: impl Fn(Position, &Ready) -> bool) -> Option<(Position, Ready)> {
        let mut messages = self.messages.iter().map(|(rank, ready)| (position(*rank), ready));
        let first = messages.find(|(position, ready)| wanted(*position, ready)).map(|(position, _)| position)?;
        self.remove(first).map(|ready| (first, ready))
    }
}

fn rank(position: Position) -> Rank {
    let Position { lane: Lane { priority, delayed }, place } = position;
    (Reverse(priority), Reverse(delayed), place)
}

fn position((Reverse(priority), Reverse(delayed), place): Rank) -> Position {
    Position { lane: Lane { priority, delayed }, place }
}

//! What is to be read next, and what becomes of it: ready, in line behind its key, or passed over.

use std::ops::Range;

use super::ready::Ready;
use super::{Candidate, Dispatcher, KeyHash, Lane, Parcel, Place, Position, Settled, Want};

impl Dispatcher {
    /// A lane can be read up to here.
    pub fn set_end(&mut self, lane: Lane, end: Place) {
        self.ends.insert(lane, end);
    }

    /// What should be read next, if anything. Whatever is ready in other lanes, a higher one is read first.
    pub fn wants(&self) -> Option<Want> {
        if self.sessions.len() == 0 {
            return None;
        }
        let has_room = |lane| self.ready.len_of(lane) < self.bounds.read_ahead;
        if let Some((key, from)) = self.lines.wanted().filter(|(_, from)| has_room(from.lane)) {
            return Some(Want::Key { key, from, upto: self.read_upto(from.lane) });
        }
        let settled: usize = self.settled.values().map(Settled::len).sum();
        let full = settled + self.leases.len() + self.ready.len() >= self.bounds.intervals;
        let lanes = self.ends.iter().rev().filter(|(lane, _)| has_room(**lane));
        let mut unread = lanes.filter_map(|(lane, end)| {
            let place = self.first_unsettled(*lane, self.read_upto(*lane));
            // Between intervals nothing is new: a later leader has to read it again, or it would never be settled.
            let is_between = self.settled.get(lane).is_some_and(|settled| settled.reaches_beyond(place));
            (place < *end && (!full || is_between))
                .then_some(Want::Lane { from: Position { lane: *lane, place }, upto: *end })
        });
        unread.next()
    }

    /// A lane was read from `read.start` to `read.end`: these messages are wanted, in order; what lies between is passed
    /// over for good, unless it was delivered before.
    pub fn offer(&mut self, lane: Lane, read: Range<Place>, candidates: &[Candidate]) {
        let begun = self.read_upto(lane);
        if read.start > self.first_unsettled(lane, begun) || read.end <= begun {
            return;
        }
        self.read.insert(lane, read.end);
        let mut from = begun;
        for candidate in candidates.iter().filter(|candidate| (begun..read.end).contains(&candidate.place)) {
            self.pass_over(lane, from..candidate.place);
            from = candidate.place.next();
            let position = Position { lane, place: candidate.place };
            if !self.is_settled(position) && !self.retries.contains_key(&position) {
                self.make_ready(position, candidate.parcel, candidate.key);
            }
        }
        self.pass_over(lane, from..read.end);
    }

    /// A lane was read again for one key: these are its messages. What lies behind `more` is still to be read.
    pub fn offer_key(&mut self, key: KeyHash, lane: Lane, candidates: &[Candidate], more: Option<Place>) {
        let known = |place| {
            let position = Position { lane, place };
            self.is_settled(position) || self.retries.contains_key(&position)
        };
        let found: Vec<(Place, Parcel)> = candidates
            .iter()
            .filter(|candidate| candidate.key == Some(key) && !known(candidate.place))
            .map(|candidate| (candidate.place, candidate.parcel))
            .collect();
        self.lines.refill(key, lane, &found, more);
        self.move_up(key);
    }

    pub(super) fn pass_over(&mut self, lane: Lane, places: Range<Place>) {
        let settled = self.settled.entry(lane).or_default();
        let mut from = places.start;
        let (first, end) = (Position { lane, place: places.start }, Position { lane, place: places.end });
        let kept = self.retries.range(first..end.max(first)).map(|(position, _)| position.place);
        for place in kept.chain([places.end]) {
            for gap in settled.gaps(from..place).collect::<Vec<_>>() {
                settled.insert(gap.clone());
                self.pending.settle(lane, gap);
            }
            from = place.next();
        }
    }

    pub(super) fn make_ready(&mut self, position: Position, parcel: Parcel, key: Option<KeyHash>) {
        match key.filter(|key| self.rules.ordered && !self.lines.is_unknown(*key)) {
            Some(key) => {
                self.lines.wait(key, position, parcel);
                self.move_up(key);
            }
            None => self.ready.insert(position, Ready { parcel, key }),
        }
    }

    /// If nothing of the key is out, those who wait for it are ready.
    pub(super) fn move_up(&mut self, key: KeyHash) {
        for (position, parcel) in self.lines.move_up(key) {
            self.ready.insert(position, Ready { parcel, key: Some(key) });
        }
    }

    pub(super) fn read_upto(&self, lane: Lane) -> Place {
        let first = if lane.delayed { Place::FIRST } else { Place::at(self.floor) };
        self.read.get(&lane).copied().unwrap_or(first)
    }

    pub(super) fn first_unsettled(&self, lane: Lane, place: Place) -> Place {
        self.settled.get(&lane).map_or(place, |settled| settled.first_unsettled(place))
    }

    pub(super) fn is_settled(&self, position: Position) -> bool {
        position.offset() < self.floor
            || self.settled.get(&position.lane).is_some_and(|settled| settled.contains(position.place))
    }
}

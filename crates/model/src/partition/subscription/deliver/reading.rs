//! What is to be read next, and what becomes of it: ready, in line behind its key, or passed over.

use std::collections::BTreeSet;
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
        // What is ready can't go out while as much is unsettled as may be, and so makes no room for what can.
        let is_stuck = self.leases.len() + self.retries.len() >= self.bounds.unsettled;
        let in_vain: BTreeSet<KeyHash> = if is_stuck && !self.lines.is_complete() {
            self.retries.values().filter_map(|retry| retry.key).collect()
        } else {
            BTreeSet::new()
        };
        if is_stuck || self.ends.keys().any(|lane| has_room(*lane)) {
            let may_be = |key, lane| has_room(lane) || in_vain.contains(&key);
            if let Some((key, from)) = self.lines.wanted(may_be) {
                return Some(Want::Key { key, from, upto: self.read_upto(from.lane) });
            }
        }
        let settled: usize = self.settled.values().map(Settled::len).sum();
        let full = settled + self.leases.len() + self.ready.len() >= self.bounds.intervals;
        let lanes = self.ends.iter().rev().filter(|(lane, _)| has_room(**lane));
        let mut unread = lanes.filter_map(|(lane, end)| {
            let place = self.first_unsettled(*lane, self.read_upto(*lane));
            // Before what an earlier leader settled or delivered nothing is new. It has to be read again, or it would never
            // be settled.
            let from = Position { lane: *lane, place };
            let mut in_vain = self.retries.range(from..=Position { place: Place::LAST, ..from });
            let is_between =
                in_vain.next().is_some() || self.settled.get(lane).is_some_and(|settled| settled.reaches_beyond(place));
            (place < *end && (!full || is_between)).then_some(Want::Lane { from, upto: *end })
        });
        unread.next()
    }

    /// Whether what should be read next would be delivered before what is ready.
    pub fn wants_higher(&self) -> bool {
        match (self.wants(), self.ready.first()) {
            (Some(Want::Lane { from, .. }), Some(first)) => from.lane > first.lane,
            _ => false,
        }
    }

    /// A lane was read from `read.start` to `read.end`: these messages are wanted, in order; what lies between is passed
    /// over for good, unless it was delivered before.
    pub fn offer(&mut self, lane: Lane, read: Range<Place>, candidates: &[Candidate]) {
        let begun = self.read_upto(lane);
        if read.start > self.first_unsettled(lane, begun) || read.end <= begun {
            return;
        }
        // What lies before the subscription's start has to be passed over too, or it would cost an interval each.
        let mut from = if self.read.contains_key(&lane) { begun } else { Place::FIRST };
        self.read.insert(lane, read.end);
        let wanted = |place: Place| (begun..read.end).contains(&place) && place.offset >= self.floor;
        let candidates: Vec<&Candidate> = candidates.iter().filter(|candidate| wanted(candidate.place)).collect();
        for candidate in candidates {
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
        if let Some(from) = self.lines.behind(key, lane).filter(|_| lane.delayed) {
            // Retention may have removed some since they were read, and nobody else asks for those.
            let (mut from, floor) = (from, self.floor);
            for candidate in candidates.iter().filter(|candidate| candidate.place.offset >= floor) {
                self.pass_over(lane, from..candidate.place);
                from = candidate.place.next();
            }
            self.pass_over(lane, from..more.unwrap_or(self.read_upto(lane)));
        }
        // One that was delivered in vain and is due again is found like any other, if the line had no room for it.
        let known = |place| {
            let position = Position { lane, place };
            self.is_settled(position) || self.lines.is_out(key, position)
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

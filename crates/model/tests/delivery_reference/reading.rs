//! Reads what the dispatcher wants, as the leader reads it from log and index.

use quorate_model::Offset;
use quorate_model::partition::subscription::deliver::{Candidate, Parcel, Want};
use quorate_model::partition::subscription::{Lane, Place, Position};

use crate::world::World;

impl World {
    /// Reads at most so often, so many places at a time.
    pub(crate) fn read(&mut self, reads: usize, at_a_time: usize) {
        let log_start = self.partition().log_start();
        self.dispatcher.trim_to(log_start);
        self.reference.trimmed(log_start);
        self.dispatcher.set_end(Lane::LOG, Place::at(self.partition().next_offset()));
        let ends: Vec<(Lane, Place)> = self.partition().lanes().ends().collect();
        ends.into_iter().for_each(|(lane, end)| self.dispatcher.set_end(lane, end));
        for _ in 0..reads {
            let Some(want) = self.dispatcher.wants() else { break };
            match want {
                Want::Lane { from, upto } => {
                    let (read, candidates) = self.candidates(from, upto, at_a_time, true);
                    let before = self.reference.read.entry(from.lane).or_insert(read);
                    *before = read.max(*before);
                    self.dispatcher.offer(from.lane, from.place..read, &candidates);
                    assert!(read > from.place, "it wants to read {from:?} for ever");
                }
                Want::Key { key, from, upto } => {
                    let (read, mut candidates) = self.candidates(from, upto, at_a_time, false);
                    let some = upto.min(read);
                    candidates.retain(|candidate| candidate.place < some);
                    self.dispatcher.offer_key(key, from.lane, &candidates, (some < upto).then_some(some));
                }
            }
        }
    }

    /// Some messages of a lane from a place on, and up to where it was read for that.
    fn candidates(&self, from: Position, upto: Place, most: usize, is_filtered: bool) -> (Place, Vec<Candidate>) {
        let kept = self.partition().log_start()..self.partition().next_offset();
        let Position { lane, place: from } = from;
        let (read, places): (Place, Vec<Place>) = if lane == Lane::LOG {
            let from = from.offset.max(kept.start).get();
            let end = kept.end.get().min(from + most as u64).max(from);
            let places = (from..end).map(|offset| Place::at(Offset::new(offset)));
            let in_log = |place: &Place| self.reference.at(place.offset).position.lane == Lane::LOG;
            (Place::at(Offset::new(end)), places.filter(in_log).collect())
        } else {
            let places = self.places.get(&lane).into_iter().flat_map(|places| places.range(from..upto.max(from)));
            let places: Vec<Place> = places.take(most).copied().collect();
            let read = if places.len() < most { upto } else { places[most - 1].next() };
            (read, places.into_iter().filter(|place| place.offset >= kept.start).collect())
        };
        let candidates = places.into_iter().map(|place| (place, self.reference.at(place.offset)));
        let wanted = candidates.filter(|(_, message)| !is_filtered || message.wanted);
        let parcel = |expires_ms| Parcel { bytes: 1, expires_ms };
        let candidates = wanted.map(|(place, message)| Candidate {
            place,
            parcel: parcel(message.expires_ms),
            key: World::key(message),
        });
        (read, candidates.collect())
    }
}

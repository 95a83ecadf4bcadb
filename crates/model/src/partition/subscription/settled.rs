//! The settled part of a lane.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::place::Place;

/// A set of places, kept as the fewest intervals. Whoever settles a message also settles what lies between it and the
/// message before, so a lane that is settled in order is one interval however its places are numbered, and one message
/// that isn't costs one interval more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// Where each interval begins → where it ends; no two touch.
    intervals: BTreeMap<Place, Place>,
}

impl Settled {
    /// Adds an interval. Adding what is there changes nothing.
    pub fn insert(&mut self, places: Range<Place>) {
        let Range { mut start, mut end } = places;
        if start >= end {
            return;
        }
        if let Some((&before, &its_end)) = self.intervals.range(..=start).next_back()
            && its_end >= start
        {
            start = before;
            end = end.max(its_end);
        }
        while let Some((&next, &its_end)) = self.intervals.range(start..=end).next() {
            end = end.max(its_end);
            self.intervals.remove(&next);
        }
        self.intervals.insert(start, end);
    }

    /// Whether a place is settled.
    pub fn contains(&self, place: Place) -> bool {
        self.first_unsettled(place) != place
    }

    /// The first place from `place` on that isn't.
    pub fn first_unsettled(&self, place: Place) -> Place {
        match self.intervals.range(..=place).next_back() {
            Some((_, &end)) if end > place => end,
            _ => place,
        }
    }

    /// Whether something behind a place is settled.
    pub fn reaches_beyond(&self, place: Place) -> bool {
        self.intervals.range(place..).next().is_some()
    }

    /// The first place of the lane that isn't.
    pub fn floor(&self) -> Place {
        self.first_unsettled(Place::FIRST)
    }

    /// The parts of an interval that aren't in the set, in order.
    pub fn gaps(&self, places: Range<Place>) -> impl Iterator<Item = Range<Place>> {
        let mut from = places.start;
        std::iter::from_fn(move || {
            from = self.first_unsettled(from);
            if from >= places.end {
                return None;
            }
            let end = self.intervals.range(from..).next().map_or(places.end, |(&next, _)| next.min(places.end));
            let gap = from..end;
            from = end;
            Some(gap)
        })
    }

    /// The intervals, in order.
    pub fn intervals(&self) -> impl DoubleEndedIterator<Item = Range<Place>> {
        self.intervals.iter().map(|(&start, &end)| start..end)
    }

    /// How many intervals there are: what the set costs.
    pub fn len(&self) -> usize {
        self.intervals.len()
    }

    /// Whether nothing is settled.
    pub fn is_empty(&self) -> bool {
        self.intervals.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::*;
    use crate::ids::Offset;

    fn at(offset: u64) -> Place {
        Place::at(Offset::new(offset))
    }

    #[test]
    fn one_message_that_is_never_settled_costs_one_interval() {
        let mut settled = Settled::default();
        settled.insert(at(0)..at(7));
        for offset in 8..10_000_000 {
            settled.insert(at(offset)..at(offset + 1));
        }
        assert_eq!(settled.intervals().collect::<Vec<_>>(), [at(0)..at(7), at(8)..at(10_000_000)]);
        assert_eq!(settled.floor(), at(7));
        settled.insert(at(7)..at(8));
        assert_eq!(settled.intervals().collect::<Vec<_>>(), [at(0)..at(10_000_000)]);
    }

    #[test]
    fn places_far_apart_become_one_interval_when_what_lies_between_is_settled_too() {
        let due = |due_ms, offset| Place { due_ms, offset: Offset::new(offset) };
        let mut settled = Settled::default();
        settled.insert(Place::FIRST..due(500, 9).next());
        settled.insert(due(700, 2)..due(700, 2).next());
        assert_eq!(settled.len(), 2);
        settled.insert(due(500, 9).next()..due(700, 2));
        assert_eq!((settled.len(), settled.floor()), (1, due(700, 3)));
    }

    proptest! {
        #[test]
        fn it_behaves_like_a_plain_set(ranges in proptest::collection::vec((0_u64..60, 0_u64..8), 0..40)) {
            let mut settled = Settled::default();
            let mut plain = BTreeSet::new();
            for (start, length) in ranges {
                settled.insert(at(start)..at(start + length));
                plain.extend(start..start + length);
            }
            for offset in 0..70 {
                prop_assert_eq!(settled.contains(at(offset)), plain.contains(&offset));
                let expected = (offset..).find(|candidate| !plain.contains(candidate)).map(at);
                prop_assert_eq!(Some(settled.first_unsettled(at(offset))), expected);
            }
            let gaps: Vec<u64> = settled
                .gaps(at(10)..at(50))
                .flat_map(|gap| gap.start.offset.get()..gap.end.offset.get())
                .collect();
            prop_assert_eq!(gaps, (10..50).filter(|offset| !plain.contains(offset)).collect::<Vec<_>>());
            let runs: Vec<_> = settled.intervals().collect();
            prop_assert!(runs.iter().zip(runs.iter().skip(1)).all(|(left, right)| left.end < right.start));
        }
    }
}

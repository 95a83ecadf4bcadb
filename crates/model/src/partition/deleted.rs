//! Messages that were deleted one by one.
//!
//! The log is never rewritten: a deleted message's bytes leave the disk when retention removes the stretch that they stand in.
//! Until then its offset stands here, and whoever reads passes over it.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::subscription::{Place, Settled};
use crate::ids::Offset;
use crate::limits::DELETED_RANGES_MAX;
use crate::reason::Reason;

/// The deleted offsets of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    /// Everything before the log start is among them, as far as anything is.
    places: Settled,
    /// How many of them retention hasn't removed.
    count: u64,
    log_start: Offset,
    /// How often something was deleted.
    deletions: u64,
}

/// Why nothing was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum DeletionRejected {
    /// What is deleted already lies in too many places.
    #[error(
        "deleted messages lie in {DELETED_RANGES_MAX} places of the partition, which is the limit: those next to them can \
         be deleted, and others when retention has removed some"
    )]
    TooScattered,
}

impl DeletionRejected {
    /// The entry of the error table.
    pub fn reason(&self) -> Reason {
        Reason::TooManyDeleted
    }

    /// Facts for a program.
    pub fn metadata(&self) -> Vec<(&'static str, String)> {
        vec![("field", "message_ids".to_owned()), ("limit", DELETED_RANGES_MAX.to_string())]
    }
}

impl Deleted {
    /// Deletes what of these ranges the log holds; how many messages that were.
    pub(super) fn delete(
        &mut self,
        ranges: impl IntoIterator<Item = Range<Offset>>,
        log: Range<Offset>,
    ) -> Result<u64, DeletionRejected> {
        let mut places = self.places.clone();
        let mut deleted = 0;
        for range in ranges {
            let range = range.start.max(log.start)..range.end.min(log.end);
            deleted += places.gaps(places_of(&range)).map(|gap| count(&gap)).sum::<u64>();
            places.insert(places_of(&range));
        }
        if places.len() > DELETED_RANGES_MAX && places.len() > self.places.len() {
            return Err(DeletionRejected::TooScattered);
        }
        self.places = places;
        self.count += deleted;
        self.deletions += u64::from(deleted > 0);
        Ok(deleted)
    }

    /// Retention removed what lies before `log_start`.
    pub(super) fn trim_to(&mut self, log_start: Offset) {
        let removed = places_of(&(self.log_start..log_start.max(self.log_start)));
        let kept: u64 = self.places.gaps(removed.clone()).map(|gap| count(&gap)).sum();
        self.count -= count(&removed) - kept;
        self.log_start = self.log_start.max(log_start);
        if self.count > 0 {
            self.places.insert(Place::FIRST..Place::at(log_start));
        } else {
            self.places = Settled::default();
        }
    }

    /// How often something was deleted: whoever keeps what it has read looks again when this has changed.
    pub fn deletions(&self) -> u64 {
        self.deletions
    }

    /// How many messages were deleted and not removed by retention.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether a message was deleted.
    pub fn contains(&self, offset: Offset) -> bool {
        self.places.contains(Place::at(offset))
    }

    /// The first offset from `offset` on that wasn't.
    pub fn first_kept(&self, offset: Offset) -> Offset {
        self.places.first_unsettled(Place::at(offset)).offset
    }

    /// What of a part of the log is left, in order.
    pub fn kept(&self, range: Range<Offset>) -> impl Iterator<Item = Range<Offset>> {
        self.places.gaps(places_of(&range)).map(|gap| offsets_of(&gap))
    }
}

fn places_of(range: &Range<Offset>) -> Range<Place> {
    Place::at(range.start)..Place::at(range.end)
}

fn offsets_of(range: &Range<Place>) -> Range<Offset> {
    range.start.offset..range.end.offset
}

fn count(range: &Range<Place>) -> u64 {
    range.end.offset.checked_since(range.start.offset).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> Range<Offset> {
        Offset::new(start)..Offset::new(end)
    }

    #[test]
    fn what_the_log_holds_is_deleted_once() {
        let mut deleted = Deleted::default();
        assert_eq!(deleted.delete([range(0, 3), range(5, 6), range(9, 20)], range(1, 10)), Ok(4));
        assert_eq!(deleted.delete([range(2, 6)], range(1, 10)), Ok(2), "3 and 4 were left");
        assert_eq!(deleted.deletions(), 2);
        assert_eq!(deleted.delete([range(5, 6), range(20, 30), range(6, 6)], range(1, 10)), Ok(0));
        assert_eq!((deleted.deletions(), deleted.count()), (2, 6), "nothing has changed");
        assert_eq!(deleted.kept(range(1, 12)).collect::<Vec<_>>(), [range(6, 9), range(10, 12)]);
        assert_eq!(deleted.kept(range(2, 4)).next(), None);
        assert_eq!([2, 6, 9].map(|offset| deleted.first_kept(Offset::new(offset)).get()), [6, 6, 10]);
        assert_eq!(deleted.kept(range(7, 8)).collect::<Vec<_>>(), [range(7, 8)]);
        assert!(deleted.contains(Offset::new(5)) && !deleted.contains(Offset::new(6)));
    }

    #[test]
    fn what_retention_removes_makes_room() {
        let log = range(0, u64::MAX);
        let mut deleted = Deleted::default();
        let scattered = (0..DELETED_RANGES_MAX as u64).map(|position| range(10 * position, 10 * position + 1));
        assert_eq!(deleted.delete(scattered, log.clone()), Ok(DELETED_RANGES_MAX as u64), "at the bound");
        let before = deleted.clone();
        assert_eq!(deleted.delete([range(5, 6)], log.clone()), Err(DeletionRejected::TooScattered));
        assert_eq!(deleted, before);
        assert_eq!(deleted.delete([range(1, 2)], log.clone()), Ok(1), "next to another");
        deleted.trim_to(Offset::new(15));
        assert_eq!(deleted.count(), DELETED_RANGES_MAX as u64 - 2, "0, 1 and 10 are gone");
        assert_eq!(deleted.delete([range(25, 26)], log), Ok(1));
        deleted.trim_to(Offset::new(10 * DELETED_RANGES_MAX as u64));
        assert_eq!((deleted.count(), deleted.places.len()), (0, 0));
    }
}

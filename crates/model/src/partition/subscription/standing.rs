//! What a subscription has and hasn't done in one partition: numbers for people.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{Lane, Place, SubscriptionState, Tally};
use crate::ids::Offset;
use crate::partition::Deleted;

/// Upper bounds of the buckets in [`Standing::attempts`]; what was tried more often is in the last one.
pub const ATTEMPTS_BUCKETS: [u32; 8] = [1, 2, 5, 10, 20, 50, 100, u32::MAX];

/// The numbers of one subscription in one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Messages of the log that aren't settled: those in flight and those that wait for another attempt included.
    pub backlog: u64,
    /// The first of them.
    pub oldest: Option<Offset>,
    /// Messages that were delivered in vain and aren't due again.
    pub delayed: u64,
    /// Messages that were delivered in vain and aren't settled, by the bucket of their attempts.
    pub attempts: BTreeMap<u32, u64>,
    /// Dead letters that aren't published yet.
    pub dead_letters_waiting: u64,
    /// What it did so far.
    pub tally: Tally,
}

impl SubscriptionState {
    /// Its numbers, in a partition whose log reaches from `log.start` to `log.end`, without what was deleted.
    pub fn standing(&self, log: Range<Offset>, deleted: &Deleted, now_ms: u64) -> Standing {
        let mut standing =
            Standing { dead_letters_waiting: self.outbox.len() as u64, tally: self.tally, ..Standing::default() };
        for range in self.unsettled(log, deleted) {
            standing.backlog += range.end.checked_since(range.start).unwrap_or_default();
            standing.oldest.get_or_insert(range.start);
        }
        for retry in self.retries.values() {
            standing.delayed += u64::from(retry.due_ms > now_ms);
            let bucket = ATTEMPTS_BUCKETS.into_iter().find(|bound| retry.attempts <= *bound);
            *standing.attempts.entry(bucket.unwrap_or(u32::MAX)).or_default() += 1;
        }
        standing
    }

    /// What of the log isn't settled there, in order, without what was deleted. Messages with a priority or a time of their
    /// own are settled there once they were read, and wait in their lanes.
    pub fn unsettled(&self, log: Range<Offset>, deleted: &Deleted) -> impl Iterator<Item = Range<Offset>> {
        let from = log.start.max(self.start);
        let gaps: Vec<Range<Place>> = match self.lanes.get(&Lane::LOG) {
            Some(settled) => settled.gaps(Place::at(from)..Place::at(log.end)).collect(),
            None => vec![Place::at(from)..Place::at(log.end)],
        };
        gaps.into_iter().flat_map(|gap| deleted.kept(gap.start.offset..gap.end.offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SubscriptionId;
    use crate::partition::subscription::{DeadLetter, Position, Retry, Settled, Settlement};

    fn at(offset: u64) -> Place {
        Place::at(Offset::new(offset))
    }

    fn log(start: u64, end: u64) -> Range<Offset> {
        Offset::new(start)..Offset::new(end)
    }

    fn retry(attempts: u32, due_ms: u64) -> Retry {
        Retry { attempts, due_ms, first_delivered_ms: 0, bytes: 1, expires_ms: 0, key: None, error: String::new() }
    }

    /// Of offsets 2 to 9: 2 and 3 are acknowledged, 5 is a dead letter, 6 and 7 were tried in vain.
    fn state() -> SubscriptionState {
        let mut state = SubscriptionState::new(Offset::new(2));
        let mut settled = Settled::default();
        settled.insert(at(2)..at(4));
        let letter = DeadLetter {
            offset: Offset::new(5),
            attempts: 3,
            first_delivered_ms: 0,
            returned_ms: 0,
            error: String::new(),
        };
        state.settle(Settlement {
            subscription: SubscriptionId::new(1),
            generation: 1,
            settled: BTreeMap::from([(Lane::LOG, settled)]),
            retries: vec![(Position::at(Offset::new(6)), retry(2, 50)), (Position::at(Offset::new(7)), retry(101, 9))],
            dead: vec![(Position::at(Offset::new(5)), letter)],
            acknowledged: 2,
            expired: 0,
        });
        state
    }

    #[test]
    fn what_is_not_settled_is_counted_wherever_it_waits() {
        let standing = state().standing(log(0, 10), &Deleted::default(), 10);
        let expected = Standing {
            backlog: 5,
            oldest: Some(Offset::new(4)),
            delayed: 1,
            attempts: BTreeMap::from([(2, 1), (u32::MAX, 1)]),
            dead_letters_waiting: 1,
            tally: Tally { acknowledged: 2, returned: 2, dead_lettered: 1, expired: 0, lost: 0 },
        };
        assert_eq!(standing, expected);
    }

    #[test]
    fn what_was_deleted_does_not_count() {
        let mut deleted = Deleted::default();
        assert_eq!(deleted.delete([Offset::new(3)..Offset::new(5), Offset::new(8)..Offset::new(9)], log(0, 10)), Ok(3));
        let standing = state().standing(log(0, 10), &deleted, 0);
        assert_eq!((standing.backlog, standing.oldest), (3, Some(Offset::new(6))));
    }

    #[test]
    fn only_what_the_log_holds_counts() {
        let backlog = |log: Range<Offset>| {
            let standing = state().standing(log, &Deleted::default(), 0);
            (standing.backlog, standing.oldest.map(Offset::get))
        };
        assert_eq!(backlog(log(0, 4)), (0, None), "all is settled");
        assert_eq!(backlog(log(5, 10)), (4, Some(6)), "retention was faster");
        assert_eq!(backlog(log(10, 10)), (0, None));
        assert_eq!(backlog(log(0, 1)), (0, None), "it begins behind the end");
    }
}

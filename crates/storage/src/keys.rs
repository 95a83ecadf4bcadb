//! Every key layout and tag byte. Keys sort as their fields do: integers are big-endian, and the
//! replica comes first, so that one replica's rows of a table are one range.
//!
//! ```text
//! node   [0x00]                                   layout version
//! node   [0x01]                                   identity
//! raft   [replica u64][0x01]                      vote
//! raft   [replica u64][0x02]                      last purged entry
//! raft   [replica u64][0x03]                      committed
//! log    [replica u64][index u64]                 entry
//! index  [replica u64][base offset u64][first index u64]   segment
//! state  [replica u64][0x01]                      checkpoint
//! state  [replica u64][0x02][index u64]           checkpoint that is kept
//! state  [replica u64][0x03][lane u8][due u64][offset u64]   a message with an order of its own; empty
//! ```

use std::ops::Range;

use quorate_model::partition::subscription::{Lane, Place, Position};
use quorate_model::{Offset, ReplicaId};

/// Tags are on disk: never change one, never use a retired one again.
const NODE_LAYOUT: u8 = 0x00;
const NODE_IDENTITY: u8 = 0x01;
const RAFT_VOTE: u8 = 0x01;
const RAFT_PURGED: u8 = 0x02;
const RAFT_COMMITTED: u8 = 0x03;
const STATE_CHECKPOINT: u8 = 0x01;
const STATE_KEPT: u8 = 0x02;
const STATE_LANE: u8 = 0x03;

pub(crate) fn layout() -> Vec<u8> {
    vec![NODE_LAYOUT]
}

pub(crate) fn identity() -> Vec<u8> {
    vec![NODE_IDENTITY]
}

pub(crate) fn vote(replica: ReplicaId) -> Vec<u8> {
    tagged(replica, RAFT_VOTE)
}

pub(crate) fn purged(replica: ReplicaId) -> Vec<u8> {
    tagged(replica, RAFT_PURGED)
}

pub(crate) fn committed(replica: ReplicaId) -> Vec<u8> {
    tagged(replica, RAFT_COMMITTED)
}

pub(crate) fn checkpoint(replica: ReplicaId) -> Vec<u8> {
    tagged(replica, STATE_CHECKPOINT)
}

/// The checkpoint after the entry `index`, kept because the log may be cut there.
pub(crate) fn kept(replica: ReplicaId, index: u64) -> Vec<u8> {
    let mut key = tagged(replica, STATE_KEPT);
    key.extend(index.to_be_bytes());
    key
}

/// A message's place in its lane.
pub(crate) fn place(replica: ReplicaId, Position { lane, place }: Position) -> Vec<u8> {
    let mut key = tagged(replica, STATE_LANE);
    key.push(lane.to_byte());
    key.extend(place.due_ms.to_be_bytes());
    key.extend(place.offset.get().to_be_bytes());
    key
}

/// The places in the key of such a row.
pub(crate) fn place_of(key: &[u8]) -> Option<Place> {
    let (due_ms, offset) = key.get(10..)?.split_first_chunk()?;
    let offset = offset.try_into().ok()?;
    Some(Place { due_ms: u64::from_be_bytes(*due_ms), offset: Offset::new(u64::from_be_bytes(offset)) })
}

/// The keys of a lane's messages between two places.
pub(crate) fn places(replica: ReplicaId, lane: Lane, places: Range<Place>) -> Range<Vec<u8>> {
    let key = |at| place(replica, Position { lane, place: at });
    key(places.start)..key(places.end)
}

/// The keys of the messages of all lanes.
pub(crate) fn lanes(replica: ReplicaId) -> Range<Vec<u8>> {
    tagged(replica, STATE_LANE)..tagged(replica, STATE_LANE + 1)
}

pub(crate) fn entry(replica: ReplicaId, index: u64) -> Vec<u8> {
    numbers(&[replica.get(), index])
}

/// The keys of the entries `indices`; the open end of a log is `u64::MAX`, which no entry reaches.
pub(crate) fn entries(replica: ReplicaId, indices: Range<u64>) -> Range<Vec<u8>> {
    entry(replica, indices.start)..entry(replica, indices.end)
}

/// The index in the key of a log row.
pub(crate) fn entry_index(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(8..)?.try_into().ok()?))
}

/// Segments without records share their base offset with the next one, so the first index tells them apart.
pub(crate) fn segment(replica: ReplicaId, base_offset: u64, first_index: u64) -> Vec<u8> {
    numbers(&[replica.get(), base_offset, first_index])
}

/// The keys of the segments whose base offset is in `offsets`.
pub(crate) fn segments(replica: ReplicaId, offsets: Range<u64>) -> Range<Vec<u8>> {
    numbers(&[replica.get(), offsets.start])..numbers(&[replica.get(), offsets.end])
}

/// The keys of all rows of a replica, in any table whose keys begin with one.
pub(crate) fn replica_rows(replica: ReplicaId) -> Range<Vec<u8>> {
    let end = match replica.get().checked_add(1) {
        Some(next) => numbers(&[next]),
        // Past every key: the longest has three numbers.
        None => vec![0xff; 25],
    };
    numbers(&[replica.get()])..end
}

/// The replica a key belongs to, in any table whose keys begin with one.
pub(crate) fn replica_of(key: &[u8]) -> Option<ReplicaId> {
    Some(ReplicaId::new(u64::from_be_bytes(*key.first_chunk()?)))
}

fn tagged(replica: ReplicaId, tag: u8) -> Vec<u8> {
    let mut key = numbers(&[replica.get()]);
    key.push(tag);
    key
}

fn numbers(fields: &[u64]) -> Vec<u8> {
    fields.iter().flat_map(|field| field.to_be_bytes()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_are_fixed_for_ever() {
        let replica = ReplicaId::new(0x0102);
        let prefix = [0, 0, 0, 0, 0, 0, 1, 2];
        assert_eq!(layout(), [0]);
        assert_eq!(identity(), [1]);
        assert_eq!(vote(replica), [&prefix[..], &[1]].concat());
        assert_eq!(purged(replica), [&prefix[..], &[2]].concat());
        assert_eq!(committed(replica), [&prefix[..], &[3]].concat());
        assert_eq!(checkpoint(replica), [&prefix[..], &[1]].concat());
        assert_eq!(kept(replica, 3), [&prefix[..], &[2, 0, 0, 0, 0, 0, 0, 0, 3]].concat());
        assert_eq!(entry(replica, 3), [&prefix[..], &[0, 0, 0, 0, 0, 0, 0, 3]].concat());
        let fields = [&prefix[..], &[0, 0, 0, 0, 0, 0, 0, 4], &[0, 0, 0, 0, 0, 0, 0, 5]].concat();
        assert_eq!(segment(replica, 4, 5), fields);
        let lane = Lane { priority: 4, delayed: true };
        let at = Place { due_ms: 5, offset: Offset::new(6) };
        let fields = [&prefix[..], &[3, 9], &[0, 0, 0, 0, 0, 0, 0, 5], &[0, 0, 0, 0, 0, 0, 0, 6]].concat();
        assert_eq!(place(replica, Position { lane, place: at }), fields);
        assert_eq!(place_of(&fields), Some(at));
        assert!(lanes(replica).contains(&fields) && places(replica, lane, Place::FIRST..at.next()).contains(&fields));
    }

    #[test]
    fn the_last_replica_id_has_a_range_too() {
        let rows = replica_rows(ReplicaId::new(u64::MAX));
        assert!(rows.contains(&segment(ReplicaId::new(u64::MAX), u64::MAX, u64::MAX)));
        assert!(rows.contains(&vote(ReplicaId::new(u64::MAX))));
    }

    proptest! {
        #[test]
        fn a_log_key_gives_back_its_fields(replica: u64, index: u64) {
            let key = entry(ReplicaId::new(replica), index);
            prop_assert_eq!(replica_of(&key), Some(ReplicaId::new(replica)));
            prop_assert_eq!(entry_index(&key), Some(index));
        }

        #[test]
        fn log_keys_sort_as_their_fields(a: (u64, u64), b: (u64, u64)) {
            let key = |(replica, index)| entry(ReplicaId::new(replica), index);
            prop_assert_eq!(key(a).cmp(&key(b)), a.cmp(&b));
        }

        #[test]
        fn segment_keys_sort_as_their_fields(a: (u64, u64, u64), b: (u64, u64, u64)) {
            let key = |(replica, base, first)| segment(ReplicaId::new(replica), base, first);
            prop_assert_eq!(key(a).cmp(&key(b)), a.cmp(&b));
        }

        #[test]
        fn a_range_holds_its_own_rows_and_no_others(
            mine in 0..u64::MAX, other: u64, base: u64, first: u64, range: Range<u64>,
        ) {
            let rows = replica_rows(ReplicaId::new(mine));
            for of in [mine, other] {
                let replica = ReplicaId::new(of);
                let state = kept(replica, first);
                for key in [vote(replica), state, entry(replica, first), segment(replica, base, first)] {
                    prop_assert_eq!(rows.contains(&key), of == mine);
                }
                let inside = of == mine && range.contains(&base);
                let replica_mine = ReplicaId::new(mine);
                prop_assert_eq!(segments(replica_mine, range.clone()).contains(&segment(replica, base, first)), inside);
                prop_assert_eq!(entries(replica_mine, range.clone()).contains(&entry(replica, base)), inside);
            }
        }

        #[test]
        fn short_keys_have_no_fields(bytes in proptest::collection::vec(any::<u8>(), 0..8)) {
            prop_assert_eq!(replica_of(&bytes), None);
            prop_assert_eq!(entry_index(&bytes), None);
        }
    }
}

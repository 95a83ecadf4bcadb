//! Where a subscription stood at one moment, to go back to.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use crc_fast::{CrcAlgorithm, Digest};
use serde::{Deserialize, Serialize};

use super::{Lane, Place, Settled, SubscriptionState};
use crate::codec::{self, CodecError};
use crate::ids::{Offset, TopicId};
use crate::limits::{SETTLEMENT_BYTES_MAX, SNAPSHOT_BYTES_MAX};

const VERSION: u8 = 1;
const CRC_BYTES: usize = 4;

/// In all partitions of a topic, as users keep it: the encoding, and its CRC-32C.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionSnapshot {
    /// The topic whose messages are meant.
    pub topic: TopicId,
    /// By partition.
    pub partitions: BTreeMap<u32, Snapshot>,
}

impl SubscriptionSnapshot {
    /// As it is kept.
    pub fn encode(&self) -> Bytes {
        let encoded = codec::encode(VERSION, self);
        let mut out = BytesMut::with_capacity(encoded.len() + CRC_BYTES);
        out.put_slice(&encoded);
        out.put_u32_le(crc(&encoded));
        out.freeze()
    }

    /// Reads one. It comes from outside, but only the checksum can be checked: whoever may seek may settle what he likes.
    pub fn decode(bytes: &Bytes) -> Result<Self, CodecError> {
        let what = "snapshot";
        let (encoded, expected) = match bytes.split_last_chunk::<CRC_BYTES>() {
            Some((encoded, crc)) => (encoded, u32::from_le_bytes(*crc)),
            None => return Err(CodecError::Truncated { what, need: CRC_BYTES + 1, have: bytes.len() }),
        };
        if crc(encoded) != expected {
            return Err(CodecError::Malformed { what, detail: "its checksum is another".to_owned() });
        }
        codec::decode(what, VERSION, SNAPSHOT_BYTES_MAX, &bytes.slice(..encoded.len()))
    }
}

fn crc(bytes: &[u8]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(bytes);
    u32::try_from(digest.finalize()).expect("32 bits")
}

/// In one partition: what was settled. What was in flight, or waited for another attempt, wasn't, and begins anew.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    start: Offset,
    lanes: BTreeMap<Lane, Settled>,
}

impl Snapshot {
    /// As it travels between nodes.
    pub fn encode(&self) -> Bytes {
        codec::encode(VERSION, self)
    }

    /// Reads one that another node sent.
    pub fn decode(bytes: &Bytes) -> Result<Self, CodecError> {
        codec::decode("snapshot of a partition", VERSION, SETTLEMENT_BYTES_MAX, bytes)
    }

    /// Nothing before it is delivered.
    pub(super) fn start(&self) -> Offset {
        self.start
    }

    /// What is settled of what the partition holds: a snapshot can't settle what isn't published yet.
    pub(super) fn settled<'a>(
        &'a self,
        ends: &'a BTreeMap<Lane, Place>,
    ) -> impl Iterator<Item = (Lane, Range<Place>)> + 'a {
        let known = self.lanes.iter().filter_map(|(lane, settled)| Some((lane, settled, *ends.get(lane)?)));
        known.flat_map(|(lane, settled, end)| {
            settled.intervals().map(move |places| (*lane, places.start..places.end.min(end)))
        })
    }
}

impl SubscriptionState {
    /// Where it stands now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { start: self.start, lanes: self.lanes.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_read_back_and_no_other_text() {
        let state = SubscriptionState::new(Offset::new(300));
        let topic = TopicId::new(7);
        let partitions = BTreeMap::from([(0, state.snapshot()), (4, Snapshot::default())]);
        let snapshot = SubscriptionSnapshot { topic, partitions };
        let encoded = snapshot.encode();
        assert_eq!(SubscriptionSnapshot::decode(&encoded), Ok(snapshot));
        for length in 0..encoded.len() {
            assert!(SubscriptionSnapshot::decode(&encoded.slice(..length)).is_err());
        }
        for position in 0..encoded.len() {
            let mut damaged = encoded.to_vec();
            damaged[position] ^= 1;
            assert!(SubscriptionSnapshot::decode(&damaged.into()).is_err());
        }
    }
}

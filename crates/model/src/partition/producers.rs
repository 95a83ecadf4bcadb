//! What a partition remembers of its producers, so that a batch that is sent again isn't appended again.
//!
//! Of each producer: its epoch, the sequence that comes next, and its last batches. Sequences count
//! records.
//!
//! ```text
//! sequence    0 …… 40        50       60       70        80
//! appended    forgotten      |  batch |  batch |  batch  |
//!             too old        duplicate, if the same batch | expected  gap →
//! ```
//!
//! The memory is bounded: the producer whose last append lies furthest back in the log is forgotten
//! when one too many appends. It takes [`PRODUCERS_PER_PARTITION_MAX`] other producers to push one out;
//! after that its next batch is refused, unless it begins at sequence 0 again.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::batch::ProducerStamp;
use crate::ids::{Offset, ProducerId};
use crate::limits::{PRODUCER_WINDOW_BATCHES, PRODUCERS_PER_PARTITION_MAX};
use crate::partition::AppendRejected;

/// All producers that the partition remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Producers {
    by_id: BTreeMap<ProducerId, Producer>,
    /// Log index of each producer's last append. Indices are unique, so this orders the producers.
    by_last_append: BTreeMap<u64, ProducerId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Producer {
    epoch: u32,
    next_sequence: u64,
    last_append_index: u64,
    /// The last batches, oldest first.
    window: VecDeque<RememberedBatch>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RememberedBatch {
    base_sequence: u64,
    count: u32,
    crc: u32,
    base_offset: Offset,
}

/// What to do with a stamped batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the one that comes next: append it.
    Expected,
    /// It stands in the log already.
    Duplicate {
        /// Offset of its first record.
        base_offset: Offset,
    },
}

impl Producers {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Judges a batch by its stamp. Changes nothing.
    pub(super) fn judge(&self, stamp: ProducerStamp, count: u32, crc: u32) -> Result<Verdict, AppendRejected> {
        let ProducerStamp { id, epoch, base_sequence } = stamp;
        let Some(producer) = self.by_id.get(&id) else {
            if base_sequence == 0 {
                return Ok(Verdict::Expected);
            }
            return Err(AppendRejected::UnknownProducer { producer: id, sequence: base_sequence });
        };
        if epoch < producer.epoch {
            return Err(AppendRejected::Fenced { producer: id, current: producer.epoch, presented: epoch });
        }
        // A new epoch begins anew; what the old one sent is no longer a duplicate of anything.
        let expected = if epoch > producer.epoch { 0 } else { producer.next_sequence };
        if base_sequence > expected {
            return Err(AppendRejected::SequenceGap { producer: id, expected, actual: base_sequence });
        }
        if base_sequence == expected {
            return Ok(Verdict::Expected);
        }
        producer.judge_earlier(id, base_sequence, count, crc)
    }

    /// Takes note of an append that [`Producers::judge`] expected.
    pub(super) fn remember(&mut self, stamp: ProducerStamp, count: u32, crc: u32, base_offset: Offset, index: u64) {
        let producer = self.by_id.entry(stamp.id).or_insert_with(|| Producer {
            epoch: stamp.epoch,
            next_sequence: 0,
            last_append_index: index,
            window: VecDeque::new(),
        });
        if stamp.epoch > producer.epoch {
            producer.epoch = stamp.epoch;
            producer.window.clear();
        }
        producer.next_sequence = stamp.base_sequence + u64::from(count);
        producer.window.push_back(RememberedBatch { base_sequence: stamp.base_sequence, count, crc, base_offset });
        if producer.window.len() > PRODUCER_WINDOW_BATCHES {
            producer.window.pop_front();
        }
        self.by_last_append.remove(&producer.last_append_index);
        producer.last_append_index = index;
        self.by_last_append.insert(index, stamp.id);
        if self.by_id.len() > PRODUCERS_PER_PARTITION_MAX {
            self.forget_least_recent();
        }
        debug_assert_eq!(self.by_id.len(), self.by_last_append.len());
    }

    fn forget_least_recent(&mut self) {
        if let Some((_, id)) = self.by_last_append.pop_first() {
            self.by_id.remove(&id);
        }
    }
}

impl Producer {
    /// Judges a batch that begins below the sequence that comes next.
    fn judge_earlier(
        &self,
        id: ProducerId,
        base_sequence: u64,
        count: u32,
        crc: u32,
    ) -> Result<Verdict, AppendRejected> {
        let oldest = self.window.front().map_or(self.next_sequence, |batch| batch.base_sequence);
        if base_sequence < oldest {
            return Err(AppendRejected::SequenceTooOld { producer: id, oldest, actual: base_sequence });
        }
        // The checksum tells a batch sent again from another batch under the same sequence: to answer the
        // latter with "appended" would lose its records.
        self.window
            .iter()
            .find(|batch| (batch.base_sequence, batch.count, batch.crc) == (base_sequence, count, crc))
            .map(|batch| Verdict::Duplicate { base_offset: batch.base_offset })
            .ok_or(AppendRejected::SequenceConflict { producer: id, sequence: base_sequence })
    }
}

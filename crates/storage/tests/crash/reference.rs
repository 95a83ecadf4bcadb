//! A storage so naive that it is obviously right, and the random operations that both perform.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use bytes::Bytes;
use fastrand::Rng;
use quorate_model::{IndexSegment, Offset};
use quorate_storage::{Checkpoint, EntryId, EntryKind, LogEntry};

/// One replica's rows, as they should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) vote: Option<Bytes>,
    pub(crate) committed: Option<EntryId>,
    pub(crate) purged: Option<EntryId>,
    pub(crate) entries: Vec<LogEntry>,
    pub(crate) checkpoint: Option<Checkpoint>,
    pub(crate) segments: BTreeMap<Offset, IndexSegment>,
}

#[derive(Debug, Clone)]
pub(crate) enum Op {
    Append(Vec<LogEntry>),
    SaveVote(Bytes),
    SaveCommitted(EntryId),
    TruncateAfter(Option<EntryId>),
    Purge(EntryId),
    SaveCheckpoint(Checkpoint),
    InstallCheckpoint(Checkpoint),
    PutSegment(IndexSegment),
}

impl Reference {
    pub(crate) fn last(&self) -> Option<EntryId> {
        self.entries.last().map(|entry| entry.id).or(self.purged)
    }

    fn applied(&self) -> Option<EntryId> {
        self.checkpoint.as_ref().and_then(|checkpoint| checkpoint.last_applied)
    }

    pub(crate) fn perform(&mut self, op: &Op) {
        match op.clone() {
            Op::Append(entries) => self.entries.extend(entries),
            Op::SaveVote(vote) => self.vote = Some(vote),
            Op::SaveCommitted(id) => self.committed = Some(id),
            Op::TruncateAfter(last) => {
                self.entries.retain(|entry| last.is_some_and(|last| entry.id.index <= last.index));
            }
            Op::Purge(upto) => self.purge(upto),
            Op::SaveCheckpoint(checkpoint) => self.checkpoint = Some(checkpoint),
            Op::InstallCheckpoint(checkpoint) => {
                if let Some(upto) = checkpoint.last_applied {
                    self.purge(upto);
                    self.segments.clear();
                }
                self.checkpoint = Some(checkpoint);
            }
            Op::PutSegment(segment) => {
                self.segments.insert(segment.base_offset, segment);
            }
        }
    }

    fn purge(&mut self, upto: EntryId) {
        if self.purged.is_none_or(|purged| purged.index < upto.index) {
            self.purged = Some(upto);
            self.entries.retain(|entry| entry.id.index > upto.index);
        }
    }

    /// Something that a Raft replica might do next: it never takes back what it has applied, and it
    /// purges only what its checkpoint contains.
    pub(crate) fn random_op(&self, rng: &mut Rng) -> Op {
        let last = self.last();
        let applied = self.applied();
        let unapplied: Vec<EntryId> =
            self.entries.iter().map(|entry| entry.id).filter(|id| applied.is_none_or(|a| id.index > a.index)).collect();
        match rng.u32(0..100) {
            0..45 => Op::Append(self.random_entries(rng)),
            45..55 => Op::SaveVote(random_bytes(rng, 1..=20)),
            55..62 if last.is_some() => Op::SaveCommitted(last.unwrap()),
            62..70 if !unapplied.is_empty() => {
                // Everything after one of the unapplied entries, or all of them.
                let keep = rng.usize(0..unapplied.len());
                Op::TruncateAfter(keep.checked_sub(1).map_or(applied, |keep| Some(unapplied[keep])))
            }
            70..80 if !unapplied.is_empty() => {
                let applied = unapplied[rng.usize(0..unapplied.len())];
                Op::SaveCheckpoint(random_checkpoint(rng, applied))
            }
            80..86 if applied > self.purged => Op::Purge(applied.unwrap()),
            86..88 => {
                let index = last.map_or(0, |last| last.index + rng.u64(1..10));
                Op::InstallCheckpoint(random_checkpoint(rng, EntryId { term: 9, index }))
            }
            _ => Op::PutSegment(self.next_segment(rng)),
        }
    }

    fn random_entries(&self, rng: &mut Rng) -> Vec<LogEntry> {
        let first = self.last().map_or(0, |last| last.index + 1);
        let term = rng.u64(1..9);
        let count = rng.usize(1..6);
        let entry = |index| {
            let kind = rng.choice([EntryKind::Blank, EntryKind::Command, EntryKind::Membership]).unwrap();
            // Some bodies become blobs in the real engine, some don't.
            let body = if kind == EntryKind::Command { random_bytes(rng, 0..=3000) } else { Bytes::new() };
            LogEntry { id: EntryId { term, index }, kind, body }
        };
        (first..).take(count).map(entry).collect()
    }

    fn next_segment(&self, rng: &mut Rng) -> IndexSegment {
        let (base_offset, first_index) = self.segments.last_key_value().map_or((Offset::new(0), 0), |(_, segment)| {
            (segment.end_offset, segment.first_index + u64::from(segment.entries))
        });
        IndexSegment {
            first_index,
            base_offset,
            accepted: 1,
            entries: rng.u32(1..65),
            end_offset: Offset::new(base_offset.get() + rng.u64(1..100)),
            max_timestamp_ms: rng.u64(..),
            bytes: rng.u64(..),
        }
    }
}

fn random_checkpoint(rng: &mut Rng, last_applied: EntryId) -> Checkpoint {
    Checkpoint {
        last_applied: Some(last_applied),
        membership: random_bytes(rng, 0..=30),
        machine: random_bytes(rng, 0..=300),
    }
}

fn random_bytes(rng: &mut Rng, len: RangeInclusive<usize>) -> Bytes {
    let len = rng.usize(len);
    std::iter::repeat_with(|| rng.u8(..)).take(len).collect()
}

//! The partition machine against a naive reference that keeps everything and looks everything up.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::{Just, Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest};
use quorate_model::limits::{PRODUCER_WINDOW_BATCHES, SEGMENT_BYTES, SEGMENT_ENTRIES_MAX};
use quorate_model::{
    AppendRejected, Appended, Change, Codec, Effect, IndexSegment, Machine, MachineKind, Offset, PartitionCommand,
    PartitionId, ProducerId, ProducerStamp, Record, RecordBatch, RecordBatchBuilder, Reply, TopicId,
};

const HERE: PartitionId = PartitionId::new(TopicId::new(9), 4);
const KIND: MachineKind = MachineKind::Partition(HERE);

/// What stands at one log index.
#[derive(Clone, Debug)]
enum Entry {
    Blank,
    Garbage,
    Append(RecordBatch),
}

/// An accepted append, as the reference remembers it.
struct Kept {
    index: u64,
    base: u64,
    batch: RecordBatch,
}

#[derive(Default)]
struct Reference {
    kept: Vec<Kept>,
}

impl Reference {
    fn end(&self) -> u64 {
        self.kept.last().map_or(0, |kept| kept.base + u64::from(kept.batch.header().count))
    }

    fn append(&mut self, index: u64, batch: &RecordBatch) -> Result<Appended, AppendRejected> {
        let count = batch.header().count;
        if let Some(stamp) = batch.header().producer
            && let Some(base) = self.judge(stamp, batch)?
        {
            return Ok(Appended { base_offset: Offset::new(base), count, duplicate: true });
        }
        let base = self.end();
        self.kept.push(Kept { index, base, batch: batch.clone() });
        Ok(Appended { base_offset: Offset::new(base), count, duplicate: false })
    }

    /// The base offset of the batch if it is a duplicate, nothing if it is the next.
    fn judge(&self, stamp: ProducerStamp, batch: &RecordBatch) -> Result<Option<u64>, AppendRejected> {
        let producer = stamp.id;
        let stamps = || {
            self.kept.iter().filter_map(|kept| {
                let stamp = kept.batch.header().producer?;
                (stamp.id == producer).then_some((stamp, kept))
            })
        };
        let Some(current) = stamps().map(|(stamp, _)| stamp.epoch).max() else {
            if stamp.base_sequence == 0 {
                return Ok(None);
            }
            return Err(AppendRejected::UnknownProducer { producer, sequence: stamp.base_sequence });
        };
        if stamp.epoch < current {
            return Err(AppendRejected::Fenced { producer, current, presented: stamp.epoch });
        }
        let of_epoch: Vec<_> = stamps().filter(|(kept, _)| kept.epoch == stamp.epoch).collect();
        let expected = of_epoch.iter().map(|(_, kept)| u64::from(kept.batch.header().count)).sum();
        let actual = stamp.base_sequence;
        if actual == expected {
            return Ok(None);
        }
        if actual > expected {
            return Err(AppendRejected::SequenceGap { producer, expected, actual });
        }
        let remembered = &of_epoch[of_epoch.len().saturating_sub(PRODUCER_WINDOW_BATCHES)..];
        let oldest = remembered[0].0.base_sequence;
        if actual < oldest {
            return Err(AppendRejected::SequenceTooOld { producer, oldest, actual });
        }
        remembered
            .iter()
            .find(|(_, kept)| kept.batch == *batch)
            .map(|(_, kept)| Some(kept.base))
            .ok_or(AppendRejected::SequenceConflict { producer, sequence: actual })
    }
}

fn append(producer: Option<ProducerStamp>, records: u64, bytes: usize) -> Entry {
    let mut batch = RecordBatchBuilder::new(HERE, Codec::None, producer);
    for n in 0..records {
        batch.push(Record::new(1_000 * records - n, "", [], vec![b'x'; bytes])).unwrap();
    }
    Entry::Append(batch.build().unwrap())
}

fn any_entry() -> impl Strategy<Value = Entry> {
    // Few producers, epochs and sequences, so that they collide often.
    let stamped =
        (1u64..3, 0u32..2, 0u64..14, 1u64..3, 0usize..2).prop_map(|(id, epoch, base_sequence, records, bytes)| {
            let id = ProducerId::new(id);
            append(Some(ProducerStamp { id, epoch, base_sequence }), records, bytes)
        });
    prop_oneof![
        12 => stamped,
        2 => (1u64..4, prop_oneof![9 => Just(1usize), 1 => Just(140_000usize)])
            .prop_map(|(records, bytes)| append(None, records, bytes)),
        2 => Just(Entry::Blank),
        1 => Just(Entry::Garbage),
    ]
}

/// Applies an entry and gives back reply, changes and effects; a blank entry has no reply.
fn apply(machine: &mut Machine, index: u64, entry: &Entry) -> (Option<Reply>, Vec<Change>, Vec<Effect>) {
    let command = match entry {
        Entry::Blank => return (None, machine.skip(index), Vec::new()),
        Entry::Garbage => Bytes::from_static(b"\x07garbage"),
        Entry::Append(batch) => PartitionCommand::Append { time_ms: index, batch: batch.bytes().clone() }.encode(),
    };
    let applied = machine.apply(index, &command);
    (Some(applied.reply), applied.changes, applied.effects)
}

fn segments(changes: Vec<Change>) -> impl Iterator<Item = IndexSegment> {
    changes.into_iter().filter_map(|change| match change {
        Change::Segment(segment) => Some(segment),
        Change::Checkpoint | Change::Lanes(_) | Change::LanesTrimmed(_) => None,
    })
}

/// What the rows and the open segment say: log index → base offset, found as a reader finds it.
fn read_index(rows: &[IndexSegment], machine: &Machine, log: &[Entry]) -> BTreeMap<u64, u64> {
    let open = machine.as_partition().unwrap().open_segment();
    let mut found = BTreeMap::new();
    let mut end = 0;
    for segment in rows.iter().chain([open]) {
        assert_eq!(segment.base_offset.get(), end, "segments join without a gap");
        assert!(segment.entries <= SEGMENT_ENTRIES_MAX);
        assert_eq!(IndexSegment::decode(&segment.encode()), Ok(*segment));
        let (mut bytes, mut latest) = (0, 0);
        for index in segment.accepted_indices() {
            let Entry::Append(batch) = &log[index as usize] else {
                panic!("entry {index} is no append");
            };
            found.insert(index, end);
            end += u64::from(batch.header().count);
            latest = latest.max(batch.header().max_timestamp_ms);
            assert!(bytes < SEGMENT_BYTES, "a segment closes once it is full");
            bytes += batch.len_bytes() as u64;
        }
        assert_eq!(segment.end_offset.get(), end);
        assert_eq!((segment.bytes, segment.max_timestamp_ms), (bytes, latest));
    }
    assert!(rows.iter().all(|row| !row.is_empty()));
    found
}

proptest! {
    #[test]
    fn the_machine_agrees_with_the_reference(
        log in proptest::collection::vec(any_entry(), 0..200),
        crash_at in proptest::sample::select((0usize..200).collect::<Vec<_>>()),
    ) {
        let mut machine = Machine::new(KIND);
        let mut reference = Reference::default();
        let mut rows = Vec::new();
        let mut saved = None;
        for (index, entry) in log.iter().enumerate() {
            if index == crash_at {
                saved = Some((machine.checkpoint(), rows.len()));
            }
            let end_before = reference.end();
            let (reply, changes, effects) = apply(&mut machine, index as u64, entry);
            rows.extend(segments(changes));
            match entry {
                Entry::Blank => prop_assert_eq!(reply, None),
                Entry::Garbage => prop_assert!(matches!(reply, Some(Reply::Refused(_)))),
                Entry::Append(batch) => {
                    let expected = Reply::Partition(reference.append(index as u64, batch));
                    prop_assert_eq!(Reply::decode(&expected.encode()), Ok(expected.clone()));
                    prop_assert_eq!(reply, Some(expected));
                }
            }
            let end = Offset::new(reference.end());
            let expected_effects = match reference.end() > end_before {
                true => vec![Effect::RecordsAvailable { end }],
                false => vec![],
            };
            prop_assert_eq!(effects, expected_effects);
            prop_assert_eq!(machine.as_partition().unwrap().next_offset(), end);
        }

        // The offset index finds exactly what the reference kept.
        let kept: BTreeMap<u64, u64> =
            reference.kept.iter().map(|kept| (kept.index, kept.base)).collect();
        prop_assert_eq!(read_index(&rows, &machine, &log), kept);
        let bytes: usize = reference.kept.iter().map(|kept| kept.batch.len_bytes()).sum();
        prop_assert_eq!(machine.as_partition().unwrap().bytes(), bytes as u64);

        // A replica that comes back from a checkpoint and applies the rest again ends in the same state
        // and writes the same rows.
        if let Some((checkpoint, rows_before)) = saved {
            let mut again = Machine::restore(KIND, &checkpoint).unwrap();
            let mut rows_again = rows[..rows_before].to_vec();
            for (index, entry) in log.iter().enumerate().skip(crash_at) {
                let (_, changes, _) = apply(&mut again, index as u64, entry);
                rows_again.extend(segments(changes));
            }
            prop_assert_eq!(rows_again, rows);
            prop_assert_eq!(again.checkpoint(), machine.checkpoint());
            prop_assert_eq!(again, machine);
        }
    }
}

#[test]
#[should_panic(expected = "log index 5 applied after Some(5)")]
fn an_entry_applied_twice_stops_the_group() {
    let mut machine = Machine::new(KIND);
    machine.skip(5);
    machine.skip(5);
}

#[test]
fn a_checkpoint_of_another_partition_is_refused() {
    let checkpoint = Machine::new(KIND).checkpoint();
    let elsewhere = MachineKind::Partition(PartitionId::new(HERE.topic, 5));
    assert_eq!(
        Machine::restore(elsewhere, &checkpoint).unwrap_err().to_string(),
        "partition checkpoint belongs to partition 9/4, not to partition 9/5"
    );
}

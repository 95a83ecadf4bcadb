//! Message batches read back out of the log: the model's machine decides what is accepted, and whatever the
//! log holds in between, a reader sees each accepted batch once, in order, as the bytes it was sent as.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use quorate_model::{
    Change, Codec, IndexSegment, Machine, MachineKind, Offset, PartitionCommand, PartitionId, ProducerId,
    ProducerStamp, Record, RecordBatch, RecordBatchBuilder, ReplicaId, TopicId,
};
use quorate_storage::{
    Completion, EntryId, EntryKind, LogEntry, RaftLog, ReadRecordsError, RecordReader, SimDisk, StateStore, Storage,
    StorageError, TailCacheLimits,
};

const REPLICA: ReplicaId = ReplicaId::new(65_536);
const PARTITION: PartitionId = PartitionId::new(TopicId::new(5), 2);

/// One replica of a partition, without the agreement: every entry is applied as soon as it is appended.
struct Partition {
    storage: Storage,
    log: RaftLog,
    state: StateStore,
    machine: Machine,
    next_index: u64,
    /// What a reader must see: accepted batches with their base offsets.
    accepted: Vec<(u64, RecordBatch)>,
}

impl Partition {
    async fn new() -> Partition {
        let storage = SimDisk::new(|| Duration::from_millis(1)).open(Path::new("sim")).unwrap();
        // Small, so that reads also go to disk.
        let log = RaftLog::open(&storage, REPLICA, TailCacheLimits { bytes: 2000 }).await.unwrap();
        let state = StateStore::new(&storage, REPLICA);
        let machine = Machine::new(MachineKind::Partition(PARTITION));
        Partition { storage, log, state, machine, next_index: 0, accepted: Vec::new() }
    }

    fn entry(&mut self, kind: EntryKind, body: &Bytes) {
        let index = self.next_index;
        self.next_index += 1;
        let id = EntryId { term: 1, index };
        self.log.append(vec![LogEntry { id, kind, body: body.clone() }], Completion::None);
        let changes = match kind {
            EntryKind::Command => self.machine.apply(index, body).changes,
            EntryKind::Blank | EntryKind::Membership => self.machine.skip(index),
        };
        self.state.put_segments(segments(changes));
    }

    fn append(&mut self, batch: &RecordBatch) {
        let before = self.end();
        let command = PartitionCommand::Append { time_ms: 1, batch: batch.bytes().clone() };
        self.entry(EntryKind::Command, &command.encode());
        if self.end() > before {
            self.accepted.push((before, batch.clone()));
        }
    }

    fn open(&self) -> IndexSegment {
        *self.machine.as_partition().unwrap().open_segment()
    }

    fn end(&self) -> u64 {
        self.machine.as_partition().unwrap().next_offset().get()
    }

    fn reader(&self) -> RecordReader {
        RecordReader::new(self.log.clone(), self.state.clone())
    }

    async fn read(&self, reader: &RecordReader, from: u64, bytes_max: u64) -> Vec<(u64, Bytes)> {
        let batches = reader.read(Offset::new(from), &self.open(), bytes_max).await.unwrap();
        batches.into_iter().map(|stored| (stored.base_offset.get(), stored.batch)).collect()
    }

    /// The batches from the one with the record at `from` on, stopping after the one that reaches `bytes_max`.
    fn expected(&self, from: u64, bytes_max: u64) -> Vec<(u64, Bytes)> {
        let mut bytes = 0;
        let mut batches = Vec::new();
        for (base, batch) in &self.accepted {
            if base + u64::from(batch.header().count) > from && bytes < bytes_max {
                bytes += batch.bytes().len() as u64;
                batches.push((*base, batch.bytes().clone()));
            }
        }
        batches
    }
}

fn segments(changes: Vec<Change>) -> Vec<IndexSegment> {
    let segment = |change| match change {
        Change::Segment(segment) => Some(segment),
        Change::Checkpoint | Change::Lanes(_) | Change::LanesTrimmed(_) => None,
    };
    changes.into_iter().filter_map(segment).collect()
}

fn batch(rng: &mut Rng, producer: Option<ProducerStamp>) -> RecordBatch {
    let codec = rng.choice([Codec::None, Codec::Lz4, Codec::Zstd]).unwrap();
    let mut builder = RecordBatchBuilder::new(PARTITION, codec, producer);
    for _ in 0..rng.usize(1..5) {
        let data = Bytes::from(vec![rng.u8(..); rng.usize(0..200)]);
        builder.push(Record::new(rng.u64(1000..2000), Bytes::new(), [], data)).unwrap();
    }
    builder.build().unwrap()
}

/// Appends of all kinds, with entries in between that hold no records.
async fn filled(seed: u64, entries: usize) -> Partition {
    let mut rng = Rng::with_seed(seed);
    let mut partition = Partition::new().await;
    let mut sequence = 0;
    let mut repeated = None;
    for _ in 0..entries {
        match rng.u32(0..10) {
            0 => partition.entry(EntryKind::Blank, &Bytes::new()),
            1 => partition.entry(EntryKind::Membership, &Bytes::from_static(b"members")),
            2..5 => {
                let stamp = ProducerStamp { id: ProducerId::new(9), epoch: 0, base_sequence: sequence };
                let batch = batch(&mut rng, Some(stamp));
                sequence += u64::from(batch.header().count);
                partition.append(&batch);
                repeated = Some(batch);
            }
            5 if repeated.is_some() => partition.append(repeated.as_ref().unwrap()),
            _ => partition.append(&batch(&mut rng, None)),
        }
        if rng.u32(0..4) == 0 {
            tokio::task::yield_now().await;
        }
    }
    partition.storage.commit(Vec::new()).await.unwrap();
    partition
}

#[tokio::test(start_paused = true)]
async fn every_offset_is_read_with_every_bound() {
    for seed in 0..5 {
        let partition = filled(seed, 300).await;
        assert!(partition.open().first_index > 0, "the index has closed segments");
        let reader = partition.reader();
        for from in 0..partition.end() {
            for bytes_max in [0, 1, 500, 5000, u64::MAX] {
                let expected = partition.expected(from, bytes_max.max(1));
                assert_eq!(partition.read(&reader, from, bytes_max).await, expected);
            }
        }
        assert_eq!(partition.read(&reader, partition.end(), u64::MAX).await, []);
        assert_eq!(partition.read(&reader, partition.end() + 1, u64::MAX).await, []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_follows_sees_each_batch_once() {
    let mut rng = Rng::with_seed(1);
    let mut partition = Partition::new().await;
    let reader = partition.reader();
    let mut seen = Vec::new();
    let mut next = 0;
    for _ in 0..400 {
        let batch = batch(&mut rng, None);
        partition.append(&batch);
        if rng.bool() {
            let found = reader.read(Offset::new(next), &partition.open(), 700).await.unwrap();
            next = found.last().map_or(next, |stored| stored.end_offset().get());
            seen.extend(found.into_iter().map(|stored| (stored.base_offset.get(), stored.batch)));
            tokio::task::yield_now().await;
        }
    }
    seen.extend(partition.read(&reader, next, u64::MAX).await);
    assert_eq!(seen, partition.expected(0, u64::MAX));
}

#[tokio::test(start_paused = true)]
async fn a_time_is_found_as_a_search_from_the_start_would() {
    let partition = filled(3, 300).await;
    let reader = partition.reader();
    let numbered = |(base, batch): &(u64, RecordBatch)| (*base..).zip(batch.records().unwrap()).collect::<Vec<_>>();
    let records: Vec<(u64, Record)> = partition.accepted.iter().flat_map(numbered).collect();
    let mut rng = Rng::with_seed(4);
    let mut last_found = 0;
    for _ in 0..300 {
        let (time_ms, from) = (rng.u64(990..2010), rng.u64(0..partition.end() + 2));
        let expected = records.iter().find(|(offset, record)| *offset >= from && record.timestamp_ms >= time_ms);
        let found = reader.offset_for_time(time_ms, Offset::new(from), &partition.open()).await.unwrap();
        assert_eq!(found.map(Offset::get), expected.map(|(offset, _)| *offset), "time {time_ms} from {from}");
        last_found += u64::from(found.is_some());
    }
    assert!(last_found > 100);
}

#[tokio::test(start_paused = true)]
async fn purged_records_are_before_the_start() {
    let partition = filled(5, 300).await;
    let index = partition.next_index / 2;
    partition.log.purge(EntryId { term: 1, index });
    let error = partition.reader().read(Offset::new(0), &partition.open(), 1).await.unwrap_err();
    assert!(matches!(error, ReadRecordsError::BeforeLogStart { offset } if offset == Offset::new(0)), "{error}");
    let last = partition.end() - 1;
    assert_eq!(partition.read(&partition.reader(), last, 1).await, partition.expected(last, 1));
}

#[tokio::test(start_paused = true)]
async fn an_index_that_contradicts_the_log_is_an_error() {
    let mut partition = Partition::new().await;
    partition.entry(EntryKind::Blank, &Bytes::new());
    partition.entry(EntryKind::Command, &Bytes::from_static(&[77, 1, 2]));
    let reader = partition.reader();
    let claim = |accepted, base| IndexSegment {
        accepted,
        entries: 2,
        base_offset: Offset::new(base),
        end_offset: Offset::new(base + 1),
        ..IndexSegment::empty(0, Offset::new(base))
    };
    for accepted in [0b01, 0b10] {
        let error = reader.read(Offset::new(0), &claim(accepted, 0), 1).await.unwrap_err();
        assert!(matches!(error, ReadRecordsError::NotAnAppend { .. }), "{error}");
    }
    let error = reader.read(Offset::new(0), &claim(0, 0), 1).await.unwrap_err();
    let hole = StorageError::Hole { replica: REPLICA, expected: 2 };
    assert!(matches!(&error, ReadRecordsError::Storage(found) if *found == hole), "{error}");
    let error = reader.read(Offset::new(0), &claim(0b10, 5), 1).await.unwrap_err();
    let missing = StorageError::MissingSegment { replica: REPLICA, offset: 0 };
    assert!(matches!(&error, ReadRecordsError::Storage(found) if *found == missing), "{error}");
}

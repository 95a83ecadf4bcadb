//! Thousands of damaged inputs go through the decoders; none may panic. A short, repeatable form of what
//! the fuzz target in `fuzz/` does at length.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_model::{
    ClusterMap, Codec, Command, DeadLetterPolicy, Machine, MachineKind, MetaCommand, NewSubscription, NodeId, Offset,
    PartitionCommand, PartitionId, ProducerId, ProducerStamp, Record, RecordBatch, RecordBatchBuilder, Reply,
    Retention, RetryPolicy, SubscriptionName, TopicId, TopicName,
};

const HERE: PartitionId = PartitionId::new(TopicId::new(1), 0);

/// Xorshift: the same inputs in every run, so that a failure can be looked at again.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

fn batch(codec: Codec) -> RecordBatch {
    let stamp = ProducerStamp { id: ProducerId::new(7), epoch: 1, base_sequence: 40 };
    let mut builder = RecordBatchBuilder::new(HERE, codec, Some(stamp));
    for n in 0..6u64 {
        let attributes = [("kind".to_owned(), "line".repeat(n as usize))];
        builder.push(Record::new(1_000 + n, format!("key-{n}"), attributes, "data ".repeat(20))).unwrap();
    }
    builder.build().unwrap()
}

fn topic(name: &str) -> MetaCommand {
    MetaCommand::CreateTopic {
        time_ms: 9,
        request_id: "r".to_owned(),
        name: TopicName::parse(name).unwrap(),
        partitions: 2,
        replication_factor: None,
        retention: Retention::default(),
        max_message_bytes: 1_000,
        labels: BTreeMap::new(),
    }
}

fn subscription() -> MetaCommand {
    MetaCommand::CreateSubscription(NewSubscription {
        time_ms: 9,
        request_id: "r".to_owned(),
        name: SubscriptionName::parse("billing").unwrap(),
        topic: TopicId::new(1),
        start: vec![Offset::new(300), Offset::new(4)],
        ack_deadline_ms: 30_000,
        retry: RetryPolicy::Explicit { pauses_ms: vec![1, 1_000] },
        dead_letter: Some(DeadLetterPolicy { topic: TopicId::new(2), max_attempts: 5 }),
        ordered: true,
        filter: "size > 9".to_owned(),
        labels: BTreeMap::from([("team".to_owned(), "blue".to_owned())]),
    })
}

/// A cluster with a node, two topics and a subscription.
fn cluster() -> Machine {
    let mut meta = Machine::new(MachineKind::Meta);
    let address = || "a:1".to_owned();
    let node = MetaCommand::RegisterNode {
        node: NodeId::new(1),
        client_address: address(),
        peer_address: address(),
        store_id: 7,
    };
    for command in [node, topic("books"), topic("dead"), subscription()] {
        let applied = meta.apply(0, &command.encode());
        assert!(matches!(applied.reply, Reply::Meta(Ok(_))), "{applied:?}");
    }
    meta
}

fn mutate(input: &[u8], numbers: &mut Numbers) -> Bytes {
    const EDGES: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, 0xfe, 100, 101];
    let mut bytes = input.to_vec();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(bytes.len());
        match numbers.below(6) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << numbers.below(8),
            1 if !bytes.is_empty() => bytes[at] = EDGES[numbers.below(EDGES.len())],
            2 => bytes.truncate(at),
            3 => bytes.insert(at, numbers.next() as u8),
            4 if !bytes.is_empty() => drop(bytes.remove(at)),
            _ => {
                let end = (at + 8).min(bytes.len());
                bytes[at..end].fill(0xff);
            }
        }
    }
    // Half of the time the length is right, so that the inner layers are reached.
    if numbers.below(2) == 0 && bytes.len() >= 4 {
        let length = bytes.len() as u32;
        bytes[0..4].copy_from_slice(&length.to_le_bytes());
    }
    bytes.into()
}

/// Records have one encoding: what could be read from an uncompressed batch, written again, is the batch.
fn assert_only_encoding(batch: &RecordBatch, records: Vec<Record>) {
    if batch.header().codec != Codec::None {
        return;
    }
    let mut builder = RecordBatchBuilder::new(HERE, Codec::None, batch.header().producer);
    for record in records {
        builder.push(record).unwrap();
    }
    let again = builder.build().unwrap();
    // The checksum of the damaged batch is what it was before the damage.
    assert_eq!(again.bytes()[..8], batch.bytes()[..8]);
    assert_eq!(again.bytes()[12..], batch.bytes()[12..]);
}

#[test]
fn damaged_batches_never_panic() {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut unreadable = 0;
    for codec in [Codec::None, Codec::Lz4, Codec::Zstd] {
        let batch = batch(codec);
        for _ in 0..3_000 {
            let bytes = mutate(batch.bytes(), &mut numbers);
            assert!(
                RecordBatch::decode(bytes.clone(), HERE).is_err() || bytes == batch.bytes(),
                "damage passed the checksum"
            );
            // Without the checksum, the records themselves must hold out.
            if let Ok(batch) = RecordBatch::trusted(bytes) {
                let records = batch.records();
                assert_eq!(records.is_ok(), batch.check_records(u64::MAX).is_ok());
                match records {
                    Ok(records) => assert_only_encoding(&batch, records),
                    Err(_) => unreadable += 1,
                }
            }
        }
    }
    assert!(unreadable > 500, "only {unreadable} damaged payloads were reached");
}

#[test]
fn damaged_commands_checkpoints_and_replies_never_panic() {
    let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
    let append = PartitionCommand::Append { time_ms: 5, batch: batch(Codec::None).bytes().clone() };
    let mut machine = Machine::new(MachineKind::Partition(HERE));
    let applied = machine.apply(0, &append.encode());
    machine.apply(1, &PartitionCommand::Mark.encode());
    let meta = cluster();
    let map = meta.as_meta().unwrap().cluster_map().encode();
    let subscribed = cluster().apply(0, &subscription().encode()).reply;
    for _ in 0..2_000 {
        let command = mutate(&append.encode(), &mut numbers);
        let _ = Command::decode(&command);
        let _ = Machine::new(MachineKind::Partition(HERE)).apply(1, &command);
        let _ = Machine::new(MachineKind::Meta).apply(1, &command);
        let _ = Reply::decode(&mutate(&applied.reply.encode(), &mut numbers));
        let _ = ClusterMap::decode(&mutate(&map, &mut numbers));
        let _ = Reply::decode(&mutate(&subscribed.encode(), &mut numbers));
        let command = mutate(&subscription().encode(), &mut numbers);
        let _ = Command::decode(&command);
        let _ = meta.clone().apply(1, &command);
        let partition = mutate(&machine.checkpoint(), &mut numbers);
        let _ = Machine::restore(MachineKind::Partition(HERE), &partition);
        let _ = Machine::restore(MachineKind::Meta, &mutate(&meta.checkpoint(), &mut numbers));
    }
}

//! Record batch, encodings, partition machine, placement.

#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use quorate_benches::{PARTITION, batch};
use quorate_model::meta::HashRing;
use quorate_model::{
    Codec, Command, Machine, MachineKind, MetaCommand, NodeId, PartitionCommand, RecordBatch, Retention, TopicName,
};

const RECORDS: usize = 100;
const RECORD_BYTES: usize = 1024;

fn record_batch(c: &mut Criterion) {
    let mut group = c.benchmark_group("record batch, 100 x 1 KiB");
    group.throughput(Throughput::Bytes((RECORDS * RECORD_BYTES) as u64));
    for (name, codec) in [("none", Codec::None), ("lz4", Codec::Lz4), ("zstd", Codec::Zstd)] {
        group.bench_function(format!("build, {name}"), |b| {
            b.iter(|| batch(codec, RECORDS, RECORD_BYTES, 0).unwrap());
        });
        let bytes = batch(codec, RECORDS, RECORD_BYTES, 0).unwrap().bytes().clone();
        group.bench_function(format!("check, {name}"), |b| {
            b.iter(|| RecordBatch::decode(black_box(bytes.clone()), PARTITION).unwrap());
        });
        group.bench_function(format!("read, {name}"), |b| {
            b.iter(|| RecordBatch::decode(black_box(bytes.clone()), PARTITION).unwrap().records().unwrap());
        });
    }
    group.finish();
}

fn partition_machine(c: &mut Criterion) {
    let appends: Vec<_> = (0..1000)
        .map(|i| {
            let batch = batch(Codec::None, 1, 100, i).unwrap().bytes().clone();
            Command::Partition(PartitionCommand::Append { time_ms: 1, batch }).encode()
        })
        .collect();
    let mut group = c.benchmark_group("partition machine");
    group.throughput(Throughput::Elements(appends.len() as u64));
    group.bench_function("1,000 idempotent appends", |b| {
        b.iter_batched(
            || Machine::new(MachineKind::Partition(PARTITION)),
            |mut machine| {
                for (index, append) in (0u64..).zip(&appends) {
                    black_box(machine.apply(index, append));
                }
                machine
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// How commands and checkpoints become bytes, and come back.
fn encodings(c: &mut Criterion) {
    let body = batch(Codec::None, RECORDS, RECORD_BYTES, 0).unwrap().bytes().clone();
    let append = Command::Partition(PartitionCommand::Append { time_ms: 1, batch: body });
    let create = create_topic("codec", 1000);
    let mut group = c.benchmark_group("codec");
    for (name, command) in [("append of 100 x 1 KiB", &append), ("create topic", &create)] {
        let bytes = command.encode();
        group.bench_function(format!("encode, {name}"), |b| b.iter(|| black_box(command).encode()));
        group.bench_function(format!("decode, {name}"), |b| b.iter(|| Command::decode(black_box(&bytes)).unwrap()));
    }
    let machine = cluster_of(3, &[1000]);
    let checkpoint = machine.checkpoint();
    group.bench_function("checkpoint, 1,000 partitions", |b| b.iter(|| machine.checkpoint()));
    group.bench_function("restore, 1,000 partitions", |b| {
        b.iter(|| Machine::restore(MachineKind::Meta, black_box(&checkpoint)).unwrap());
    });
    group.finish();
}

/// The ring, and what a new topic costs in a cluster that has others.
fn placement(c: &mut Criterion) {
    let mut group = c.benchmark_group("placement");
    for nodes in [3, 100] {
        group.bench_function(format!("ring of {nodes} nodes"), |b| {
            b.iter(|| HashRing::new((1..=nodes).map(NodeId::new)));
        });
        let ring = HashRing::new((1..=nodes).map(NodeId::new));
        let mut key = 0_u64;
        group.bench_function(format!("three of {nodes} nodes"), |b| {
            b.iter(|| {
                key = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
                ring.walk(key).take(3).for_each(|node| _ = black_box(node));
            });
        });
        let create = create_topic("new", 1000).encode();
        group.bench_function(format!("topic of 1,000 partitions on {nodes} nodes"), |b| {
            b.iter_batched(
                || cluster_of(nodes, &[100, 300]),
                |mut machine| {
                    black_box(machine.apply(1_000_000, &create));
                    machine
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// A metadata machine with these nodes and with topics of so many partitions.
fn cluster_of(nodes: u64, topics: &[u32]) -> Machine {
    let mut machine = Machine::new(MachineKind::Meta);
    let registered = (1..=nodes).map(|node| {
        Command::Meta(MetaCommand::RegisterNode {
            node: NodeId::new(node),
            client_address: format!("node-{node}:1"),
            peer_address: format!("node-{node}:2"),
            store_id: node,
        })
    });
    let created = topics.iter().map(|partitions| create_topic(&format!("topic-{partitions}"), *partitions));
    for (index, command) in (0..).zip(registered.chain(created)) {
        machine.apply(index, &command.encode());
    }
    machine
}

fn create_topic(name: &str, partitions: u32) -> Command {
    Command::Meta(MetaCommand::CreateTopic {
        time_ms: 1,
        request_id: name.to_owned(),
        name: TopicName::parse(name).unwrap(),
        partitions,
        replication_factor: Some(3),
        retention: Retention::default(),
        max_message_bytes: 1 << 20,
        labels: std::collections::BTreeMap::new(),
    })
}

criterion_group!(benches, record_batch, encodings, partition_machine, placement);
criterion_main!(benches);

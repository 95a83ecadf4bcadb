//! Record batch, partition machine, placement.

#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use quorate_benches::{PARTITION, batch};
use quorate_model::{Codec, Command, Machine, MachineKind, PartitionCommand, RecordBatch};

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

criterion_group!(benches, record_batch, partition_machine);
criterion_main!(benches);

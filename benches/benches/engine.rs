//! The engine below the log: small rows written with and without an fsync, rows read one by one and by range.

#![allow(clippy::unwrap_used, missing_docs)]

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use quorate_storage::{Completion, Direction, RocksOptions, RowOp, ScanLimit, Storage, Table};
use std::hint::black_box;
use std::sync::mpsc;

const ROWS: u64 = 1000;
const ROW_BYTES: usize = 200;

fn engine(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::open_rocks(dir.path(), &RocksOptions::default()).unwrap();
    let key = |row: u64| [b"bench".as_slice(), &row.to_be_bytes()].concat();
    let value = Bytes::from(vec![b'x'; ROW_BYTES]);
    let put = |row: u64| RowOp::Put { table: Table::State, key: key(row), value: value.clone() };
    runtime.block_on(storage.commit((0..ROWS).map(put).collect())).unwrap();

    let mut group = c.benchmark_group("engine");
    group.throughput(Throughput::Elements(100));
    group.bench_function("100 rows, one fsync", |b| {
        b.iter(|| runtime.block_on(storage.commit((0..100).map(put).collect())).unwrap());
    });
    group.bench_function("100 rows, in order, no fsync", |b| {
        b.iter(|| {
            let (done, written) = mpsc::channel();
            let completion = Completion::call(move |result| done.send(result).unwrap());
            storage.write_ordered((0..100).map(put).collect(), completion);
            written.recv().unwrap().unwrap();
        });
    });
    group.bench_function("100 rows by range", |b| {
        let limit = ScanLimit { rows: 100, bytes: u64::MAX };
        b.iter(|| {
            let rows = storage.reader().scan(Table::State, key(300)..key(900), limit, Direction::Forward);
            black_box(runtime.block_on(rows).unwrap())
        });
    });
    group.throughput(Throughput::Elements(1));
    let mut row = 0;
    group.bench_function("one row", |b| {
        b.iter(|| {
            row = (row + 7) % ROWS;
            runtime.block_on(storage.reader().get(Table::State, key(row))).unwrap().unwrap()
        });
    });
    group.finish();
}

criterion_group!(benches, engine);
criterion_main!(benches);

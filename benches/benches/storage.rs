//! Group commit on RocksDB: how many appends of how many groups share one fsync.

#![allow(clippy::unwrap_used, missing_docs)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use quorate_benches::batch;
use quorate_model::{Codec, ReplicaId};
use quorate_storage::{Completion, EntryId, EntryKind, LogEntry, RaftLog, RocksOptions, Storage, TailCacheLimits};

fn group_commit(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let body = batch(Codec::None, 16, 1024, 0).unwrap().bytes().clone();
    let mut group = c.benchmark_group("durable appends of 16 KiB");
    for groups in [1u64, 16, 256] {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open_rocks(dir.path(), &RocksOptions::default()).unwrap();
        let logs: Vec<RaftLog> = (0..groups)
            .map(|replica| {
                let open = RaftLog::open(&storage, ReplicaId::new(replica), TailCacheLimits::default());
                runtime.block_on(open).unwrap()
            })
            .collect();
        let mut index = 0;
        group.throughput(Throughput::Elements(groups));
        group.bench_function(format!("{groups} groups, one append each"), |b| {
            b.iter(|| {
                let (done, durable) = std::sync::mpsc::channel();
                for log in &logs {
                    let done = done.clone();
                    let id = EntryId { term: 1, index };
                    let entry = LogEntry { id, kind: EntryKind::Command, body: body.clone() };
                    log.append(vec![entry], Completion::call(move |result| done.send(result).unwrap()));
                }
                for _ in &logs {
                    durable.recv().unwrap().unwrap();
                }
                index += 1;
            });
        });
    }
    group.finish();
}

criterion_group!(benches, group_commit);
criterion_main!(benches);

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
use std::sync::Mutex;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::executor::block_on;

use super::*;
use crate::engine::Table;

/// What a device or a completion saw, in the order in which it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Event {
    Commit(Vec<u64>, Durability),
    Done(u64, Result<(), StorageError>),
    DeviceDropped,
}
use Event::{Commit, Done};

type Events = Arc<Mutex<Vec<Event>>>;

struct Recorder {
    events: Events,
    fails_at: Option<usize>,
    commits: usize,
}

impl LogDevice for Recorder {
    async fn commit(&mut self, ops: Vec<RowOp>, durability: Durability) -> Result<(), StorageError> {
        let numbers = ops.iter().map(number_of).collect();
        self.events.lock().unwrap().push(Commit(numbers, durability));
        self.commits += 1;
        if self.fails_at == Some(self.commits - 1) { Err(injected()) } else { Ok(()) }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.events.lock().unwrap().push(Event::DeviceDropped);
    }
}

fn injected() -> StorageError {
    StorageError::Io { detail: "injected".to_owned() }
}

fn row(number: u64) -> RowOp {
    RowOp::Put { table: Table::Log, key: number.to_be_bytes().to_vec(), value: Bytes::new() }
}

fn number_of(op: &RowOp) -> u64 {
    let RowOp::Put { key, .. } = op else { unreachable!("only puts here") };
    u64::from_be_bytes(key[..].try_into().unwrap())
}

fn device(fails_at: Option<usize>) -> (Events, Recorder) {
    let events = Events::default();
    (Arc::clone(&events), Recorder { events, fails_at, commits: 0 })
}

fn write(writer: &LogWriter, events: &Events, number: u64, durability: Durability) {
    let events = Arc::clone(events);
    let done = Completion::call(move |result| events.lock().unwrap().push(Done(number, result)));
    writer.write(vec![row(number)], durability, done);
}

fn taken(events: &Events) -> Vec<Event> {
    std::mem::take(&mut events.lock().unwrap())
}

#[test]
fn writes_that_wait_together_share_one_commit_and_complete_in_order() {
    let (events, device) = device(None);
    let (writer, run) = LogWriter::new(device);
    for number in 0..4 {
        write(&writer, &events, number, Durability::Synced);
    }
    assert_eq!(writer.queued_bytes(), 4 * 8);
    drop(writer);
    block_on(run);
    let ok = |number| Done(number, Ok(()));
    let expected = [Commit(vec![0, 1, 2, 3], Durability::Synced), ok(0), ok(1), ok(2), ok(3), Event::DeviceDropped];
    assert_eq!(taken(&events), expected);
}

#[test]
fn only_a_write_that_asks_for_it_causes_a_sync() {
    let (events, device) = device(None);
    let (writer, run) = LogWriter::new(device);
    let mut run = Box::pin(run);
    write(&writer, &events, 0, Durability::Ordered);
    assert!(run.as_mut().now_or_never().is_none());
    assert_eq!(taken(&events), [Commit(vec![0], Durability::Ordered), Done(0, Ok(()))]);

    // One that asks takes along all that wait with it.
    write(&writer, &events, 1, Durability::Ordered);
    write(&writer, &events, 2, Durability::Synced);
    write(&writer, &events, 3, Durability::Ordered);
    assert!(run.as_mut().now_or_never().is_none());
    let ok = |number| Done(number, Ok(()));
    assert_eq!(taken(&events), [Commit(vec![1, 2, 3], Durability::Synced), ok(1), ok(2), ok(3)]);

    let totals = writer.totals();
    assert_eq!(totals, WriterTotals { commits: 2, syncs: 1, ops: 4, bytes: 32 });
    assert_eq!(writer.queued_bytes(), 0);
}

#[test]
fn a_commit_is_bounded_in_operations() {
    for (writes, commits) in [(COMMIT_OPS_MAX, vec![COMMIT_OPS_MAX]), (COMMIT_OPS_MAX + 1, vec![COMMIT_OPS_MAX, 1])] {
        let (events, device) = device(None);
        let (writer, run) = LogWriter::new(device);
        for number in 0..writes as u64 {
            writer.write(vec![row(number)], Durability::Synced, Completion::None);
        }
        drop(writer);
        block_on(run);
        let committed = |event| if let Commit(rows, _) = event { Some(rows.len()) } else { None };
        assert_eq!(taken(&events).into_iter().filter_map(committed).collect::<Vec<_>>(), commits);
    }
}

#[test]
fn a_commit_is_bounded_in_bytes() {
    let (events, device) = device(None);
    let (writer, run) = LogWriter::new(device);
    let half = Bytes::from(vec![0; COMMIT_BYTES_MAX as usize / 2]);
    for number in 0..3_u64 {
        let op = RowOp::Put { table: Table::Log, key: number.to_be_bytes().to_vec(), value: half.clone() };
        writer.write(vec![op], Durability::Synced, Completion::None);
    }
    drop(writer);
    block_on(run);
    let expected = [Commit(vec![0, 1], Durability::Synced), Commit(vec![2], Durability::Synced), Event::DeviceDropped];
    assert_eq!(taken(&events), expected);
}

#[test]
fn after_a_failure_nothing_is_written_and_everything_fails() {
    let (events, device) = device(Some(1));
    let (writer, run) = LogWriter::new(device);
    let mut run = Box::pin(run);
    write(&writer, &events, 0, Durability::Synced);
    assert!(run.as_mut().now_or_never().is_none());
    assert!(writer.failed().now_or_never().is_none());
    taken(&events);

    // The bound of one commit leaves the last write in the queue while the one before it fails.
    let many = (0..COMMIT_OPS_MAX as u64).map(row).collect();
    writer.write(many, Durability::Synced, Completion::None);
    write(&writer, &events, 9, Durability::Synced);
    assert!(run.as_mut().now_or_never().is_some(), "the loop ends");
    let seen = taken(&events);
    assert_eq!(seen.len(), 3, "one commit, one completion, and the device is gone");
    assert_eq!(seen[1..], [Done(9, Err(injected())), Event::DeviceDropped]);

    // Later writes learn the first cause, and so does whoever watches.
    write(&writer, &events, 10, Durability::Synced);
    assert_eq!(taken(&events), [Done(10, Err(injected()))]);
    assert_eq!(writer.failed().now_or_never(), Some(injected()));
    assert_eq!(writer.queued_bytes(), 0);
}

#[test]
fn close_commits_what_is_queued_and_refuses_the_rest() {
    let (events, device) = device(None);
    let (writer, run) = LogWriter::new(device);
    write(&writer, &events, 0, Durability::Ordered);
    block_on(futures::future::join(writer.close(), run));
    assert_eq!(taken(&events), [Commit(vec![0], Durability::Synced), Done(0, Ok(())), Event::DeviceDropped]);

    write(&writer, &events, 1, Durability::Synced);
    assert_eq!(taken(&events), [Done(1, Err(StorageError::Closed))]);
    block_on(writer.close());
}

#[test]
fn a_panic_in_a_completion_is_seen_as_a_failure() {
    let (_, device) = device(None);
    let (writer, run) = LogWriter::new(device);
    writer.write(vec![row(0)], Durability::Synced, Completion::call(|_| panic!("on purpose")));
    let thread = std::thread::spawn(move || block_on(run));
    assert_eq!(block_on(writer.failed()), StorageError::Closed);
    assert!(thread.join().is_err());
}

#[test]
fn every_commit_is_reported() {
    let (events, device) = device(None);
    let (writer, run) = LogWriter::new(device);
    let reports = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&reports);
    assert!(writer.observe(Box::new(move |report| sink.lock().unwrap().push(report))));
    assert!(!writer.observe(Box::new(|_| ())), "the first observer stays");
    write(&writer, &events, 0, Durability::Synced);
    write(&writer, &events, 1, Durability::Synced);
    drop(writer);
    block_on(run);
    let report = reports.lock().unwrap()[0];
    assert_eq!((report.writes, report.ops, report.bytes, report.synced), (2, 2, 16, true));
}

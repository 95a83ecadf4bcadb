use std::ops::Range;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::{io, thread};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use rocksdb::{DB, ReadOptions};
use tokio::sync::oneshot;

use super::Families;
use crate::engine::{Direction, RowReader, ScanLimit, Table};
use crate::error::StorageError;

type Job = Box<dyn FnOnce(&DB) + Send>;

/// A few threads that do nothing but read, so that a slow disk never holds up a heartbeat.
pub(super) struct RocksReader {
    /// None once closed. A caller waits for each read, so the queue is bounded by the callers.
    jobs: Mutex<Option<Sender<Job>>>,
    ended: Mutex<Vec<oneshot::Receiver<()>>>,
}

impl RocksReader {
    pub(super) fn start(db: &Arc<DB>, threads: usize) -> io::Result<RocksReader> {
        let (jobs, queue) = mpsc::channel();
        let queue = Arc::new(Mutex::new(queue));
        let mut ended = Vec::new();
        for number in 0..threads.max(1) {
            let (end, at_end) = oneshot::channel();
            let (queue, db) = (Arc::clone(&queue), Arc::clone(db));
            thread::Builder::new().name(format!("quorate-read-{number}")).spawn(move || {
                while let Some(job) = next_job(&queue) {
                    job(&db);
                }
                drop(db);
                // Nobody waits for the end if the storage was dropped without being closed.
                let _ = end.send(());
            })?;
            ended.push(at_end);
        }
        Ok(RocksReader { jobs: Mutex::new(Some(jobs)), ended: Mutex::new(ended) })
    }

    /// Finishes the reads that were asked for, and ends the threads.
    pub(super) async fn close(&self) {
        drop(self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take());
        let ended = std::mem::take(&mut *self.ended.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in ended {
            let _ = thread.await;
        }
    }

    fn run<T: Send + 'static>(
        &self,
        read: impl FnOnce(&DB) -> Result<T, StorageError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, StorageError>> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |db| {
            // The caller may have given up; its answer is then dropped.
            let _ = answer.send(read(db));
        });
        if let Some(jobs) = &*self.jobs.lock().unwrap_or_else(PoisonError::into_inner) {
            // If no thread is left the job is dropped, and the caller sees `Closed` just as well.
            let _ = jobs.send(job);
        }
        async move { answered.await.unwrap_or(Err(StorageError::Closed)) }.boxed()
    }
}

impl RowReader for RocksReader {
    fn get(&self, table: Table, key: Vec<u8>) -> BoxFuture<'static, Result<Option<Bytes>, StorageError>> {
        self.run(move |db| {
            let value = db.get_cf(Families::of(db)?.get(table), key)?;
            Ok(value.map(Bytes::from))
        })
    }

    fn scan(
        &self,
        table: Table,
        range: Range<Vec<u8>>,
        limit: ScanLimit,
        direction: Direction,
    ) -> BoxFuture<'static, Result<Vec<(Bytes, Bytes)>, StorageError>> {
        self.run(move |db| scan(db, table, range, limit, direction))
    }
}

fn scan(
    db: &DB,
    table: Table,
    range: Range<Vec<u8>>,
    limit: ScanLimit,
    direction: Direction,
) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
    let mut rows = Vec::new();
    if range.start >= range.end {
        return Ok(rows);
    }
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(range.start);
    options.set_iterate_upper_bound(range.end);
    let mut cursor = db.raw_iterator_cf_opt(Families::of(db)?.get(table), options);
    match direction {
        Direction::Forward => cursor.seek_to_first(),
        Direction::Backward => cursor.seek_to_last(),
    }
    let mut bytes = 0;
    while rows.len() < limit.rows.max(1)
        && let Some((key, value)) = cursor.item()
    {
        bytes += value.len() as u64;
        rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        if bytes >= limit.bytes {
            break;
        }
        match direction {
            Direction::Forward => cursor.next(),
            Direction::Backward => cursor.prev(),
        }
    }
    // A cursor that meets damage looks exactly like one at the end, until it is asked.
    cursor.status()?;
    Ok(rows)
}

fn next_job(queue: &Mutex<Receiver<Job>>) -> Option<Job> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

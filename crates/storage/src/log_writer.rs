use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use quorate_model::sabotage::{Bug, is_planted};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::error;

use crate::engine::{Durability, LogDevice, RowOp};
use crate::error::StorageError;

/// Most row operations in one commit: enough to share an fsync among hundreds of groups, few enough
/// that the first completion does not wait for the last append of a burst.
const COMMIT_OPS_MAX: usize = 4096;
/// Most bytes in one commit. A single larger write is still committed whole.
const COMMIT_BYTES_MAX: u64 = 8 << 20;

/// What to do when a write has been committed or has failed. Completions run on the writer, in the
/// order in which the writes were enqueued, so they must be short and must not block.
pub enum Completion {
    /// Nothing.
    None,
    /// Call this.
    Call(Box<dyn FnOnce(Result<(), StorageError>) + Send>),
}

impl Completion {
    /// Wraps a closure.
    pub fn call(done: impl FnOnce(Result<(), StorageError>) + Send + 'static) -> Completion {
        Completion::Call(Box::new(done))
    }

    pub(crate) fn run(self, result: Result<(), StorageError>) {
        if let Completion::Call(done) = self {
            done(result);
        }
    }
}

/// One commit of the writer, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchReport {
    /// Writes that shared this commit.
    pub writes: usize,
    /// Row operations in it.
    pub ops: usize,
    /// Bytes of keys and values in it.
    pub bytes: u64,
    /// Whether it ended with an fsync.
    pub synced: bool,
    /// How long it took.
    pub duration: Duration,
}

/// The writer's side of the queue: enqueues and never waits.
///
/// The queue is unbounded on purpose. Whoever enqueues also elects leaders and answers heartbeats, so
/// it must not wait for a disk; bytes are admitted further up, against [`LogWriter::queued_bytes`].
#[derive(Clone)]
pub(crate) struct LogWriter {
    queue: mpsc::UnboundedSender<Message>,
    shared: Arc<Shared>,
    failure: watch::Receiver<Option<StorageError>>,
}

struct Write {
    ops: Vec<RowOp>,
    bytes: u64,
    durability: Durability,
    done: Completion,
}

enum Message {
    Write(Write),
    /// Commit what is queued, then stop.
    Close,
}

#[derive(Default)]
struct Shared {
    queued_bytes: AtomicU64,
    commits: AtomicU64,
    syncs: AtomicU64,
    ops: AtomicU64,
    bytes: AtomicU64,
    observer: OnceLock<Box<dyn Fn(BatchReport) + Send + Sync>>,
}

/// Sums over the writer's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WriterTotals {
    pub(crate) commits: u64,
    pub(crate) syncs: u64,
    pub(crate) ops: u64,
    pub(crate) bytes: u64,
}

impl LogWriter {
    /// The handle, and the loop to run: on a thread of its own in production, as a task in simulation.
    pub(crate) fn new<D: LogDevice>(device: D) -> (LogWriter, impl Future<Output = ()> + Send + 'static) {
        let (queue, messages) = mpsc::unbounded_channel();
        let (failed, failure) = watch::channel(None);
        let shared = Arc::new(Shared::default());
        let writer = LogWriter { queue, shared: Arc::clone(&shared), failure };
        (writer, writer_loop(FailureSignal { failed }, messages, device, shared))
    }

    /// Enqueues a write. Its completion runs exactly once, also when the writer has failed or is closed.
    pub(crate) fn write(&self, ops: Vec<RowOp>, durability: Durability, done: Completion) {
        let bytes = ops.iter().map(RowOp::len_bytes).sum();
        self.shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let write = Write { ops, bytes, durability, done };
        if let Err(mpsc::error::SendError(Message::Write(write))) = self.queue.send(Message::Write(write)) {
            self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            let cause = self.failure.borrow().clone();
            write.done.run(Err(cause.unwrap_or(StorageError::Closed)));
        }
    }

    /// Commits and syncs what is queued, then stops the loop. The device is gone when this returns.
    pub(crate) async fn close(&self) {
        // If the loop has ended already there is nobody to tell, and nothing left to wait for.
        let _ = self.queue.send(Message::Close);
        let mut failure = self.failure.clone();
        while failure.changed().await.is_ok() {}
    }

    /// Bytes enqueued and not yet committed.
    pub(crate) fn queued_bytes(&self) -> u64 {
        self.shared.queued_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn totals(&self) -> WriterTotals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        WriterTotals {
            commits: read(&self.shared.commits),
            syncs: read(&self.shared.syncs),
            ops: read(&self.shared.ops),
            bytes: read(&self.shared.bytes),
        }
    }

    /// Calls `observer` after every commit. The first observer stays; true if it is this one.
    pub(crate) fn observe(&self, observer: Box<dyn Fn(BatchReport) + Send + Sync>) -> bool {
        self.shared.observer.set(observer).is_ok()
    }

    /// Resolves with the first error, and never if the writer is closed in peace.
    pub(crate) async fn failed(&self) -> StorageError {
        let mut failure = self.failure.clone();
        loop {
            if let Some(error) = failure.borrow_and_update().clone() {
                return error;
            }
            if failure.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

/// Group commit: whatever is queued while one commit runs shares the next one, whichever group it
/// belongs to. So an fsync costs a busy node no more often than the disk can bear, and an idle node
/// never waits for company.
async fn writer_loop<D: LogDevice>(
    // First, so that it is dropped last: whoever sees the signal's end may open the device again.
    signal: FailureSignal,
    mut messages: mpsc::UnboundedReceiver<Message>,
    mut device: D,
    shared: Arc<Shared>,
) {
    while let Some(message) = messages.recv().await {
        let mut batch = Batch::default();
        let mut next = Some(message);
        while let Some(message) = next {
            match message {
                Message::Write(write) => batch.push(write),
                Message::Close => {
                    // No more writes are accepted; those already queued are still committed.
                    messages.close();
                    batch.synced = true;
                }
            }
            next = if batch.is_full() { None } else { messages.try_recv().ok() };
        }
        if let Err(error) = batch.commit(&mut device, &shared).await {
            // Nobody knows what a failed write or sync left on the disk, so nothing is tried again.
            error!(%error, "storage failed; no further write is accepted");
            signal.failed.send_replace(Some(error.clone()));
            messages.close();
            while let Some(message) = messages.recv().await {
                if let Message::Write(write) = message {
                    shared.queued_bytes.fetch_sub(write.bytes, Ordering::Relaxed);
                    write.done.run(Err(error.clone()));
                }
            }
            return;
        }
    }
}

/// Writes that will share one commit.
#[derive(Default)]
struct Batch {
    ops: Vec<RowOp>,
    bytes: u64,
    synced: bool,
    /// Bytes and completion of each write, in the order of the queue.
    writes: Vec<(u64, Completion)>,
}

impl Batch {
    fn push(&mut self, write: Write) {
        self.ops.extend(write.ops);
        self.bytes += write.bytes;
        self.synced |= write.durability == Durability::Synced;
        self.writes.push((write.bytes, write.done));
    }

    fn is_full(&self) -> bool {
        self.ops.len() >= COMMIT_OPS_MAX || self.bytes >= COMMIT_BYTES_MAX
    }

    async fn commit<D: LogDevice>(self, device: &mut D, shared: &Shared) -> Result<(), StorageError> {
        let mut report = BatchReport {
            writes: self.writes.len(),
            ops: self.ops.len(),
            bytes: self.bytes,
            synced: self.synced,
            duration: Duration::ZERO,
        };
        let durability = if self.synced { Durability::Synced } else { Durability::Ordered };
        let durability = if is_planted(Bug::AckBeforeFsync) { Durability::Ordered } else { durability };
        let started = Instant::now();
        // A write without rows still waits for the writes before it, but alone it needs no disk:
        // whatever was enqueued before it has already been committed.
        let nothing_to_do = self.ops.is_empty() && !self.synced;
        let result = if nothing_to_do { Ok(()) } else { device.commit(self.ops, durability).await };
        let result = if is_planted(Bug::FsyncErrorIgnored) { Ok(()) } else { result };
        report.duration = started.elapsed();

        for (bytes, done) in self.writes {
            shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            done.run(result.clone());
        }
        if result.is_ok() {
            shared.record(report);
        }
        result
    }
}

impl Shared {
    fn record(&self, report: BatchReport) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.syncs.fetch_add(u64::from(report.synced), Ordering::Relaxed);
        self.ops.fetch_add(report.ops as u64, Ordering::Relaxed);
        self.bytes.fetch_add(report.bytes, Ordering::Relaxed);
        if let Some(observer) = self.observer.get() {
            observer(report);
        }
    }
}

/// Tells the rest of the process that the writer is gone, even if it went by a panic in a completion.
struct FailureSignal {
    failed: watch::Sender<Option<StorageError>>,
}

impl Drop for FailureSignal {
    fn drop(&mut self) {
        // A runtime that shuts down drops the loop without a panic: that is an end, not a failure.
        if std::thread::panicking() {
            self.failed.send_replace(Some(StorageError::Closed));
        }
    }
}

#[cfg(test)]
#[path = "log_writer_tests.rs"]
mod tests;

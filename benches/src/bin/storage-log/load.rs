use std::collections::VecDeque;
use std::sync::mpsc;
use std::time::Instant;

use bytes::Bytes;
use quorate_model::ReplicaId;
use quorate_storage::{Completion, EntryId, EntryKind, LogEntry, RaftLog, Storage, StorageError, TailCacheLimits};

use crate::Arguments;

/// What goes at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Trim {
    Nothing,
    /// The older half of every log: partitions that age alike.
    Uniform,
    /// Nine tenths of every second log, nothing of the others: partitions that don't.
    Mixed,
    /// Every fourth replica, whole: deleted topics among others.
    Delete,
    /// One replica, whole.
    DeleteOne,
}

/// The logs of all replicas, and what has been written to them.
pub(crate) struct Load {
    logs: Vec<Log>,
    bodies: Bytes,
    commits_ms: Vec<f64>,
    pub(crate) written_bytes: u64,
    pub(crate) kept_bytes: u64,
}

struct Log {
    log: RaftLog,
    first: u64,
    next: u64,
}

/// Random bytes from which entries are cut at different places.
const BODIES_BYTES: usize = 16 << 20;
const TERM: u64 = 1;

impl Load {
    pub(crate) async fn open(storage: &Storage, arguments: &Arguments) -> Result<Load, StorageError> {
        let mut logs = Vec::new();
        for replica in 0..arguments.replicas {
            let cache = TailCacheLimits { bytes: 64 << 10 };
            let log = RaftLog::open(storage, ReplicaId::new(65_536 + replica), cache).await?;
            logs.push(Log { log, first: 0, next: 0 });
        }
        let mut bodies = vec![0; BODIES_BYTES + arguments.entry_bytes];
        fastrand::Rng::with_seed(7).fill(&mut bodies);
        Ok(Load { logs, bodies: bodies.into(), commits_ms: Vec::new(), written_bytes: 0, kept_bytes: 0 })
    }

    /// Appends to one replica after the other, as long as no more than the allowed bytes wait.
    pub(crate) fn run(&mut self, arguments: &Arguments) {
        let (done, durable) = mpsc::channel();
        let mut waiting: VecDeque<Instant> = VecDeque::new();
        let entry_bytes = arguments.entry_bytes as u64;
        let in_flight_max = (arguments.in_flight_bytes / arguments.entry_bytes).max(1);
        let total = (arguments.total_mib << 20) / entry_bytes;
        let mut rng = fastrand::Rng::with_seed(8);
        for number in 0..usize::try_from(total).expect("a run fits into memory") {
            while waiting.len() >= in_flight_max {
                self.acknowledged(&durable, &mut waiting);
            }
            let at = rng.usize(0..BODIES_BYTES);
            let body = self.bodies.slice(at..at + arguments.entry_bytes);
            let replica = number % self.logs.len();
            let log = &mut self.logs[replica];
            let entry = LogEntry { id: id(log.next), kind: EntryKind::Command, body };
            log.next += 1;
            let done = done.clone();
            waiting.push_back(Instant::now());
            log.log.append(
                vec![entry],
                Completion::call(move |result| {
                    result.expect("the disk of a benchmark works");
                    // The load has ended early only by a panic.
                    let _ = done.send(());
                }),
            );
            let keeps_all = arguments.keep_every > 0 && replica.is_multiple_of(arguments.keep_every);
            let keep = (arguments.retain_mib << 20) / entry_bytes;
            // A sixteenth at a time, as retention by segments would.
            if keep > 0 && !keeps_all && log.next - log.first > keep + keep / 16 {
                log.purge_to(log.next - keep);
            }
        }
        while !waiting.is_empty() {
            self.acknowledged(&durable, &mut waiting);
        }
        self.written_bytes = total * entry_bytes;
        self.kept_bytes = self.count_kept(entry_bytes);
    }

    fn acknowledged(&mut self, durable: &mpsc::Receiver<()>, waiting: &mut VecDeque<Instant>) {
        durable.recv().expect("every append completes");
        let since = waiting.pop_front().expect("completions are first in, first out");
        self.commits_ms.push(since.elapsed().as_secs_f64() * 1e3);
    }

    /// Takes away what `arguments.after` says; the answer is how many bytes of payload.
    pub(crate) async fn trim(&mut self, storage: &Storage, arguments: &Arguments) -> Result<u64, StorageError> {
        let entry_bytes = arguments.entry_bytes as u64;
        let before = self.count_kept(entry_bytes);
        for (number, log) in self.logs.iter_mut().enumerate() {
            let kept = log.next - log.first;
            match arguments.after {
                Trim::Uniform => log.purge_to(log.first + kept / 2),
                Trim::Mixed if number % 2 == 0 => log.purge_to(log.first + kept * 9 / 10),
                Trim::Delete if number % 4 == 0 => log.destroy(storage).await?,
                Trim::DeleteOne if number == 1 => log.destroy(storage).await?,
                _ => {}
            }
        }
        // Everything above is in the database once this is.
        storage.commit(Vec::new()).await?;
        self.kept_bytes = self.count_kept(entry_bytes);
        Ok(before - self.kept_bytes)
    }

    fn count_kept(&self, entry_bytes: u64) -> u64 {
        self.logs.iter().map(|log| (log.next - log.first) * entry_bytes).sum()
    }

    /// The time from append to acknowledgement that `percent` of all appends stayed below.
    pub(crate) fn commit_ms(&mut self, percent: usize) -> f64 {
        self.commits_ms.sort_unstable_by(f64::total_cmp);
        let last = self.commits_ms.len().saturating_sub(1);
        self.commits_ms.get(last * percent / 100).copied().unwrap_or_default()
    }
}

impl Log {
    fn purge_to(&mut self, first: u64) {
        if first > self.first {
            self.first = first;
            self.log.purge(id(first - 1));
        }
    }

    async fn destroy(&mut self, storage: &Storage) -> Result<(), StorageError> {
        self.first = self.next;
        storage.destroy_replica(self.log.replica()).await
    }
}

fn id(index: u64) -> EntryId {
    EntryId { term: TERM, index }
}

//! The publishers: each sends when a message is due and there is room in flight, and tells the tally how it ended.

use super::options::Load;
use super::schedule::{Clock, Due, Schedule};
use super::tally::{Sent, SharedTally};
use crate::connect::Connect;
use crate::failure::Failure;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use quorate_client::{Message, PublishError, Published, Publisher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Payloads are pieces of one random text, so that making them costs nothing.
const TEXT_MARGIN: usize = 1 << 16;

/// Publishers of a run, running.
pub(super) struct Running {
    publishers: JoinSet<Result<Ended, Failure>>,
    /// When measuring begins.
    pub(super) measured_from: Instant,
    clock: Option<Clock>,
}

/// How the publishers ended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ended {
    /// Messages that were due but never sent, because what was in flight took too long.
    pub(super) unsent: u64,
    /// Batches that the SDK sent again.
    pub(super) repeated_batches: u64,
}

/// What all publishers of a run share.
struct Shared {
    load: Load,
    stop: Arc<AtomicBool>,
    tally: SharedTally,
    schedule: Option<Schedule>,
    /// Measured messages that may still be sent without a schedule.
    allowance: AtomicU64,
    start: Instant,
    /// When sending ends without a schedule.
    end: Option<Instant>,
    text: Bytes,
    /// Puts something into the payload; from when the message was due.
    stamp: Option<Stamp>,
}

/// Makes a payload out of when the message was due and of the text that it would have been.
pub(super) type Stamp = fn(Instant, &Bytes) -> Bytes;

/// Starts the publishers. They end by themselves, or soon after `stop` is set.
pub(super) async fn start(
    connect: &Connect,
    topic: &str,
    load: &Load,
    tally: &SharedTally,
    stop: &Arc<AtomicBool>,
    stamp: Option<Stamp>,
) -> Result<Running, Failure> {
    // Connected before the clock starts: connecting is not what is measured.
    let mut publishers = Vec::new();
    for _ in 0..load.publishers {
        publishers.push(load.publisher(&connect.client()?, topic).await?);
    }
    let start = Instant::now();
    let schedule = Schedule::of(load);
    let (clock, dues) = match schedule {
        Some(schedule) => {
            let (clock, dues) = Clock::start(schedule, start, stop);
            (Some(clock), dues.into_iter().map(Some).collect())
        }
        None => (None, vec![None; publishers.len()]),
    };
    let shared = Arc::new(Shared {
        load: load.clone(),
        stop: Arc::clone(stop),
        tally: tally.clone(),
        schedule,
        allowance: AtomicU64::new(load.messages.unwrap_or(u64::MAX)),
        start,
        end: load.measured_for().map(|measured| start + load.warm_up + measured),
        text: random_text(load.size_max() as usize + TEXT_MARGIN),
        stamp,
    });
    let mut running = JoinSet::new();
    for ((index, publisher), due) in (0..).zip(publishers).zip(dues) {
        running.spawn(Lane { index, number: 0, publisher, due, shared: Arc::clone(&shared) }.run());
    }
    Ok(Running { publishers: running, measured_from: start + load.warm_up, clock })
}

impl Running {
    /// Waits until every message has its outcome.
    pub(super) async fn end(mut self) -> Result<Ended, Failure> {
        let mut total = Ended::default();
        while let Some(ended) = self.publishers.join_next().await {
            let ended = ended.map_err(|error| Failure::new(error.to_string()))??;
            total.unsent += ended.unsent;
            total.repeated_batches += ended.repeated_batches;
        }
        drop(self.clock);
        Ok(total)
    }
}

/// One publisher of the run.
struct Lane {
    index: u64,
    number: u64,
    publisher: Publisher,
    due: Option<watch::Receiver<Due>>,
    shared: Arc<Shared>,
}

type Outcome = (Sent, Instant, Result<Published, PublishError>);

impl Lane {
    async fn run(mut self) -> Result<Ended, Failure> {
        let mut under_way: FuturesUnordered<BoxFuture<'static, Outcome>> = FuturesUnordered::new();
        let room = self.shared.load.in_flight as usize;
        let mut open = true;
        while open || !under_way.is_empty() {
            tokio::select! {
                biased;
                Some((sent, now, outcome)) = under_way.next(), if !under_way.is_empty() => {
                    self.shared.tally.lock().outcome(sent, now, &outcome);
                }
                sent = self.turn(), if open && under_way.len() < room => match sent {
                    Some(sent) => {
                        let outcome = self.send(sent).await;
                        under_way.push(outcome);
                    }
                    None => open = false,
                },
            }
        }
        let unsent = self.unsent();
        let totals = self.publisher.close().await;
        Ok(Ended { unsent, repeated_batches: totals.repeated_batches })
    }

    /// Waits for the next message to be due; `None` after the last one. Loses nothing when cancelled.
    async fn turn(&mut self) -> Option<Sent> {
        let shared = Arc::clone(&self.shared);
        let bytes = u64::from(self.size());
        let (Some(due), Some(schedule)) = (&mut self.due, shared.schedule) else {
            return shared.unscheduled(bytes);
        };
        loop {
            let now = *due.borrow_and_update();
            if self.number < now.messages && !shared.gives_up(schedule.due_at(self.index, self.number)) {
                break;
            }
            if now.last {
                return None;
            }
            due.changed().await.ok()?;
        }
        let due_after = schedule.due_at(self.index, self.number);
        Some(Sent { since: shared.start + due_after, bytes, measured: due_after >= shared.load.warm_up })
    }

    /// Hands the message over; what comes back resolves to its outcome.
    async fn send(&mut self, sent: Sent) -> BoxFuture<'static, Outcome> {
        let handed_over = self.publisher.send(self.message(sent)).await;
        self.number += 1;
        async move {
            let outcome = match handed_over {
                Ok(receipt) => receipt.await,
                Err(error) => Err(error),
            };
            (sent, Instant::now(), outcome)
        }
        .boxed()
    }

    fn message(&self, sent: Sent) -> Message {
        let shared = &self.shared;
        let length = usize::try_from(sent.bytes).unwrap_or(usize::MAX);
        let offset = fastrand::usize(..TEXT_MARGIN);
        let text = shared.text.slice(offset..offset + length);
        let message = Message::new(shared.stamp.map_or_else(|| text.clone(), |stamp| stamp(sent.since, &text)));
        match shared.load.keys {
            Some(keys) => message.ordering_key(format!("key-{}", self.turn_number() % keys)),
            None => message,
        }
    }

    /// Position among the messages of all publishers.
    fn turn_number(&self) -> u64 {
        self.number * u64::from(self.shared.load.publishers) + self.index
    }

    fn size(&self) -> u32 {
        let sizes = &self.shared.load.size;
        let turn = self.turn_number() % sizes.len() as u64;
        sizes[usize::try_from(turn).unwrap_or(0)]
    }

    fn unsent(&self) -> u64 {
        self.due.as_ref().map_or(0, |due| due.borrow().messages.saturating_sub(self.number))
    }
}

impl Shared {
    /// Without a schedule a message is due when there is room for it.
    fn unscheduled(&self, bytes: u64) -> Option<Sent> {
        let now = Instant::now();
        if self.end.is_some_and(|end| now >= end) || self.stop.load(Ordering::Relaxed) {
            return None;
        }
        let measured = now >= self.start + self.load.warm_up;
        if measured {
            let one_less = |left: u64| left.checked_sub(1);
            self.allowance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).ok()?;
        }
        Some(Sent { since: now, bytes, measured })
    }

    /// Whether a message that was due so long ago isn't worth sending any more: the run is over.
    fn gives_up(&self, due_after: Duration) -> bool {
        let stopped = self.stop.load(Ordering::Relaxed);
        let late = self.end.is_some_and(|end| Instant::now() >= end + OVERTIME);
        (stopped || late) && self.start.elapsed() > due_after
    }
}

/// A cluster that fell behind may catch up for so long after the end; what is left then was never sent.
const OVERTIME: Duration = Duration::from_secs(5);

/// Random hexadecimal digits.
fn random_text(bytes: usize) -> Bytes {
    (0..bytes).map(|_| b"0123456789abcdef"[fastrand::usize(..16)]).collect()
}

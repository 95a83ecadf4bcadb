//! A publisher at a steady pace on every partition, and when each message was acknowledged.

use crate::failure::Failure;
use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use quorate_client::{Client, Message, PublishError, Publisher};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::sleep_until;

/// Payload of each message.
const MESSAGE_BYTES: usize = 256;

/// An acknowledgement.
#[derive(Clone, Copy, Debug)]
struct Beat {
    due: Instant,
    at: Instant,
}

/// What a partition did since a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Longest time between two acknowledgements in a row, the later one after the moment.
    pub(super) gap: Duration,
    /// From the moment to the first acknowledgement of a message that was due after it.
    pub(super) recovered: Duration,
}

/// The publishers, running until [`Pulse::stop`].
pub(super) struct Pulse {
    shared: Arc<Shared>,
    publishers: JoinSet<()>,
}

struct Shared {
    /// By partition, in the order of their arrival.
    beats: Vec<Mutex<Vec<Beat>>>,
    /// Messages without acknowledgement, by how they ended.
    errors: Mutex<BTreeMap<String, u64>>,
    stop: AtomicBool,
}

impl Pulse {
    /// Starts the publishers, staggered over one interval.
    pub(super) async fn start(client: &Client, topic: &str, partitions: u32, rate: u32) -> Result<Pulse, Failure> {
        let publisher = client.publisher(topic).batch_records(1).linger(Duration::ZERO).build().await?;
        let shared = Arc::new(Shared {
            beats: (0..partitions).map(|_| Mutex::default()).collect(),
            errors: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let interval = Duration::from_secs(1) / rate;
        let start = Instant::now();
        let mut publishers = JoinSet::new();
        for partition in 0..partitions {
            let first = start + interval * partition / partitions;
            publishers.spawn(beat(publisher.clone(), partition, first, interval, Arc::clone(&shared)));
        }
        Ok(Pulse { shared, publishers })
    }

    /// Forgets what was acknowledged so far.
    pub(super) fn forget(&self) {
        self.shared.beats.iter().for_each(|beats| lock(beats).clear());
    }

    /// Partitions that have acknowledged no message that was due after this moment.
    pub(super) fn silent_since(&self, moment: Instant) -> Vec<usize> {
        let is_silent = |beats: &Mutex<Vec<Beat>>| !lock(beats).iter().any(|beat| beat.due >= moment);
        let silent = self.shared.beats.iter().enumerate().filter(|(_, beats)| is_silent(beats));
        silent.map(|(partition, _)| partition).collect()
    }

    /// By partition.
    pub(super) fn seen_since(&self, moment: Instant) -> Vec<Seen> {
        self.shared.beats.iter().map(|beats| seen(&lock(beats), moment)).collect()
    }

    /// Stops the publishers; how many messages ended without acknowledgement, by reason, if any did.
    pub(super) async fn stop(mut self) -> Option<String> {
        self.shared.stop.store(true, Ordering::Relaxed);
        while self.publishers.join_next().await.is_some() {}
        let errors = lock(&self.shared.errors);
        let rows: Vec<String> = errors.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        (!rows.is_empty()).then(|| rows.join(", "))
    }
}

async fn beat(publisher: Publisher, partition: u32, first: Instant, interval: Duration, shared: Arc<Shared>) {
    let payload = Bytes::from(vec![b'x'; MESSAGE_BYTES]);
    let mut under_way = FuturesUnordered::new();
    let mut due = first;
    let is_open = || !shared.stop.load(Ordering::Relaxed);
    while is_open() || !under_way.is_empty() {
        tokio::select! {
            Some((due, outcome)) = under_way.next(), if !under_way.is_empty() => match outcome {
                Ok(_) => lock(&shared.beats[partition as usize]).push(Beat { due, at: Instant::now() }),
                Err(error) => shared.failed(&error),
            },
            () = sleep_until(due.into()), if is_open() => {
                let message = Message::new(payload.clone()).partition(partition);
                let publisher = publisher.clone();
                under_way.push(async move { (due, publisher.publish(message).await) });
                due += interval;
            }
        }
    }
}

impl Shared {
    fn failed(&self, error: &PublishError) {
        let certainty = if error.is_unknown() { "unknown" } else { "failed" };
        *lock(&self.errors).entry(format!("{certainty} {}", error.reason())).or_default() += 1;
    }
}

fn seen(beats: &[Beat], moment: Instant) -> Seen {
    let mut times: Vec<Instant> = beats.iter().map(|beat| beat.at).collect();
    times.sort_unstable();
    let gaps = times.windows(2).filter(|pair| pair[1] >= moment).map(|pair| pair[1] - pair[0]);
    let after = beats.iter().filter(|beat| beat.due >= moment).map(|beat| beat.at).min();
    Seen { gap: gaps.max().unwrap_or_default(), recovered: after.map_or(Duration::MAX, |at| at - moment) }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gap_spans_the_moment_and_recovery_needs_a_message_due_after_it() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let beat = |due, acknowledged| Beat { due: at(due), at: at(acknowledged) };
        // A gap of 400 ms before the moment doesn't count; then 50 → 350 around it, and an answer at 220 to
        // a message that was due before it would be no recovery.
        let beats =
            [beat(500, 501), beat(900, 901), beat(950, 951), beat(990, 1160), beat(1050, 1300), beat(1100, 1301)];
        let seen = seen(&beats, at(1000));
        assert_eq!(seen, Seen { gap: Duration::from_millis(209), recovered: Duration::from_millis(300) });
    }

    #[test]
    fn without_an_answer_there_is_no_recovery() {
        let start = Instant::now();
        assert_eq!(seen(&[], start).recovered, Duration::MAX);
    }
}

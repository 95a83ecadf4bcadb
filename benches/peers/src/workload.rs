//! The load, the same for every broker: lanes that publish to one log each, so many messages in flight.

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use hdrhistogram::Histogram;
use quorate_benches::failure::Failure;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// The longest latency told apart, in µs: a minute.
const LATENCY_MAX_US: u64 = 60_000_000;

/// Publishes to one log; resolves when the broker has acknowledged the message, or why it has not.
pub(crate) type Publish = Arc<dyn Fn(Bytes) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// What is done to a broker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    pub(crate) title: &'static str,
    /// Partitions, streams or queues, three replicas each; every one has a lane of its own.
    pub(crate) logs: usize,
    /// Connections, shared evenly by the lanes.
    pub(crate) connections: usize,
    /// Per lane.
    pub(crate) in_flight: usize,
    pub(crate) message_bytes: usize,
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
}

/// What was measured in one round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    pub(crate) per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) errors: BTreeMap<String, u64>,
}

struct Lane {
    latency: Histogram<u64>,
    errors: BTreeMap<String, u64>,
}

impl Workload {
    /// Runs the load on the lanes, all at once.
    pub(crate) async fn run(self, lanes: Vec<Publish>) -> Result<Measured, Failure> {
        let payload = Bytes::from(vec![b'x'; self.message_bytes]);
        let begin = Instant::now();
        let (from, until) = (begin + self.warm_up, begin + self.warm_up + self.duration);
        let mut running = JoinSet::new();
        for publish in lanes {
            running.spawn(lane(publish, payload.clone(), self.in_flight, from, until));
        }
        let (mut latency, mut errors) = (histogram()?, BTreeMap::new());
        while let Some(ended) = running.join_next().await {
            let ended = ended.map_err(|error| Failure::new(error.to_string()))??;
            latency.add(&ended.latency).map_err(|error| Failure::new(error.to_string()))?;
            for (reason, count) in ended.errors {
                *errors.entry(reason).or_default() += count;
            }
        }
        let ms = |quantile| Duration::from_micros(latency.value_at_quantile(quantile)).as_secs_f64() * 1000.0;
        // Counted are acknowledgements that came within the time, whenever their message was sent.
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let per_second = latency.len() as f64 / self.duration.as_secs_f64();
        Ok(Measured { per_second, p50_ms: ms(0.5), p99_ms: ms(0.99), errors })
    }
}

async fn lane(
    publish: Publish,
    payload: Bytes,
    in_flight: usize,
    from: Instant,
    until: Instant,
) -> Result<Lane, Failure> {
    let mut lane = Lane { latency: histogram()?, errors: BTreeMap::new() };
    let mut under_way = FuturesUnordered::new();
    let send = || {
        let (sent, outcome) = (Instant::now(), publish(payload.clone()));
        async move { (sent, outcome.await) }
    };
    (0..in_flight).for_each(|_| under_way.push(send()));
    while let Some((sent, outcome)) = under_way.next().await {
        let now = Instant::now();
        match outcome {
            Ok(()) if (from..until).contains(&now) => {
                let micros = u64::try_from((now - sent).as_micros()).unwrap_or(u64::MAX);
                lane.latency.saturating_record(micros);
            }
            Ok(()) => {}
            Err(reason) => *lane.errors.entry(reason).or_default() += 1,
        }
        if now < until {
            under_way.push(send());
        }
    }
    Ok(lane)
}

fn histogram() -> Result<Histogram<u64>, Failure> {
    Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).map_err(|error| Failure::new(error.to_string()))
}

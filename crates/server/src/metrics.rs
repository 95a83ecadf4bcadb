//! What the node counts and measures. Names and labels are part of the operator's interface.

mod call;
pub(crate) mod listener;
pub(crate) mod subscriptions;

use std::sync::Arc;
use std::time::Duration;

use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder, exponential_buckets,
};
use quorate_consensus::{Admission, RaftGroups};
use quorate_storage::{BatchReport, Storage};

/// One per node; cheap to share behind an `Arc`.
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    open_streams: IntGaugeVec,
    refused: IntCounterVec,
    append_seconds: Histogram,
    appended_bytes: IntCounter,
    in_flight_bytes: IntGauge,
    in_flight_batches: IntGauge,
    raft_replicas: IntGaugeVec,
    raft_term_sum: IntGauge,
    raft_term_max: IntGauge,
    raft_follower_lag: IntGauge,
    raft_apply_lag: IntGauge,
    wal_sync_seconds: Histogram,
    wal_batch_writes: Histogram,
    wal_batch_bytes: Histogram,
    wal_queued_bytes: IntGauge,
    tail_cache_bytes: IntGauge,
    rocksdb: IntGaugeVec,
    filtered: IntCounterVec,
}

/// Roles that a replica can have, so that a role which nobody has shows as 0.
const ROLES: [&str; 5] = ["leader", "follower", "candidate", "learner", "shutdown"];

/// What becomes of messages that a filter doesn't want.
const FILTERED: [&str; 2] = ["skipped", "failed"];

/// Counters of one subscription.
pub(crate) struct Filtered {
    pub(crate) skipped: IntCounter,
    pub(crate) failed: IntCounter,
}

impl Metrics {
    /// # Errors
    /// If two metrics have the same name, which a test would show.
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let make = Maker { registry: &registry };
        Ok(Self {
            requests: make.counters("requests_total", "Requests ended, by call and gRPC code.", &["rpc", "code"])?,
            request_seconds: make.histograms("request_seconds", "Time to answer a unary request.", &["rpc"])?,
            open_streams: make.gauges("open_streams", "Streams open now.", &["rpc"])?,
            refused: make.counters("refused_total", "Connections and requests refused, by the bound.", &["limit"])?,
            append_seconds: make.histogram(
                "append_seconds",
                "Time from the arrival of a batch to its answer: replication and fsync on a quorum included.",
                seconds()?,
            )?,
            appended_bytes: make.counter("appended_bytes_total", "Bytes of batches acknowledged to publishers.")?,
            in_flight_bytes: make.gauge("in_flight_bytes", "Bytes of batches that wait for a quorum.")?,
            in_flight_batches: make.gauge("in_flight_batches", "Batches that wait for a quorum.")?,
            raft_replicas: make.gauges("raft_replicas", "Replicas on this node, by role.", &["role"])?,
            raft_term_sum: make.gauge("raft_term_sum", "Sum of the terms of all replicas: grows with elections.")?,
            raft_term_max: make.gauge("raft_term_max", "Highest term of any replica.")?,
            raft_follower_lag: make
                .gauge("raft_follower_lag_entries", "Entries that followers of groups led here still lack, in sum.")?,
            raft_apply_lag: make.gauge("raft_apply_lag_entries", "Entries committed but not applied here, in sum.")?,
            wal_sync_seconds: make.histogram("wal_sync_seconds", "Time of a commit with fsync.", seconds()?)?,
            wal_batch_writes: make.histogram(
                "wal_batch_writes",
                "Writes of all groups that shared a commit.",
                exponential_buckets(1.0, 2.0, 12)?,
            )?,
            wal_batch_bytes: make.histogram(
                "wal_batch_bytes",
                "Bytes in a commit.",
                exponential_buckets(256.0, 4.0, 10)?,
            )?,
            wal_queued_bytes: make.gauge("wal_queued_bytes", "Bytes that wait for a commit.")?,
            tail_cache_bytes: make.gauge("tail_cache_bytes", "Bytes of the newest log entries kept in memory.")?,
            filtered: make.counters(
                "filtered_messages_total",
                "Messages that a subscription's filter didn't want (skipped), or failed for (failed).",
                &["subscription", "outcome"],
            )?,
            rocksdb: make.gauges("rocksdb", "Properties of the database, by RocksDB's names.", &["property"])?,
            registry,
        })
    }

    /// Measures the commits of a storage from now on.
    pub(crate) fn observe_storage(self: &Arc<Self>, storage: &Storage) {
        let metrics = Arc::clone(self);
        storage.on_commit(move |report| metrics.committed(&report));
    }

    /// Measures this process: memory, processor time, open files.
    pub(crate) fn observe_process(&self) {
        // Fails if it is registered already, which is just as well.
        let _ = self.registry.register(Box::new(ProcessCollector::for_self()));
    }

    /// A batch was acknowledged.
    pub(crate) fn appended(&self, bytes: usize, took: Duration) {
        self.append_seconds.observe(took.as_secs_f64());
        self.appended_bytes.inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// A bound was hit.
    pub(crate) fn refused(&self, setting: &str) {
        self.refused.with_label_values(&[setting]).inc();
    }

    /// Counts the messages that a subscription's filter doesn't want.
    pub(crate) fn filtered(&self, subscription: &str) -> Filtered {
        let [skipped, failed] = FILTERED.map(|outcome| self.filtered.with_label_values(&[subscription, outcome]));
        Filtered { skipped, failed }
    }

    /// A subscription was deleted.
    pub(crate) fn forget_subscription(&self, subscription: &str) {
        for outcome in FILTERED {
            // Fails if it was never counted, which is just as well.
            let _ = self.filtered.remove_label_values(&[subscription, outcome]);
        }
    }

    /// Everything, in the text format of Prometheus.
    pub(crate) fn render(&self, groups: &RaftGroups, storage: &Storage, admission: &Admission) -> String {
        self.look_at_groups(groups);
        self.look_at_storage(storage);
        let (bytes, batches) = admission.in_flight();
        self.in_flight_bytes.set(gauge_value(bytes));
        self.in_flight_batches.set(gauge_value(batches));
        let mut text = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            Ok(()) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) => format!("# metrics can't be encoded: {error}\n"),
        }
    }

    fn committed(&self, report: &BatchReport) {
        if report.synced {
            self.wal_sync_seconds.observe(report.duration.as_secs_f64());
        }
        self.wal_batch_writes.observe(f64::from(u32::try_from(report.writes).unwrap_or(u32::MAX)));
        self.wal_batch_bytes.observe(f64::from(u32::try_from(report.bytes).unwrap_or(u32::MAX)));
    }

    fn look_at_groups(&self, groups: &RaftGroups) {
        let statuses: Vec<_> = groups.list().iter().map(quorate_consensus::RaftGroup::status).collect();
        for role in ROLES {
            let count = statuses.iter().filter(|status| status.role == role).count();
            self.raft_replicas.with_label_values(&[role]).set(gauge_value(count));
        }
        let total = |values: &mut dyn Iterator<Item = u64>| gauge_value(values.fold(0, u64::saturating_add));
        self.raft_term_sum.set(total(&mut statuses.iter().map(|status| status.term)));
        self.raft_term_max.set(gauge_value(statuses.iter().map(|status| status.term).max().unwrap_or(0)));
        self.raft_follower_lag.set(total(&mut statuses.iter().flat_map(|status| status.lag.values().copied())));
        let behind =
            |status: &quorate_consensus::GroupStatus| status.committed_index.saturating_sub(status.applied_index);
        self.raft_apply_lag.set(total(&mut statuses.iter().map(behind)));
    }

    fn look_at_storage(&self, storage: &Storage) {
        let now = storage.metrics();
        self.wal_queued_bytes.set(gauge_value(now.queued_bytes));
        self.tail_cache_bytes.set(gauge_value(now.tail_cache_bytes));
        for (property, value) in now.engine {
            self.rocksdb.with_label_values(&[property]).set(gauge_value(value));
        }
    }
}

/// Registers what it makes, under the node's prefix.
struct Maker<'a> {
    registry: &'a Registry,
}

impl Maker<'_> {
    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        let metric = IntCounter::with_opts(opts(name, help))?;
        self.register(&metric)?;
        Ok(metric)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        let metric = IntCounterVec::new(opts(name, help), labels)?;
        self.register(&metric)?;
        Ok(metric)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        let metric = IntGauge::with_opts(opts(name, help))?;
        self.register(&metric)?;
        Ok(metric)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
        let metric = IntGaugeVec::new(opts(name, help), labels)?;
        self.register(&metric)?;
        Ok(metric)
    }

    fn histogram(&self, name: &str, help: &str, buckets: Vec<f64>) -> Result<Histogram, prometheus::Error> {
        let metric = Histogram::with_opts(HistogramOpts::from(opts(name, help)).buckets(buckets))?;
        self.register(&metric)?;
        Ok(metric)
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec, prometheus::Error> {
        let metric = HistogramVec::new(HistogramOpts::from(opts(name, help)).buckets(seconds()?), labels)?;
        self.register(&metric)?;
        Ok(metric)
    }

    fn register<M: prometheus::core::Collector + Clone + 'static>(&self, metric: &M) -> Result<(), prometheus::Error> {
        self.registry.register(Box::new(metric.clone()))
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("quorate_{name}"), help)
}

/// From 50 µs, a fast fsync, to 100 s, a hopeless one.
fn seconds() -> Result<Vec<f64>, prometheus::Error> {
    exponential_buckets(0.000_05, 2.0, 22)
}

fn gauge_value(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

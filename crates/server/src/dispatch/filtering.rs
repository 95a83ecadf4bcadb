//! A subscription's filter at work in one partition.

use std::sync::Arc;

use quorate_model::{Offset, Record, SubscriptionInfo};
use tokio::task::consume_budget;
use tokio::time::Instant;
use tracing::{error, warn};

use crate::filter::{Filter, FilterError, FilterFailure, Message};
use crate::front::Partition;
use crate::limits::{DISPATCH_FILTERED, FILTER_LOG_PAUSE};
use crate::metrics::{Filtered, Metrics};

/// See the module.
pub(super) struct Filtering {
    subscription: String,
    partition: Partition,
    metrics: Arc<Metrics>,
    text: String,
    rule: Rule,
    failures: Failures,
}

enum Rule {
    /// There is no filter.
    All,
    Some(Filter, Filtered),
    /// It was accepted by a node of another version, and this one can't read it.
    Unknown,
}

/// Failures since the log last spoke of them.
#[derive(Default)]
struct Failures {
    count: u64,
    told_at: Option<Instant>,
}

impl Filtering {
    pub(super) fn of(info: &SubscriptionInfo, partition: Partition, metrics: Arc<Metrics>) -> Self {
        let (subscription, text) = (info.name.to_string(), String::new());
        let mut filtering =
            Self { subscription, partition, metrics, text, rule: Rule::All, failures: Failures::default() };
        filtering.follow(info);
        filtering
    }

    /// The subscription may have another filter now. It counts for what is read from now on.
    pub(super) fn follow(&mut self, info: &SubscriptionInfo) {
        if info.filter == self.text {
            return;
        }
        self.text.clone_from(&info.filter);
        self.rule = match self.compile() {
            Ok(rule) => rule,
            Err(problem) => {
                let (subscription, partition) = (&self.subscription, self.partition.label());
                error!(subscription, partition, %problem, "delivering nothing new: the filter can't be read");
                Rule::Unknown
            }
        };
    }

    fn compile(&self) -> Result<Rule, FilterError> {
        if self.text.is_empty() {
            return Ok(Rule::All);
        }
        Ok(Rule::Some(Filter::compile(&self.text)?, self.metrics.filtered(&self.subscription)))
    }

    /// Whether anything may be read: what isn't wanted is settled for good, so nobody may guess.
    pub(super) fn is_usable(&self) -> bool {
        !matches!(self.rule, Rule::Unknown)
    }

    /// Messages that may be asked about before the actor does something else.
    pub(super) fn at_a_time(&self) -> usize {
        if matches!(self.rule, Rule::All) { usize::MAX } else { DISPATCH_FILTERED }
    }

    /// Whether the subscription gets this message.
    pub(super) async fn wants(&mut self, offset: Offset, record: &Record) -> bool {
        let Rule::Some(filter, counters) = &self.rule else { return matches!(self.rule, Rule::All) };
        // Other tasks of this thread have their turn in between.
        consume_budget().await;
        let topic = self.partition.topic.as_str();
        let verdict = filter.matches(&Message::new(topic, self.partition.id, offset, record));
        match verdict {
            Ok(true) => true,
            Ok(false) => {
                counters.skipped.inc();
                false
            }
            Err(failure) => {
                counters.failed.inc();
                self.failed(offset, &failure);
                false
            }
        }
    }

    fn failed(&mut self, offset: Offset, failure: &FilterFailure) {
        self.failures.count += 1;
        if self.failures.told_at.is_some_and(|at| at.elapsed() < FILTER_LOG_PAUSE) {
            return;
        }
        let (subscription, partition, count) = (&self.subscription, self.partition.label(), self.failures.count);
        warn!(subscription, partition, %offset, %failure, count, "messages skipped: the filter fails for them");
        self.failures = Failures { count: 0, told_at: Some(Instant::now()) };
    }

    /// The subscription is gone, and nobody counts for it any more.
    pub(super) fn deleted(&self) {
        self.metrics.forget_subscription(&self.subscription);
    }
}

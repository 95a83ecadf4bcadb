//! Trials of filters.

use std::sync::Arc;

use quorate_proto::v1 as pb;
use quorate_proto::v1::test_filter_request::Source;

use crate::error::ClientError;
use crate::message::ReceivedMessage;
use crate::subscriber::received;

/// A filter to be tried on the newest messages of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterTest {
    source: Source,
    filter: String,
    last: u32,
}

/// What came of a trial.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FilterTested {
    /// Messages that the filter was tried on.
    pub tested: u32,
    /// Those that match.
    pub matched: u32,
    /// Those that it failed for, which don't match either.
    pub failed: u32,
    /// Some that match, at most 10, without their data.
    pub matches: Vec<ReceivedMessage>,
    /// One that it failed for.
    pub failure: Option<FilterFailure>,
}

/// A message that a filter failed for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterFailure {
    /// The message.
    pub message_id: String,
    /// Why.
    pub error: String,
}

impl FilterTest {
    /// Of this filter, on messages of this topic.
    #[must_use]
    pub fn on_topic(topic: impl Into<String>, filter: impl Into<String>) -> Self {
        Self { source: Source::Topic(topic.into()), filter: filter.into(), last: 0 }
    }

    /// Of the filter that a subscription has, on messages of its topic.
    #[must_use]
    pub fn on_subscription(subscription: impl Into<String>) -> Self {
        Self { source: Source::Subscription(subscription.into()), filter: String::new(), last: 0 }
    }

    /// Of this filter instead.
    #[must_use]
    pub fn filter(mut self, filter: impl Into<String>) -> Self {
        self.filter = filter.into();
        self
    }

    /// On so many messages: the newest of each partition, and of each as many. 1 to 1,000; default 100.
    #[must_use]
    pub fn last(mut self, messages: u32) -> Self {
        self.last = messages;
        self
    }

    pub(super) fn into_request(self) -> pb::TestFilterRequest {
        let Self { source, filter, last } = self;
        pb::TestFilterRequest { source: Some(source), filter, last }
    }
}

impl FilterTested {
    pub(super) fn from_wire(wire: pb::TestFilterResponse) -> Result<Self, ClientError> {
        let pb::TestFilterResponse { tested, matched, failed, matches, failure } = wire;
        let matches = matches.into_iter().map(|message| received(&Arc::from(message.topic.as_str()), message));
        let failure = failure.map(|pb::FilterFailure { message_id, error }| FilterFailure { message_id, error });
        Ok(Self { tested, matched, failed, matches: matches.collect::<Result<_, _>>()?, failure })
    }
}

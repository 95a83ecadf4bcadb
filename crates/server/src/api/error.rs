//! The only place where a `tonic::Status` is made. Every error is a reason of the model's table, with facts for
//! programs, a sentence for people, and whether the request was executed.

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message as _;
use quorate_consensus::{Overload, ProposeError, ReadError, TransferError};
use quorate_model::{
    AppendRejected, BatchError, ClusterMap, DeletionRejected, Executed, MetaRejected, NameError, NodeId, Offset,
    Reason, RecordError, Replica, RetryAdvice,
};
use quorate_proto::v1;
use quorate_storage::ReadRecordsError;
use tonic::{Code, Status};

use crate::filter::FilterError;
use crate::leaders::KnownLeader;
use crate::router::{RouteError, Routing};

/// The `domain` of every `ErrorInfo`.
const DOMAIN: &str = "quorate";

/// How long to wait before another attempt, where the table says that waiting helps.
const BACK_OFF: Duration = Duration::from_millis(100);
/// The same for a missing leader: an election after a process death is over sooner than that.
const ELECTION_BACK_OFF: Duration = Duration::from_millis(20);

/// An error on its way to a caller.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    reason: Reason,
    message: String,
    facts: BTreeMap<String, String>,
    executed: Executed,
    /// A status that another node made: passed on unchanged.
    received: Option<Status>,
}

impl ApiError {
    pub(crate) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), facts: BTreeMap::new(), executed: reason.executed(), received: None }
    }

    /// Adds a fact for programs.
    pub(crate) fn with(mut self, key: &str, value: &impl ToString) -> Self {
        self.facts.insert(key.to_owned(), value.to_string());
        self
    }

    fn with_all(mut self, facts: Vec<(&'static str, String)>) -> Self {
        self.facts.extend(facts.into_iter().map(|(key, value)| (key.to_owned(), value)));
        self
    }

    /// Says whether the request was executed, where that isn't what the table says of the reason.
    pub(crate) fn executed(mut self, executed: Executed) -> Self {
        self.executed = executed;
        self
    }

    /// What another node answered, to be passed on as it is.
    pub(crate) fn received(status: &Status) -> Self {
        let reason = reason_of(status).unwrap_or(Reason::Internal);
        Self { received: Some(status.clone()), ..Self::new(reason, status.message()) }
    }

    pub(crate) fn reason(&self) -> Reason {
        self.reason
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// As the failure of a whole call.
    pub(crate) fn into_status(self) -> Status {
        if let Some(status) = self.received {
            return status;
        }
        let code = Code::from_i32(self.reason.code());
        let retry_after = self.retry_after();
        let facts = self.all_facts();
        let mut details = vec![any(
            "google.rpc.ErrorInfo",
            &ErrorInfo { reason: self.reason.as_str().to_owned(), domain: DOMAIN.to_owned(), metadata: facts },
        )];
        if let Some(delay) = retry_after {
            let retry_delay = prost_types::Duration::try_from(delay).ok();
            details.push(any("google.rpc.RetryInfo", &RetryInfo { retry_delay }));
        }
        let rich = RpcStatus { code: self.reason.code(), message: self.message.clone(), details };
        Status::with_details(code, self.message, rich.encode_to_vec().into())
    }

    /// As the failure of one message or batch within a call that itself succeeded.
    pub(crate) fn into_publish_error(self) -> v1::PublishError {
        let retry_after = self.retry_after();
        v1::PublishError {
            code: self.reason.code(),
            reason: self.reason.as_str().to_owned(),
            metadata: self.all_facts(),
            message: self.message,
            retry_after_ms: retry_after.map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        let delay = if self.reason == Reason::NoLeader { ELECTION_BACK_OFF } else { BACK_OFF };
        matches!(self.reason.retry(), RetryAdvice::BackOff | RetryAdvice::HonourDelay).then_some(delay)
    }

    fn all_facts(&self) -> BTreeMap<String, String> {
        let executed = match self.executed {
            Executed::No => "no",
            Executed::Maybe => "maybe",
            Executed::NotApplicable => return self.facts.clone(),
        };
        let mut facts = self.facts.clone();
        facts.insert("executed".to_owned(), executed.to_owned());
        facts
    }
}

/// Errors that the node itself finds, rather than the model.
impl ApiError {
    pub(crate) fn topic_not_found(topic: &(impl ToString + ?Sized)) -> Self {
        let topic = topic.to_string();
        Self::new(Reason::TopicNotFound, format!("topic {topic:?} does not exist")).with("topic", &topic)
    }

    pub(crate) fn subscription_not_found(subscription: &(impl ToString + ?Sized)) -> Self {
        let subscription = subscription.to_string();
        Self::new(Reason::SubscriptionNotFound, format!("subscription {subscription:?} does not exist"))
            .with("subscription", &subscription)
    }

    pub(crate) fn partition_not_found(topic: &impl ToString, partition: u32, partitions: u32) -> Self {
        let topic = topic.to_string();
        Self::new(
            Reason::PartitionNotFound,
            format!("topic {topic:?} has no partition {partition}; it has {partitions}, counted from 0"),
        )
        .with("topic", &topic)
        .with("partition", &partition)
        .with("partitions", &partitions)
    }

    /// A field of the request that can't be used.
    pub(crate) fn invalid(reason: Reason, field: &str, value: &(impl ToString + ?Sized), expected: &str) -> Self {
        let value = value.to_string();
        Self::new(reason, format!("{field}: {value:?} isn't accepted; expected {expected}"))
            .with("field", &field)
            .with("value", &value)
            .with("expected", &expected)
    }

    /// A field that every such request needs.
    pub(crate) fn missing(field: &str) -> Self {
        Self::new(Reason::InvalidArgument, format!("{field}: required")).with("field", &field)
    }

    pub(crate) fn draining() -> Self {
        Self::new(Reason::Draining, "the node is shutting down; use another one")
    }

    /// Nothing was started before the deadline.
    pub(crate) fn expired() -> Self {
        Self::new(Reason::DeadlineExceeded, "the deadline passed before the request was executed")
            .executed(Executed::No)
    }

    /// Time passed while something was still missing.
    pub(crate) fn expired_while(text: impl Into<String>) -> Self {
        Self::new(Reason::DeadlineExceeded, text)
    }

    /// A request was begun, but its answer didn't come before the deadline.
    pub(crate) fn unanswered(executed: Executed) -> Self {
        Self::new(Reason::DeadlineExceeded, "the deadline passed before the leader answered").executed(executed)
    }

    /// No replica is known to lead.
    pub(crate) fn no_leader(what: &str) -> Self {
        Self::new(Reason::NoLeader, format!("{what} has no leader at the moment; an election may be under way"))
    }

    /// This node does not lead.
    pub(crate) fn not_leader(what: &str, leader: KnownLeader, map: &ClusterMap) -> Self {
        let address = map.nodes.get(&leader.node).map(|info| info.client_address.clone()).unwrap_or_default();
        Self::new(Reason::NotLeader, format!("{what} is led by node {} at {address}", leader.node))
            .with("leader_node_id", &leader.node)
            .with("address", &address)
            .with("term", &leader.term)
    }

    /// This node has no replica to answer from.
    pub(crate) fn no_replica(what: &str, node: NodeId, replicas: &[Replica]) -> Self {
        let holders: Vec<String> = replicas.iter().map(|replica| replica.node.to_string()).collect();
        let holders = holders.join(",");
        Self::new(Reason::NoReplica, format!("node {node} holds no replica of {what}; nodes {holders} do"))
            .with("node_id", &node)
            .with("replica_node_ids", &holders)
    }

    /// A request of a stream could not be read: it was too large, or the connection broke.
    pub(crate) fn unreadable(status: &Status) -> Self {
        if reason_of(status).is_some() {
            return Self::received(status);
        }
        let reason = match status.code() {
            Code::OutOfRange | Code::ResourceExhausted => Reason::BatchTooLarge,
            _ => Reason::InvalidArgument,
        };
        Self::new(reason, format!("the request can't be read: {}", status.message()))
    }

    /// Another node failed to answer: its own words if it had any, else it can't be reached.
    pub(crate) fn from_peer(node: NodeId, status: &Status) -> Self {
        match reason_of(status) {
            Some(_) => Self::received(status),
            None => Self::new(Reason::NoLeader, format!("node {node} doesn't answer: {}", status.message())),
        }
    }

    /// The same for a request that changes something: whoever can't be heard may have done it, so that it must not
    /// be asked again.
    pub(crate) fn lost(node: NodeId, status: &Status) -> Self {
        match reason_of(status) {
            Some(_) => Self::received(status),
            None => {
                let text = format!("it is unknown whether node {node} did it: {}", status.message());
                Self::new(Reason::CommitUnknown, text)
            }
        }
    }

    /// The leader could not prove that it still leads; for a read that is no more than a reason to try again.
    pub(crate) fn from_barrier(error: ProposeError, what: &str) -> Self {
        match error {
            ProposeError::NotLeader { .. } | ProposeError::Stopped => Self::no_leader(what),
            // A barrier appends nothing, so that nothing can be too much.
            ProposeError::Overloaded(overload) => overload.into(),
            ProposeError::Unknown { why } => {
                Self::new(Reason::NoLeader, format!("{what}: leadership could not be confirmed: {why}"))
            }
        }
    }

    /// The log could not be read.
    pub(crate) fn from_read(error: ReadError, what: &str) -> Self {
        match error {
            ReadError::OutOfRange { asked, log_start, end } => Self::out_of_range(what, asked, log_start, end),
            ReadError::Records(ReadRecordsError::BeforeLogStart { offset }) => {
                Self::new(Reason::OffsetOutOfRange, format!("{what}: retention has removed offset {offset}"))
                    .with("field", &"offset")
                    .with("value", &offset)
            }
            ReadError::Records(error) => Self::new(Reason::CorruptLog, format!("{what}: {error}")),
        }
    }

    pub(crate) fn out_of_range(what: &str, offset: Offset, log_start: Offset, end: Offset) -> Self {
        Self::new(
            Reason::OffsetOutOfRange,
            format!("{what}: offset {offset} is outside the log, which reaches from {log_start} to {end}"),
        )
        .with("field", &"offset")
        .with("value", &offset)
        .with("log_start_offset", &log_start)
        .with("end_offset", &end)
    }

    /// The leadership was not handed over.
    pub(crate) fn from_transfer(error: &TransferError, what: &str) -> Self {
        let reason = match error {
            TransferError::NotLeader | TransferError::Stopped => Reason::NoLeader,
            TransferError::NoTarget => Reason::NodeNotFound,
            TransferError::Unreachable => Reason::Unreachable,
            TransferError::Timeout(_) => Reason::DeadlineExceeded,
        };
        Self::new(reason, format!("{what}: {error}"))
    }

    /// Whether asking again, of another replica or a little later, may help.
    pub(crate) fn is_about_leadership(&self) -> bool {
        matches!(self.reason, Reason::NotLeader | Reason::NoLeader)
    }

    /// Whether another replica may answer where this one can't.
    pub(crate) fn is_about_replicas(&self) -> bool {
        self.is_about_leadership() || matches!(self.reason, Reason::NoReplica | Reason::Draining)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(Reason::Internal, message)
    }

    pub(crate) fn out_of_turn() -> Self {
        Self::internal("the metadata group answered another question than was asked")
    }

    /// What became of a command, in words for the caller. `what` names the group.
    pub(crate) fn route(error: RouteError, what: &str, routing: Routing, map: &ClusterMap) -> Self {
        match error {
            RouteError::NotLeader(Some(leader)) if routing == Routing::Direct => Self::not_leader(what, leader, map),
            RouteError::NotLeader(_) => Self::no_leader(what),
            RouteError::Overloaded(overload) => overload.into(),
            RouteError::Unknown(why) => Self::new(
                Reason::CommitUnknown,
                format!("{what}: it is unknown whether the command was committed: {why}"),
            ),
        }
    }
}

impl From<Overload> for ApiError {
    fn from(overload: Overload) -> Self {
        Self::new(Reason::Overloaded, format!("the node has as much in hand as it may have: {overload}"))
            .with("limit_name", &overload.setting)
            .with("limit", &overload.limit)
    }
}

impl From<FilterError> for ApiError {
    fn from(error: FilterError) -> Self {
        Self::new(Reason::InvalidFilter, error.to_string()).with_all(error.metadata())
    }
}

/// The model's errors bring their reason and facts with them.
macro_rules! from_model {
    ($($error:ty),*) => {$(
        impl From<$error> for ApiError {
            fn from(error: $error) -> Self {
                Self::new(error.reason(), error.to_string()).with_all(error.metadata())
            }
        }
    )*};
}
from_model!(NameError, RecordError, BatchError, AppendRejected, DeletionRejected, MetaRejected);

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        error.into_status()
    }
}

/// The reason that a status carries, if it was made by a Quorate node.
pub(crate) fn reason_of(status: &Status) -> Option<Reason> {
    let rich = RpcStatus::decode(status.details()).ok()?;
    let info = rich.details.iter().find(|detail| detail.type_url.ends_with("google.rpc.ErrorInfo"))?;
    let info = ErrorInfo::decode(info.value.as_slice()).ok()?;
    if info.domain == DOMAIN { Reason::parse(&info.reason) } else { None }
}

fn any(name: &str, message: &impl prost::Message) -> prost_types::Any {
    prost_types::Any { type_url: format!("type.googleapis.com/{name}"), value: message.encode_to_vec() }
}

/// `google.rpc.Status`. These three are declared here because the published types keep metadata in a hash map,
/// whose order changes from run to run: the same error must be the same bytes, or a simulation can't be repeated.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// `google.rpc.ErrorInfo`.
#[derive(Clone, PartialEq, prost::Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
    #[prost(btree_map = "string, string", tag = "3")]
    metadata: BTreeMap<String, String>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<prost_types::Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_carries_reason_facts_and_advice() {
        let status = ApiError::new(Reason::Overloaded, "too much").with("limit", &7).into_status();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(reason_of(&status), Some(Reason::Overloaded));
        // The published types read what ours wrote.
        let details = tonic_types::StatusExt::get_error_details(&status);
        let info = details.error_info().expect("error info");
        assert_eq!((info.domain.as_str(), info.metadata["limit"].as_str()), ("quorate", "7"));
        assert_eq!(info.metadata["executed"], "no");
        assert_eq!(details.retry_info().and_then(|info| info.retry_delay), Some(BACK_OFF));
    }

    #[test]
    fn a_status_of_another_node_passes_unchanged() {
        let made = ApiError::topic_not_found("books").into_status();
        let passed = ApiError::received(&made);
        assert_eq!(passed.reason(), Reason::TopicNotFound);
        assert_eq!(passed.into_status().details(), made.details());
    }
}

//! [`ClientError`]: what went wrong, whether the request may have been carried out, and whether to try again.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use quorate_model::{Executed, Reason, RetryAdvice};
use quorate_proto::v1 as pb;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// The `domain` of every `google.rpc.ErrorInfo` that a broker attaches.
const ERROR_DOMAIN: &str = "quorate";

/// Why a request did not succeed. Cheap to clone: a batch that fails gives every message the same error.
#[derive(Clone)]
pub struct ClientError(Arc<Facts>);

#[derive(Debug, Clone)]
struct Facts {
    cause: Cause,
    message: String,
    metadata: BTreeMap<String, String>,
    retry_after: Option<Duration>,
    executed: Executed,
}

/// Who found the error: the broker, with a reason of the shared table, or this client.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// A reason of the table in `docs/errors.md`, from the broker or from the same check made here.
    Known(Reason),
    /// A broker newer than this client gave a reason that it doesn't know, or none at all.
    Unrecognised {
        /// As the broker wrote it; empty if it gave none.
        reason: String,
        /// The gRPC status code.
        code: i32,
    },
    /// No connection could be made, so nothing was sent.
    Unreachable,
    /// The connection broke before the answer came.
    ConnectionLost,
    /// The total time allowed for the request passed.
    Deadline,
    /// The client, publisher or reader had been closed.
    Closed,
    /// A setting or argument that makes no sense; nothing was sent.
    InvalidSetting,
    /// A node's answer contradicts the protocol.
    Protocol,
}

impl ClientError {
    /// Who found the error.
    #[must_use]
    pub fn cause(&self) -> &Cause {
        &self.0.cause
    }

    /// The stable name of the error, such as `TOPIC_NOT_FOUND`; `quorate explain` knows those of the broker.
    #[must_use]
    pub fn reason(&self) -> &str {
        match &self.0.cause {
            Cause::Known(reason) => reason.as_str(),
            Cause::Unrecognised { reason, .. } if reason.is_empty() => "UNRECOGNISED",
            Cause::Unrecognised { reason, .. } => reason,
            Cause::Unreachable => "UNREACHABLE",
            Cause::ConnectionLost => "CONNECTION_LOST",
            Cause::Deadline => "DEADLINE_EXCEEDED",
            Cause::Closed => "CLIENT_CLOSED",
            Cause::InvalidSetting => "INVALID_SETTING",
            Cause::Protocol => "PROTOCOL_VIOLATION",
        }
    }

    /// Whether the error has this reason of the shared table.
    #[must_use]
    pub fn is(&self, reason: Reason) -> bool {
        self.0.cause == Cause::Known(reason)
    }

    /// One sentence for people.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Facts by name, such as `limit` and `size` of a message that is too large.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.0.metadata
    }

    /// How long the broker asked to wait before trying again.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Whether the request may have taken effect. `Maybe` is not a failure: look before repeating.
    #[must_use]
    pub fn executed(&self) -> Executed {
        self.0.executed
    }

    /// Whether the same request may succeed later without any change. The client itself has already
    /// retried until the deadline where that was safe.
    #[must_use]
    pub fn retryable(&self) -> bool {
        self.advice() != RetryAdvice::Surface
    }

    pub(crate) fn advice(&self) -> RetryAdvice {
        match &self.0.cause {
            Cause::Known(reason) => reason.retry(),
            Cause::Unrecognised { code, .. } => {
                let transient = [Code::Unavailable, Code::ResourceExhausted, Code::Aborted, Code::DeadlineExceeded];
                if transient.iter().any(|candidate| *candidate as i32 == *code) {
                    RetryAdvice::BackOff
                } else {
                    RetryAdvice::Surface
                }
            }
            Cause::Unreachable | Cause::ConnectionLost => RetryAdvice::Move,
            Cause::Deadline | Cause::Closed | Cause::InvalidSetting | Cause::Protocol => RetryAdvice::Surface,
        }
    }

    /// Whether the connection, rather than the node behind it, failed.
    pub(crate) fn is_transport(&self) -> bool {
        matches!(self.0.cause, Cause::Unreachable | Cause::ConnectionLost)
    }

    pub(crate) fn new(cause: Cause, message: impl Into<String>) -> Self {
        let executed = match &cause {
            Cause::Known(reason) => reason.executed(),
            Cause::Unreachable | Cause::Closed | Cause::InvalidSetting => Executed::No,
            Cause::Unrecognised { .. } | Cause::ConnectionLost | Cause::Deadline | Cause::Protocol => Executed::Maybe,
        };
        Self(Arc::new(Facts { cause, message: message.into(), metadata: BTreeMap::new(), retry_after: None, executed }))
    }

    pub(crate) fn known(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(Cause::Known(reason), message)
    }

    pub(crate) fn deadline(message: impl Into<String>, executed: Executed) -> Self {
        Self::new(Cause::Deadline, message).with_executed(executed)
    }

    pub(crate) fn closed(what: &str) -> Self {
        Self::new(Cause::Closed, format!("the {what} is closed"))
    }

    pub(crate) fn invalid_setting(message: impl Into<String>) -> Self {
        Self::new(Cause::InvalidSetting, message)
    }

    pub(crate) fn with_executed(mut self, executed: Executed) -> Self {
        Arc::make_mut(&mut self.0).executed = executed;
        self
    }

    pub(crate) fn with_fact(mut self, name: &str, value: impl fmt::Display) -> Self {
        Arc::make_mut(&mut self.0).metadata.insert(name.to_owned(), value.to_string());
        self
    }

    /// Reads a status: the facts in its details if a broker made it, else what the transport's own error means.
    pub(crate) fn from_status(status: &Status) -> Self {
        let retry_after = status.get_details_retry_info().and_then(|info| info.retry_delay);
        let Some(info) = status.get_details_error_info().filter(|info| info.domain == ERROR_DOMAIN) else {
            return Self::from_bare_status(status, retry_after);
        };
        Self::from_parts(
            &info.reason,
            status.code() as i32,
            status.message(),
            info.metadata.into_iter().collect(),
            retry_after,
        )
    }

    /// Reads the error of one batch within a stream that itself works.
    pub(crate) fn from_publish_error(error: pb::PublishError) -> Self {
        let retry_after = error.retry_after_ms.map(Duration::from_millis);
        Self::from_parts(&error.reason, error.code, &error.message, error.metadata, retry_after)
    }

    fn from_parts(
        reason: &str,
        code: i32,
        message: &str,
        metadata: BTreeMap<String, String>,
        retry_after: Option<Duration>,
    ) -> Self {
        let cause = match Reason::parse(reason) {
            Some(reason) => Cause::Known(reason),
            None => Cause::Unrecognised { reason: reason.to_owned(), code },
        };
        let mut error = Self::new(cause, message);
        let facts = Arc::make_mut(&mut error.0);
        facts.metadata = metadata;
        facts.retry_after = retry_after;
        error
    }

    /// A status without our details comes from the transport on this side, from a proxy, or from tonic
    /// in the node. What the connection did is in the chain of sources.
    fn from_bare_status(status: &Status, retry_after: Option<Duration>) -> Self {
        let message = describe(status);
        let transport = status.source().is_some();
        let cause = match status.code() {
            _ if transport && connection_was_refused(status) => Cause::Unreachable,
            _ if transport => Cause::ConnectionLost,
            Code::Unavailable | Code::Cancelled | Code::Unknown => Cause::ConnectionLost,
            Code::DeadlineExceeded => Cause::Known(Reason::DeadlineExceeded),
            code => Cause::Unrecognised { reason: String::new(), code: code as i32 },
        };
        // A call that the node doesn't have, or doesn't let this caller make, was not carried out.
        let refused = matches!(
            status.code(),
            Code::Unimplemented | Code::Unauthenticated | Code::PermissionDenied | Code::InvalidArgument
        );
        let mut error = Self::new(cause, message);
        let facts = Arc::make_mut(&mut error.0);
        facts.retry_after = retry_after;
        if refused && !transport {
            facts.executed = Executed::No;
        }
        error
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.reason(), self.0.message)
    }
}

impl fmt::Debug for ClientError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl std::error::Error for ClientError {}

impl Eq for ClientError {}

/// Two errors are the same if they say the same; the message is for people and doesn't count.
impl PartialEq for ClientError {
    fn eq(&self, other: &Self) -> bool {
        self.0.cause == other.0.cause && self.0.executed == other.0.executed && self.0.metadata == other.0.metadata
    }
}

fn connection_was_refused(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// The status's message with its innermost cause, which says more than tonic's "transport error".
fn describe(status: &Status) -> String {
    let mut innermost = None;
    let mut source = status.source();
    while let Some(error) = source {
        innermost = Some(error.to_string());
        source = error.source();
    }
    match (innermost, status.message()) {
        (Some(cause), "") => cause,
        (Some(cause), message) if !message.contains(&cause) => format!("{message}: {cause}"),
        (_, "") => format!("status {}", status.code()),
        (_, message) => message.to_owned(),
    }
}

#[cfg(test)]
#[path = "error_tests.rs"]
mod tests;

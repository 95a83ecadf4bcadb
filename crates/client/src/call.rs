//! One request with one answer, to any node: tried again, elsewhere and later, until the deadline.

use futures::future::BoxFuture;
use quorate_model::Executed;
use tonic::transport::Channel;
use tonic::{Response, Status};
use tracing::debug;

use crate::error::{Cause, ClientError};
use crate::retry::{Backoff, Deadline};
use crate::routing::Router;

/// Answers end within this; what takes longer to fail is asked of another node.
const FAILURES_UNTIL_REFRESH: u32 = 2;

/// The answer, and whether an earlier attempt without an answer may have done the work already.
pub(crate) struct Answered<T> {
    pub(crate) outcome: Result<T, ClientError>,
    pub(crate) earlier_attempt_lost: bool,
}

impl<T> Answered<T> {
    /// A definite no after a lost attempt is no definite no: the lost one may have caused it.
    pub(crate) fn into_result(self) -> Result<T, ClientError> {
        let lost = self.earlier_attempt_lost;
        self.outcome.map_err(|error| if lost { error.with_executed(Executed::Maybe) } else { error })
    }
}

/// Only for requests that may be carried out twice without harm.
pub(crate) async fn call<T>(
    router: &Router,
    what: &'static str,
    attempt: impl Fn(Channel) -> BoxFuture<'static, Result<Response<T>, Status>>,
) -> Answered<T> {
    let retry = router.retry();
    let deadline = Deadline::after(retry.total);
    let mut backoff = Backoff::new(retry);
    let mut earlier_attempt_lost = false;
    loop {
        let route = match router.any_by(deadline).await {
            Ok(route) => route,
            Err(error) => return Answered { outcome: Err(error), earlier_attempt_lost },
        };
        let patience = retry.attempt.min(deadline.remaining());
        let error = match tokio::time::timeout(patience, attempt(route.connection.channel.clone())).await {
            Ok(Ok(response)) => return Answered { outcome: Ok(response.into_inner()), earlier_attempt_lost },
            Ok(Err(status)) => ClientError::from_status(&status),
            Err(_) => ClientError::new(
                Cause::ConnectionLost,
                format!("{} didn't answer {what} in time", route.connection.address),
            ),
        };
        if error.is_transport() {
            router.suspect(&route.connection);
        }
        if !error.retryable() {
            return Answered { outcome: Err(error), earlier_attempt_lost };
        }
        debug!(what, connection = ?route.connection, %error, "request failed, trying again");
        earlier_attempt_lost |= error.executed() == Executed::Maybe;
        let pause = backoff.after(&error);
        if backoff.failures() >= FAILURES_UNTIL_REFRESH {
            router.refresh();
        }
        if pause >= deadline.remaining() {
            return Answered { outcome: Err(error), earlier_attempt_lost };
        }
        tokio::time::sleep(pause).await;
    }
}

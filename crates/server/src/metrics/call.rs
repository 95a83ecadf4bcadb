//! Counts a call when it ends, however it ends, and turns its errors into statuses.

use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt};
use quorate_model::Reason;
use tokio::time::Instant;
use tonic::{Code, Response, Status};
use tracing::{debug, error};

use super::Metrics;
use crate::api::error::ApiError;

impl Metrics {
    /// Answers a unary call with the outcome of `work`.
    pub(crate) async fn unary<T>(
        self: &Arc<Self>,
        rpc: &'static str,
        work: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<Response<T>, Status> {
        let mut call = Call::new(Arc::clone(self), rpc, Kind::Unary);
        match work.await {
            Ok(answer) => {
                call.code = Code::Ok;
                Ok(Response::new(answer))
            }
            Err(error) => Err(call.failed(error)),
        }
    }

    /// Answers a streaming call with the stream, or with why there is none.
    pub(crate) fn streaming<T: Send + 'static>(
        self: &Arc<Self>,
        rpc: &'static str,
        opened: Result<BoxStream<'static, Result<T, ApiError>>, ApiError>,
    ) -> Result<Response<BoxStream<'static, Result<T, Status>>>, Status> {
        let mut call = Call::new(Arc::clone(self), rpc, Kind::Stream);
        let items = opened.map_err(|error| call.failed(error))?;
        let answers = stream::unfold((items, call), |(mut items, mut call)| async move {
            match items.next().await {
                Some(Ok(item)) => Some((Ok(item), (items, call))),
                Some(Err(error)) => Some((Err(call.failed(error)), (items, call))),
                None => {
                    call.ended();
                    None
                }
            }
        });
        Ok(Response::new(answers.boxed()))
    }
}

/// A call under way. Counted on drop, so that one whose caller went away is counted too.
struct Call {
    metrics: Arc<Metrics>,
    rpc: &'static str,
    kind: Kind,
    started: Instant,
    code: Code,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unary,
    Stream,
}

impl Call {
    fn new(metrics: Arc<Metrics>, rpc: &'static str, kind: Kind) -> Self {
        if kind == Kind::Stream {
            metrics.open_streams.with_label_values(&[rpc]).inc();
        }
        Self { metrics, rpc, kind, started: Instant::now(), code: Code::Cancelled }
    }

    fn failed(&mut self, failure: ApiError) -> Status {
        let reason = failure.reason();
        let status = failure.into_status();
        self.code = status.code();
        // Faults of callers are their business; faults of the broker are the operator's.
        match reason {
            Reason::Internal | Reason::CorruptLog => {
                error!(rpc = self.rpc, %reason, message = status.message(), "request failed")
            }
            _ => debug!(rpc = self.rpc, %reason, message = status.message(), "request refused"),
        }
        status
    }

    /// The stream's last item was sent.
    fn ended(&mut self) {
        if self.code == Code::Cancelled {
            self.code = Code::Ok;
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let code = format!("{:?}", self.code);
        self.metrics.requests.with_label_values(&[self.rpc, code.as_str()]).inc();
        match self.kind {
            Kind::Unary => {
                let took = self.started.elapsed().as_secs_f64();
                self.metrics.request_seconds.with_label_values(&[self.rpc]).observe(took);
            }
            Kind::Stream => self.metrics.open_streams.with_label_values(&[self.rpc]).dec(),
        }
    }
}

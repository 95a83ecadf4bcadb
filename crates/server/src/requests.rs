//! Bounds on the requests of clients, whatever service they are for: how many are open on the node and on a
//! connection, how much of messages that haven't arrived whole may lie in memory, and how long they may take to.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use quorate_consensus::Overload;
use quorate_model::Reason;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use crate::api::error::ApiError;
use crate::config::LimitsConfig;
use crate::connections::{Connection, OpenRequest};
use crate::limits::{REQUEST_STALL, REQUEST_TIME_MAX};
use crate::metrics::Metrics;

/// The bounds of a node; clones share them.
#[derive(Clone)]
pub(crate) struct RequestBounds {
    open: Arc<Semaphore>,
    receiving: Arc<Receiving>,
    limits: LimitsConfig,
    metrics: Arc<Metrics>,
}

impl RequestBounds {
    pub(crate) fn new(limits: LimitsConfig, metrics: Arc<Metrics>) -> Self {
        let receiving = Receiving { bytes: AtomicUsize::new(0), limit: limits.receive_bytes };
        Self { open: Arc::new(Semaphore::new(limits.requests)), receiving: Arc::new(receiving), limits, metrics }
    }

    fn admit<B>(&self, request: &Request<B>) -> Result<Held, Overload> {
        // A node that is full must still say that it lives, or it would be restarted for being busy.
        let is_probe = request.uri().path().starts_with("/grpc.health.");
        let place = match Arc::clone(&self.open).try_acquire_owned() {
            Ok(place) => Some(place),
            Err(_) if is_probe => None,
            Err(_) => return Err(Overload::new("limits.requests", self.limits.requests)),
        };
        let most = self.limits.streams_per_connection;
        let request = request.extensions().get::<Connection>().map(|connection| {
            let overload =
                || Overload::new("limits.streams_per_connection", usize::try_from(most).unwrap_or(usize::MAX));
            connection.begin(most).ok_or_else(overload)
        });
        Ok(Held { request: request.transpose()?, _place: place })
    }
}

/// Ends with the answer's last byte.
struct Held {
    request: Option<OpenRequest>,
    _place: Option<OwnedSemaphorePermit>,
}

impl<S> Layer<S> for RequestBounds {
    type Service = Bounded<S>;

    fn layer(&self, inner: S) -> Bounded<S> {
        Bounded { inner, bounds: self.clone() }
    }
}

/// A service within the bounds.
#[derive(Clone)]
pub(crate) struct Bounded<S> {
    inner: S,
    bounds: RequestBounds,
}

impl<S> Service<Request<Body>> for Bounded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let held = match self.bounds.admit(&request) {
            Ok(held) => held,
            Err(overload) => {
                self.bounds.metrics.refused(&overload.setting);
                let response = ApiError::from(overload).into_status().into_http();
                return std::future::ready(Ok(response)).boxed();
            }
        };
        let receiving = Arc::clone(&self.bounds.receiving);
        let request = request.map(|body| Body::new(Arriving::new(body, receiving)));
        let answering = self.inner.call(request);
        async move {
            // Whatever has arrived whole is answered before its own deadline, which is no later than this.
            match tokio::time::timeout(REQUEST_TIME_MAX, answering).await {
                Ok(answer) => answer.map(|response| response.map(|body| Body::new(Answer { body, held }))),
                Err(_) => {
                    let text = format!("no answer within {REQUEST_TIME_MAX:?}: the request may not have arrived whole");
                    Ok(ApiError::new(Reason::DeadlineExceeded, text).into_status().into_http())
                }
            }
        }
        .boxed()
    }
}

/// Bytes of messages that haven't arrived whole, over all requests of the node.
struct Receiving {
    bytes: AtomicUsize,
    limit: usize,
}

/// A request's body, on its way in.
struct Arriving {
    body: Body,
    receiving: Arc<Receiving>,
    message: MessageCut,
    /// What is counted in `receiving` for this body.
    counted: usize,
    /// When a message that isn't whole must be.
    whole_by: Option<Instant>,
    /// When more of it must have come.
    stalls: Option<Pin<Box<Sleep>>>,
}

impl Arriving {
    fn new(body: Body, receiving: Arc<Receiving>) -> Self {
        Self { body, receiving, message: MessageCut::default(), counted: 0, whole_by: None, stalls: None }
    }

    fn arrived(&mut self, data: &[u8]) -> Result<(), Overload> {
        if self.message.advance(data) {
            self.whole_by = None;
        }
        let (before, now) = (self.counted, self.message.bytes);
        self.counted = now;
        let total = if now >= before {
            self.receiving.bytes.fetch_add(now - before, Ordering::Relaxed) + (now - before)
        } else {
            self.receiving.bytes.fetch_sub(before - now, Ordering::Relaxed) - (before - now)
        };
        if now == 0 {
            (self.whole_by, self.stalls) = (None, None);
            return Ok(());
        }
        // A client that sends a byte now and then must not keep what it has sent here for ever.
        let whole_by = *self.whole_by.get_or_insert_with(|| Instant::now() + REQUEST_TIME_MAX);
        let deadline = whole_by.min(Instant::now() + REQUEST_STALL);
        match &mut self.stalls {
            Some(stalls) => stalls.as_mut().reset(deadline),
            None => self.stalls = Some(Box::pin(sleep_until(deadline))),
        }
        if now > before && total > self.receiving.limit {
            return Err(Overload::new("limits.receive_bytes", self.receiving.limit));
        }
        Ok(())
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.receiving.bytes.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref()
                    && let Err(overload) = self.arrived(data)
                {
                    return Poll::Ready(Some(Err(ApiError::from(overload).into_status())));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Pending => match &mut self.stalls {
                Some(stalls) => stalls.as_mut().poll(cx).map(|()| {
                    let text = format!(
                        "the rest of a message didn't come within {REQUEST_STALL:?}, or all of it within {REQUEST_TIME_MAX:?}"
                    );
                    Some(Err(ApiError::expired_while(text).into_status()))
                }),
                None => Poll::Pending,
            },
            other => other,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Where in a body the current message is. Each begins with a flag and its length: five bytes.
#[derive(Default)]
struct MessageCut {
    /// Bytes of a message that isn't whole.
    bytes: usize,
    header: [u8; 5],
    /// Bytes that the message will have with its header, once that is known.
    total: Option<usize>,
}

impl MessageCut {
    /// Whether a message became whole.
    fn advance(&mut self, mut data: &[u8]) -> bool {
        let mut whole = false;
        while !data.is_empty() {
            let wanted = self.total.unwrap_or(self.header.len()) - self.bytes;
            let (taken, rest) = data.split_at(wanted.min(data.len()));
            if self.total.is_none() {
                self.header[self.bytes..self.bytes + taken.len()].copy_from_slice(taken);
            }
            self.bytes += taken.len();
            data = rest;
            if self.total.is_none() && self.bytes == self.header.len() {
                let [_, length @ ..] = self.header;
                let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                self.total = Some(self.header.len().saturating_add(length));
            }
            if self.total == Some(self.bytes) {
                *self = Self::default();
                whole = true;
            }
        }
        whole
    }
}

/// An answer's body, on its way out.
struct Answer {
    body: Body,
    held: Held,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(request) = &self.held.request {
            request.asked();
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let (Poll::Ready(Some(Ok(_))), Some(request)) = (&polled, &self.held.request) {
            request.handed();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::{StreamExt, stream};
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    fn message(length: u32, sent: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(length.to_be_bytes());
        bytes.extend(vec![7; sent]);
        bytes
    }

    #[test]
    fn messages_are_told_apart_however_they_are_cut() {
        let whole = [message(3, 3), message(0, 0), message(300, 300), message(10, 4)].concat();
        for size in [1, 2, 5, 7, 100, whole.len()] {
            let mut cut = MessageCut::default();
            for piece in whole.chunks(size) {
                cut.advance(piece);
            }
            assert_eq!(cut.bytes, 9, "in pieces of {size}");
        }
    }

    fn arriving(pieces: Vec<Vec<u8>>, receiving: &Arc<Receiving>) -> Arriving {
        let frames = stream::iter(pieces).map(|piece| Ok::<_, Status>(Frame::data(Bytes::from(piece))));
        let body = Body::new(StreamBody::new(frames.chain(stream::pending())));
        Arriving::new(body, Arc::clone(receiving))
    }

    #[tokio::test]
    async fn what_has_not_arrived_whole_is_bounded_over_all_requests() {
        let receiving = Arc::new(Receiving { bytes: AtomicUsize::new(0), limit: 100 });
        // Whole messages of any size aren't counted: they are admitted by what they cost next.
        let mut whole = arriving(vec![message(1_000, 1_000)], &receiving);
        assert!(whole.frame().await.is_some_and(|frame| frame.is_ok()));
        let mut first = arriving(vec![message(1_000, 45), vec![7; 1]], &receiving);
        let mut second = arriving(vec![message(1_000, 45)], &receiving);
        assert!(first.frame().await.is_some_and(|frame| frame.is_ok()));
        assert!(second.frame().await.is_some_and(|frame| frame.is_ok()), "at the bound");
        let refused = first.frame().await.and_then(Result::err).expect("one past it");
        assert_eq!(crate::api::error::reason_of(&refused), Some(Reason::Overloaded));
        drop((first, second));
        assert_eq!(receiving.bytes.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_stops_coming_ends_its_request_and_a_silent_stream_does_not() {
        let receiving = Arc::new(Receiving { bytes: AtomicUsize::new(0), limit: 100 });
        let mut stuck = arriving(vec![message(10, 3)], &receiving);
        assert!(stuck.frame().await.is_some_and(|frame| frame.is_ok()));
        let begun = Instant::now();
        let ended = stuck.frame().await.and_then(Result::err).expect("it ends");
        assert_eq!((begun.elapsed(), ended.code()), (REQUEST_STALL, tonic::Code::DeadlineExceeded));

        let trickle = stream::iter(0..).then(|_| async {
            tokio::time::sleep(REQUEST_STALL / 2).await;
            Ok::<_, Status>(Frame::data(Bytes::from_static(&[7])))
        });
        let head = stream::iter([Ok(Frame::data(Bytes::from(message(1_000, 3))))]);
        let mut slow = Arriving::new(Body::new(StreamBody::new(head.chain(trickle))), Arc::clone(&receiving));
        let begun = Instant::now();
        let ended = loop {
            if let Err(ended) = slow.frame().await.expect("it ends") {
                break ended;
            }
        };
        assert_eq!((begun.elapsed(), ended.code()), (REQUEST_TIME_MAX, tonic::Code::DeadlineExceeded));

        let mut silent = arriving(vec![message(10, 10)], &receiving);
        assert!(silent.frame().await.is_some_and(|frame| frame.is_ok()));
        assert!(tokio::time::timeout(Duration::from_secs(86_400), silent.frame()).await.is_err());
    }
}

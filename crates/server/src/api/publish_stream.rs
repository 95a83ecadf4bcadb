//! One publishing stream: batches are submitted in the order in which they arrive and answered as their replies
//! come, so that a slow partition doesn't hold up the others.
//!
//! ```text
//!  client ──batch 1──batch 2──batch 3──►  check · admit · submit   ──►  groups
//!         ◄──answer 2──answer 1──answer 3──  answers, as they come  ◄──
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Poll;

use futures::future::{BoxFuture, FutureExt};
use futures::stream::{BoxStream, FuturesUnordered, StreamExt};
use quorate_model::{Appended, Reason, TopicId};
use quorate_proto::v1;
use quorate_proto::v1::publish_stream_response::Outcome;
use tokio::sync::mpsc;
use tokio::task::unconstrained;
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming};

use super::append;
use super::error::ApiError;
use crate::deadline::Deadline;
use crate::front::Front;
use crate::limits::{REQUEST_TIME_MAX, STREAM_ANSWERS, STREAM_STALL, STREAM_WINDOW};
use crate::router::Routing;

type Answer = Result<v1::PublishStreamResponse, ApiError>;

/// Starts serving a stream; what it returns are its answers.
pub(crate) fn serve(
    front: Arc<Front>,
    request: Request<Streaming<v1::PublishStreamRequest>>,
) -> BoxStream<'static, Answer> {
    let routing = Routing::of(request.metadata());
    let (answers, outbound) = mpsc::channel(STREAM_ANSWERS);
    let session = Session { front, routing, answers };
    // A task of its own, so that permits are given back as replies come, however slowly the client reads.
    tokio::spawn(session.run(request.into_inner()));
    ReceiverStream::new(outbound).boxed()
}

struct Session {
    front: Arc<Front>,
    routing: Routing,
    answers: mpsc::Sender<Answer>,
}

impl Session {
    async fn run(self, mut inbound: Streaming<v1::PublishStreamRequest>) {
        let draining = self.front.draining.clone();
        let mut in_flight = FuturesUnordered::new();
        // Answers that the connection has no room for yet. What they answer is over: they hold no permits.
        let mut unread: VecDeque<v1::PublishStreamResponse> = VecDeque::new();
        let mut stalls_at = Instant::now() + STREAM_STALL;
        // Set once nothing more is read: how the stream ends when all answers are out.
        let mut ending: Option<Result<(), ApiError>> = None;
        loop {
            let reading = ending.is_none() && in_flight.len() + unread.len() < STREAM_WINDOW;
            // Answers first: they give room back.
            tokio::select! {
                biased;
                Some(answer) = in_flight.next() => {
                    if unread.is_empty() {
                        stalls_at = Instant::now() + STREAM_STALL;
                    }
                    unread.push_back(answer);
                }
                room = self.answers.reserve(), if !unread.is_empty() => match (room, unread.pop_front()) {
                    (Ok(room), Some(answer)) => {
                        room.send(Ok(answer));
                        stalls_at = Instant::now() + STREAM_STALL;
                    }
                    // Nobody takes the answers any more.
                    _ => return,
                },
                () = draining.cancelled(), if ending.is_none() => ending = Some(Err(ApiError::draining())),
                request = inbound.message(), if reading => match request {
                    Ok(Some(request)) => {
                        let mut pending = self.begin(request).await;
                        // The first poll takes its place in the partition's queue: batches keep their order, and one
                        // that has to wait there holds up nobody else. Unconstrained, or it might not get that far.
                        if let Poll::Ready(answer) = futures::poll!(unconstrained(pending.as_mut())) {
                            pending = std::future::ready(answer).boxed();
                        }
                        in_flight.push(pending);
                    }
                    Ok(None) => ending = Some(Ok(())),
                    Err(status) => ending = Some(Err(ApiError::unreadable(&status))),
                },
                () = sleep_until(stalls_at), if !unread.is_empty() => return,
                else => break,
            }
        }
        if let Some(Err(error)) = ending {
            // A client that is gone doesn't need to hear why.
            let _ = self.answers.send_timeout(Err(error), STREAM_STALL).await;
        }
    }

    /// Checks a batch; what it returns submits it and waits for the answer.
    async fn begin(&self, request: v1::PublishStreamRequest) -> BoxFuture<'static, v1::PublishStreamResponse> {
        let sequence = request.sequence;
        match self.prepare(request).await {
            Ok(appended) => appended.map(move |outcome| response(sequence, outcome)).boxed(),
            Err(error) => std::future::ready(response(sequence, Err(error))).boxed(),
        }
    }

    async fn prepare(
        &self,
        request: v1::PublishStreamRequest,
    ) -> Result<BoxFuture<'static, Result<Appended, ApiError>>, ApiError> {
        self.front.accepting()?;
        let arrived = Instant::now();
        let bytes = request.batch.len();
        let permit = self.front.admission.admit(bytes)?;
        let partition = self.front.partition(TopicId::new(request.topic_id), request.partition).await?;
        let batch = append::check(request.batch, &partition)?;
        let command = append::command(&self.front, &batch);
        let routing = self.routing;
        let deadline = Deadline::after(REQUEST_TIME_MAX);
        let front = Arc::clone(&self.front);
        Ok(async move {
            let _permit = permit;
            let label = || partition.label();
            let outcome = async {
                let pending = front.router.submit(partition.target(), command, routing, deadline).await?;
                front.router.outcome(partition.group, pending).await
            };
            match deadline.limit(outcome).await {
                Ok(Ok(reply)) => {
                    front.metrics.appended(bytes, arrived.elapsed());
                    append::appended(reply)
                }
                Ok(Err(error)) => Err(front.route_error(error, &label(), routing)),
                Err(_) => {
                    let text = format!("{}: no quorum answered in time", label());
                    Err(ApiError::new(Reason::CommitUnknown, text))
                }
            }
        }
        .boxed())
    }
}

fn response(sequence: u64, outcome: Result<Appended, ApiError>) -> v1::PublishStreamResponse {
    let outcome = match outcome {
        Ok(appended) => {
            Outcome::Appended(v1::Appended { base_offset: appended.base_offset.get(), duplicate: appended.duplicate })
        }
        Err(error) => Outcome::Error(error.into_publish_error()),
    };
    v1::PublishStreamResponse { sequence, outcome: Some(outcome) }
}

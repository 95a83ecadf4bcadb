//! `PublisherService`: the unary call is here, the stream in `publish_stream`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures::future::join_all;
use futures::stream::BoxStream;
use quorate_model::{Appended, Codec, Reason, Record, RecordBatch, RecordBatchBuilder, TopicName, partition_for_key};
use quorate_proto::v1;
use quorate_proto::v1::publish_result::Outcome;
use quorate_proto::v1::publisher_service_server::PublisherService;
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use super::error::ApiError;
use super::{append, convert, publish_stream};
use crate::deadline::Deadline;
use crate::front::{Front, Partition};
use crate::limits::{BUILT_BATCH_BYTES, PUBLISH_MESSAGES_MAX};
use crate::router::Routing;

/// Serves publishers.
pub(crate) struct Publisher {
    front: Arc<Front>,
    /// Counts requests without key or partition: each goes, whole, to the next partition.
    turn: AtomicU32,
}

impl Publisher {
    pub(crate) fn new(front: Arc<Front>) -> Self {
        Self { front, turn: AtomicU32::new(fastrand::u32(..)) }
    }

    async fn publish_messages(&self, request: Request<v1::PublishRequest>) -> Result<v1::PublishResponse, ApiError> {
        self.front.accepting()?;
        let deadline = Deadline::of(request.metadata());
        let routing = Routing::of(request.metadata());
        let request = request.into_inner();
        check_count(request.messages.len())?;
        TopicName::parse(&request.topic)?;
        let topic = self.front.topic(&request.topic).await?;
        let partitions = Partition::all(&topic)?;
        let count = u32::try_from(partitions.len()).unwrap_or(u32::MAX);
        if let Some(named) = request.partition {
            Partition::of(&topic, named)?;
        }

        // Each message that is in order goes to its partition's share; the others have their result already.
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % count.max(1);
        let now_ms = self.front.env.wall_clock_ms();
        let mut results = vec![None; request.messages.len()];
        let mut shares: BTreeMap<u32, Vec<(usize, Record)>> = BTreeMap::new();
        for (position, message) in request.messages.into_iter().enumerate() {
            let record = convert::record(message, now_ms);
            let valid = record.and_then(|record| Ok(record.validate(topic.max_message_bytes).map(|()| record)?));
            let record = match valid {
                Ok(record) => record,
                Err(error) => {
                    results[position] = Some(failed(error));
                    continue;
                }
            };
            let partition = match request.partition {
                Some(named) => named,
                None if record.ordering_key.is_empty() => turn,
                None => partition_for_key(&record.ordering_key, count),
            };
            shares.entry(partition).or_default().push((position, record));
        }

        let appends = shares.into_iter().filter_map(|(index, share)| {
            let partition = partitions.get(usize::try_from(index).ok()?)?;
            Some(self.append_share(partition, share, routing, deadline))
        });
        for (position, outcome) in join_all(appends).await.into_iter().flatten() {
            results[position] = Some(v1::PublishResult { outcome: Some(outcome) });
        }
        let unanswered = || failed(ApiError::internal("the message was given to no partition"));
        let results = results.into_iter().map(|result| result.unwrap_or_else(unanswered)).collect();
        Ok(v1::PublishResponse { results })
    }

    /// Appends one partition's messages, batch after batch, so that they keep their order.
    async fn append_share(
        &self,
        partition: &Partition,
        share: Vec<(usize, Record)>,
        routing: Routing,
        deadline: Deadline,
    ) -> Vec<(usize, Outcome)> {
        let mut outcomes = Vec::with_capacity(share.len());
        for (positions, batch) in batches(partition, share) {
            let appended = match batch {
                Ok(batch) => self.append(partition, &batch, routing, deadline).await,
                Err(error) => Err(error),
            };
            for (nth, position) in (0_u64..).zip(positions) {
                outcomes.push((position, outcome(partition, nth, appended.clone())));
            }
        }
        outcomes
    }

    async fn append(
        &self,
        partition: &Partition,
        batch: &RecordBatch,
        routing: Routing,
        deadline: Deadline,
    ) -> Result<Appended, ApiError> {
        if deadline.expired() {
            return Err(ApiError::expired());
        }
        let arrived = Instant::now();
        let _permit = self.front.admission.admit(batch.len_bytes())?;
        let command = append::command(&self.front, batch);
        let reply = self.front.router.execute(partition.target(), command, routing, deadline).await;
        let reply = reply.map_err(|error| self.front.route_error(error, &partition.label(), routing))?;
        let appended = append::appended(reply)?;
        self.front.metrics.appended(batch.len_bytes(), arrived.elapsed());
        Ok(appended)
    }
}

#[tonic::async_trait]
impl PublisherService for Publisher {
    async fn publish(&self, request: Request<v1::PublishRequest>) -> Result<Response<v1::PublishResponse>, Status> {
        self.front.metrics.unary("Publish", self.publish_messages(request)).await
    }

    type PublishStreamStream = BoxStream<'static, Result<v1::PublishStreamResponse, Status>>;

    async fn publish_stream(
        &self,
        request: Request<Streaming<v1::PublishStreamRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        let opened = self.front.accepting().map(|()| publish_stream::serve(Arc::clone(&self.front), request));
        self.front.metrics.streaming("PublishStream", opened)
    }
}

fn check_count(messages: usize) -> Result<(), ApiError> {
    if messages == 0 {
        return Err(ApiError::new(Reason::EmptyBatch, "messages: a request needs at least one")
            .with("field", &"messages")
            .with("value", &0));
    }
    if messages > PUBLISH_MESSAGES_MAX {
        let text = format!("messages: {messages} in one request; the limit is {PUBLISH_MESSAGES_MAX}");
        return Err(ApiError::new(Reason::TooManyMessages, text)
            .with("field", &"messages")
            .with("value", &messages)
            .with("limit", &PUBLISH_MESSAGES_MAX));
    }
    Ok(())
}

/// Cuts a partition's messages into batches of about [`BUILT_BATCH_BYTES`], each with the positions that its
/// messages have in the request.
fn batches(partition: &Partition, share: Vec<(usize, Record)>) -> Vec<(Vec<usize>, Result<RecordBatch, ApiError>)> {
    let fresh = || (Vec::new(), RecordBatchBuilder::new(partition.id, Codec::None, None));
    let sealed =
        |(positions, builder): (Vec<usize>, RecordBatchBuilder)| (positions, builder.build().map_err(ApiError::from));
    let mut done = Vec::new();
    let mut open = fresh();
    for (position, record) in share {
        let (_, builder) = &open;
        if !builder.is_empty() && (builder.bytes_estimate() >= BUILT_BATCH_BYTES || !builder.has_room(&record)) {
            done.push(sealed(std::mem::replace(&mut open, fresh())));
        }
        match open.1.push(record) {
            Ok(()) => open.0.push(position),
            Err(error) => done.push((vec![position], Err(error.into()))),
        }
    }
    if !open.1.is_empty() {
        done.push(sealed(open));
    }
    done
}

/// The result of the batch's `nth` message.
fn outcome(partition: &Partition, nth: u64, appended: Result<Appended, ApiError>) -> Outcome {
    let placed = appended.and_then(|appended| {
        let offset = appended.base_offset.checked_add(nth);
        offset.ok_or_else(|| ApiError::internal("the offset leaves the number line"))
    });
    match placed {
        Ok(offset) => Outcome::Published(v1::Published {
            message_id: convert::message_id(partition.id, offset),
            partition: partition.id.index,
            offset: offset.get(),
        }),
        Err(error) => Outcome::Error(error.into_publish_error()),
    }
}

fn failed(error: ApiError) -> v1::PublishResult {
    v1::PublishResult { outcome: Some(Outcome::Error(error.into_publish_error())) }
}

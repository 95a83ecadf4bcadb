//! `ReaderService`: partitions' fetches, merged into one stream, as batches or as messages.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use futures::stream::{self, BoxStream, SelectAll, StreamExt, TryStreamExt};
use quorate_model::{Offset, PartitionId, Reason, TopicName};
use quorate_proto::v1;
use quorate_proto::v1::read_response::{Batch, Content, Deleted, EndOfPartition, Messages};
use quorate_proto::v1::reader_service_server::ReaderService;
use quorate_storage::StoredBatch;
use tonic::{Request, Response, Status};

use super::convert;
use super::error::ApiError;
use super::messages::records;
use crate::deadline::Deadline;
use crate::fetch::{Fetch, FetchOptions, Fetched, Start};
use crate::front::{Front, Partition};
use crate::limits::{PEER_QUESTIONS, READ_BYTES, READ_BYTES_MIN, READ_RESPONSE_BYTES};
use crate::router::Routing;

/// Serves readers.
pub(crate) struct Reader {
    front: Arc<Front>,
}

type Responses = BoxStream<'static, Result<v1::ReadResponse, ApiError>>;

impl Reader {
    pub(crate) fn new(front: Arc<Front>) -> Self {
        Self { front }
    }

    /// Finds every partition's position before the first record is sent, so that a position which can't be read
    /// fails the call and not the stream.
    async fn open(&self, request: Request<v1::ReadRequest>) -> Result<Responses, ApiError> {
        self.front.accepting()?;
        let deadline = Deadline::of(request.metadata());
        let routing = Routing::of(request.metadata());
        let request = request.into_inner();
        TopicName::parse(&request.topic)?;
        let consistency = convert::consistency(request.consistency)?;
        let default_start = convert::start(request.start, "start")?;
        let mut starts = named_starts(request.partitions, default_start)?;
        let topic = self.front.topic(&request.topic).await?;
        if starts.is_empty() {
            starts = (0..topic.partition_count()).map(|index| (index, default_start)).collect();
        }
        let bytes_max = READ_BYTES.checked_div(starts.len() as u64).unwrap_or(0).max(READ_BYTES_MIN);

        let partitions: Vec<(Partition, FetchOptions)> = starts
            .into_iter()
            .map(|(index, start)| {
                let options = FetchOptions {
                    start,
                    consistency,
                    reads: self.front.reads.clone(),
                    stop_at_end: request.stop_at_end,
                    bytes_max,
                    map: self.front.map.watch(),
                    draining: self.front.draining.clone(),
                };
                Ok((Partition::of(&topic, index)?, options))
            })
            .collect::<Result<_, ApiError>>()?;
        let fetches = stream::iter(partitions)
            .map(|(partition, options)| self.open_partition(partition, options, routing, deadline))
            .buffered(PEER_QUESTIONS)
            .try_collect::<Vec<_>>()
            .await?;
        let responses = fetches.into_iter().map(|(partition, fetch)| {
            if request.as_batches { as_batches(&partition, fetch) } else { as_messages(partition, fetch) }
        });
        Ok(responses.collect::<SelectAll<_>>().boxed())
    }

    async fn open_partition(
        &self,
        partition: Partition,
        options: FetchOptions,
        routing: Routing,
        deadline: Deadline,
    ) -> Result<(Partition, Fetch), ApiError> {
        let fetch = self.front.fetch(&partition, routing, deadline, &options).await?;
        Ok((partition, fetch))
    }
}

#[tonic::async_trait]
impl ReaderService for Reader {
    type ReadStream = BoxStream<'static, Result<v1::ReadResponse, Status>>;

    async fn read(&self, request: Request<v1::ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let opened = self.open(request).await;
        self.front.metrics.streaming("Read", opened)
    }
}

/// The positions of the partitions that the request names, each at most once.
fn named_starts(named: Vec<v1::PartitionPosition>, default: Start) -> Result<BTreeMap<u32, Start>, ApiError> {
    let mut starts = BTreeMap::new();
    for (position, named) in named.into_iter().enumerate() {
        let field = format!("partitions[{position}]");
        let start = match named.start {
            Some(start) => convert::start(Some(start), &format!("{field}.start"))?,
            None => default,
        };
        if starts.insert(named.partition, start).is_some() {
            let expected = "each partition once";
            return Err(ApiError::invalid(Reason::InvalidArgument, &field, &named.partition, expected));
        }
    }
    Ok(starts)
}

fn as_batches(partition: &Partition, fetch: Fetch) -> Responses {
    let PartitionId { topic, index } = partition.id;
    fetch
        .content
        .map_ok(move |fetched| match fetched {
            Fetched::End(end) => end_of(index, end),
            Fetched::Deleted(range) => deleted(index, &range),
            Fetched::Batch(StoredBatch { base_offset, batch, .. }) => response(Content::Batch(Batch {
                topic_id: topic.get(),
                partition: index,
                base_offset: base_offset.get(),
                batch,
            })),
        })
        .boxed()
}

fn as_messages(partition: Partition, fetch: Fetch) -> Responses {
    let Fetch { start, content } = fetch;
    content
        .map_ok(move |fetched| {
            let responses = match fetched {
                Fetched::End(end) => Ok(vec![end_of(partition.id.index, end)]),
                Fetched::Deleted(range) => Ok(vec![deleted(partition.id.index, &range)]),
                Fetched::Batch(stored) => messages(&partition, start, &stored),
            };
            stream::iter(match responses {
                Ok(responses) => responses.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            })
        })
        .try_flatten()
        .boxed()
}

/// A batch's messages from `start` on, in responses of bounded size.
fn messages(partition: &Partition, start: Offset, stored: &StoredBatch) -> Result<Vec<v1::ReadResponse>, ApiError> {
    let mut responses = Vec::new();
    let mut open = Messages::default();
    let mut open_bytes = 0;
    for (offset, record) in records(stored, partition.id)? {
        if offset < start {
            continue;
        }
        open_bytes += record.data.len();
        open.messages.push(convert::received_message(partition.topic.as_str(), partition.id, offset, record));
        if open_bytes >= READ_RESPONSE_BYTES {
            responses.push(response(Content::Messages(std::mem::take(&mut open))));
            open_bytes = 0;
        }
    }
    if !open.messages.is_empty() {
        responses.push(response(Content::Messages(open)));
    }
    Ok(responses)
}

fn end_of(partition: u32, end: Offset) -> v1::ReadResponse {
    response(Content::End(EndOfPartition { partition, end_offset: end.get() }))
}

fn deleted(partition: u32, range: &Range<Offset>) -> v1::ReadResponse {
    let (base_offset, end_offset) = (range.start.get(), range.end.get());
    response(Content::Deleted(Deleted { partition, base_offset, end_offset }))
}

fn response(content: Content) -> v1::ReadResponse {
    v1::ReadResponse { content: Some(content) }
}

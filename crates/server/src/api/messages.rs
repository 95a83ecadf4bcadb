//! `MessageService`: single messages of the log, for whoever looks one up or wants one gone.

mod list;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};
use quorate_model::limits::DELETIONS_MAX;
use quorate_model::{
    Executed, MessageId, Offset, PartitionCommand, PartitionId, Reason, Record, RecordBatch, Reply, TopicName,
};
use quorate_proto::v1;
use quorate_proto::v1::message_service_server::MessageService;
use quorate_storage::StoredBatch;
use tonic::{Request, Response, Status};

use super::convert;
use super::error::ApiError;
use super::positions::{start, targets};
use crate::deadline::Deadline;
use crate::fetch::{Fetched, Start, corrupt};
use crate::front::{Front, Partition};
use crate::limits::PEER_QUESTIONS;
use crate::router::Routing;

/// Serves those who care for single messages.
pub(crate) struct Messages {
    front: Arc<Front>,
}

impl Messages {
    pub(crate) fn new(front: Arc<Front>) -> Self {
        Self { front }
    }

    async fn get(&self, request: Request<v1::GetMessageRequest>) -> Result<v1::GetMessageResponse, ApiError> {
        let deadline = self.begin(&request)?;
        let text = request.into_inner().message_id;
        let id = message_id(&text, "message_id")?;
        let missing = || ApiError::new(Reason::MessageNotFound, format!("there is no message {text}"));
        let gone = |error: ApiError| match error.reason() {
            Reason::OffsetOutOfRange | Reason::TopicNotFound | Reason::PartitionNotFound => missing(),
            _ => error,
        };
        let partition = self.front.partition(id.topic, id.partition).await.map_err(gone)?;
        let options = self.front.to_the_end(Start::Offset(id.offset));
        let fetch = self.front.fetch(&partition, Routing::Forward, deadline, &options).await.map_err(gone)?;
        let mut content = fetch.content;
        let first = deadline.limit(content.try_next()).await.map_err(|_| ApiError::expired())?.map_err(gone)?;
        let Some(Fetched::Batch(stored)) = first else { return Err(missing()) };
        let found = records(&stored, partition.id)?.find(|(offset, _)| *offset == id.offset);
        let (offset, record) = found.ok_or_else(missing)?;
        let message = convert::received_message(partition.topic.as_str(), partition.id, offset, record);
        Ok(v1::GetMessageResponse { message: Some(message) })
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteMessagesRequest>,
    ) -> Result<v1::DeleteMessagesResponse, ApiError> {
        let deadline = self.begin(&request)?;
        let texts = request.into_inner().message_ids;
        if !(1..=DELETIONS_MAX).contains(&texts.len()) {
            let expected = format!("1 to {DELETIONS_MAX} ids");
            return Err(ApiError::invalid(Reason::InvalidArgument, "message_ids", &texts.len(), &expected)
                .with("limit", &DELETIONS_MAX));
        }
        let mut asked: BTreeMap<PartitionId, Vec<Range<Offset>>> = BTreeMap::new();
        for (position, text) in texts.iter().enumerate() {
            let id = message_id(text, &format!("message_ids[{position}]"))?;
            // The last offset of all is never used, and has none behind it.
            let end = id.offset.checked_add(1).unwrap_or(id.offset);
            asked.entry(id.partition_id()).or_default().push(id.offset..end);
        }
        let mut work = Vec::new();
        for (id, ranges) in asked {
            match self.front.partition(id.topic, id.index).await {
                Ok(partition) => work.push((partition, ranges)),
                Err(error) if matches!(error.reason(), Reason::TopicNotFound | Reason::PartitionNotFound) => {}
                Err(error) => return Err(error),
            }
        }
        let deleted = self.delete_all(work, deadline).await?;
        Ok(v1::DeleteMessagesResponse { deleted, absent: (texts.len() as u64).saturating_sub(deleted) })
    }

    async fn purge(&self, request: Request<v1::PurgeMessagesRequest>) -> Result<v1::PurgeMessagesResponse, ApiError> {
        let deadline = self.begin(&request)?;
        let v1::PurgeMessagesRequest { topic, before, partitions } = request.into_inner();
        let topic = self.front.topic(TopicName::parse(&topic)?.as_str()).await?;
        let whole = before.map_or(Ok(Start::Latest), |before| start(before, "before"))?;
        let targets = targets(Partition::all(&topic)?, Some(whole), partitions, ("before", "partitions"))?;
        let work = stream::iter(targets).map(|(partition, start)| async move {
            let end = self.front.offset_in(&partition, start, "before", deadline).await?;
            Ok::<_, ApiError>((partition, vec![Offset::ZERO..end]))
        });
        let work = work.buffered(PEER_QUESTIONS).try_collect().await?;
        Ok(v1::PurgeMessagesResponse { deleted: self.delete_all(work, deadline).await? })
    }

    /// How many were deleted, if every partition did as it was told; otherwise some may have.
    async fn delete_all(
        &self,
        work: Vec<(Partition, Vec<Range<Offset>>)>,
        deadline: Deadline,
    ) -> Result<u64, ApiError> {
        let one = work.len() == 1;
        let deletions = stream::iter(work)
            .map(|(partition, ranges)| async move { self.delete_in(&partition, ranges, deadline).await });
        let outcomes: Vec<Result<u64, ApiError>> = deletions.buffered(PEER_QUESTIONS).collect().await;
        let partly = |error: ApiError| if one { error } else { error.executed(Executed::Maybe) };
        outcomes.into_iter().sum::<Result<u64, ApiError>>().map_err(partly)
    }

    async fn delete_in(
        &self,
        partition: &Partition,
        ranges: Vec<Range<Offset>>,
        deadline: Deadline,
    ) -> Result<u64, ApiError> {
        let (command, label) = (PartitionCommand::Delete { ranges }.encode(), partition.label());
        let executed = self.front.router.execute(partition.target(), command, Routing::Forward, deadline).await;
        match executed.map_err(|error| self.front.route_error(error, &label, Routing::Forward))? {
            Reply::Deleted(Ok(deleted)) => Ok(deleted),
            Reply::Deleted(Err(rejected)) => {
                Err(ApiError::from(rejected).with("topic", &partition.topic).with("partition", &partition.id.index))
            }
            other => Err(ApiError::internal(format!("{label} answered a deletion with {other:?}"))),
        }
    }

    fn begin<T>(&self, request: &Request<T>) -> Result<Deadline, ApiError> {
        self.front.accepting()?;
        Ok(Deadline::of(request.metadata()))
    }
}

fn message_id(text: &str, field: &str) -> Result<MessageId, ApiError> {
    MessageId::parse(text).map_err(|error| ApiError::invalid(Reason::InvalidArgument, field, text, &error.to_string()))
}

/// A batch's records with their offsets. The checksum is verified once more: what leaves the broker as single messages has
/// nothing left that a client could verify.
pub(super) fn records(
    stored: &StoredBatch,
    partition: PartitionId,
) -> Result<impl Iterator<Item = (Offset, Record)> + use<>, ApiError> {
    let damaged = |error: quorate_model::BatchError| corrupt(stored.base_offset, &error.to_string());
    let batch = RecordBatch::decode(stored.batch.clone(), partition).map_err(damaged)?;
    let records = batch.records().map_err(damaged)?;
    if stored.base_offset.checked_add(records.len() as u64).is_none() {
        return Err(corrupt(stored.base_offset, "its offsets leave the number line"));
    }
    Ok((stored.base_offset.get()..).map(Offset::new).zip(records))
}

#[tonic::async_trait]
impl MessageService for Messages {
    async fn get_message(
        &self,
        request: Request<v1::GetMessageRequest>,
    ) -> Result<Response<v1::GetMessageResponse>, Status> {
        self.front.metrics.unary("GetMessage", self.get(request)).await
    }

    async fn list_messages(
        &self,
        request: Request<v1::ListMessagesRequest>,
    ) -> Result<Response<v1::ListMessagesResponse>, Status> {
        self.front.metrics.unary("ListMessages", self.list(request)).await
    }

    async fn delete_messages(
        &self,
        request: Request<v1::DeleteMessagesRequest>,
    ) -> Result<Response<v1::DeleteMessagesResponse>, Status> {
        self.front.metrics.unary("DeleteMessages", self.delete(request)).await
    }

    async fn purge_messages(
        &self,
        request: Request<v1::PurgeMessagesRequest>,
    ) -> Result<Response<v1::PurgeMessagesResponse>, Status> {
        self.front.metrics.unary("PurgeMessages", self.purge(request)).await
    }
}

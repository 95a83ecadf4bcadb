//! Messages that have something in common, in pages.

use futures::TryStreamExt;
use quorate_model::{Offset, Reason, Record, TopicName};
use quorate_proto::v1;
use tonic::Request;

use super::{Messages, records};
use crate::api::error::ApiError;
use crate::api::{convert, paging};
use crate::deadline::Deadline;
use crate::fetch::{Fetch, Fetched, Start};
use crate::filter::{Filter, Message};
use crate::front::Partition;
use crate::limits::{LIST_BYTES, LIST_LOOKED_AT_MAX};
use crate::router::Routing;

/// Tells page tokens from anything else that someone may pass.
const TOKEN_PREFIX: &str = "at:";

/// What is looked for.
struct Wanted {
    filter: Option<Filter>,
    ordering_key: String,
    before_ms: Option<u64>,
    without_data: bool,
}

/// A page on its way.
struct Page {
    room: usize,
    looked_at: usize,
    bytes: usize,
    messages: Vec<v1::ReceivedMessage>,
}

impl Messages {
    pub(super) async fn list(
        &self,
        request: Request<v1::ListMessagesRequest>,
    ) -> Result<v1::ListMessagesResponse, ApiError> {
        let deadline = self.begin(&request)?;
        let request = request.into_inner();
        let room = paging::size_of(request.page_size)?;
        let resume = resume(&request.page_token)?;
        let start = convert::start(request.start, "start")?;
        let topic = self.front.topic(TopicName::parse(&request.topic)?.as_str()).await?;
        let mut partitions = Partition::all(&topic)?;
        if !request.partitions.is_empty() {
            for index in &request.partitions {
                // An error if there is none.
                Partition::of(&topic, *index)?;
            }
            partitions.retain(|partition| request.partitions.contains(&partition.id.index));
        }
        if resume.is_some_and(|(index, _)| partitions.iter().all(|partition| partition.id.index != index)) {
            return Err(paging::invalid_token(&request.page_token));
        }
        let wanted = Wanted {
            filter: (!request.filter.is_empty()).then(|| Filter::compile(&request.filter)).transpose()?,
            ordering_key: request.ordering_key,
            before_ms: match request.end_time {
                Some(time) => Some(convert::time_ms(time, Reason::InvalidArgument, "end_time")?),
                None => None,
            },
            without_data: request.without_data,
        };
        let mut page = Page { room, looked_at: 0, bytes: 0, messages: Vec::new() };
        let reading = async {
            for partition in partitions {
                let fetch = match resume {
                    Some((index, _)) if partition.id.index < index => continue,
                    Some((index, next)) if partition.id.index == index => self.resume(&partition, next, deadline).await,
                    _ => self.open(&partition, start, deadline).await,
                };
                if let Some(next) = page.fill(fetch?, &partition, &wanted).await? {
                    return Ok(token(&partition, next));
                }
            }
            Ok::<_, ApiError>(String::new())
        };
        let next_page_token = deadline.limit(reading).await.map_err(|_| ApiError::expired())??;
        Ok(v1::ListMessagesResponse { messages: page.messages, next_page_token })
    }

    async fn open(&self, partition: &Partition, start: Start, deadline: Deadline) -> Result<Fetch, ApiError> {
        let options = self.front.to_the_end(start);
        self.front.fetch(partition, Routing::Forward, deadline, &options).await
    }

    /// Retention may have overtaken whoever turns pages.
    async fn resume(&self, partition: &Partition, next: Offset, deadline: Deadline) -> Result<Fetch, ApiError> {
        match self.open(partition, Start::Offset(next), deadline).await {
            Err(error) if error.reason() == Reason::OffsetOutOfRange => {
                let fetch = self.open(partition, Start::Earliest, deadline).await?;
                if fetch.start > next { Ok(fetch) } else { Err(paging::invalid_token(&token(partition, next))) }
            }
            other => other,
        }
    }
}

impl Wanted {
    fn includes(&self, partition: &Partition, offset: Offset, record: &Record) -> bool {
        let key = self.ordering_key.is_empty() || record.ordering_key == self.ordering_key.as_bytes();
        let time = self.before_ms.is_none_or(|before_ms| record.timestamp_ms < before_ms);
        let matches = |filter: &Filter| {
            let message = Message::new(partition.topic.as_str(), partition.id, offset, record);
            filter.matches(&message).unwrap_or_default()
        };
        key && time && self.filter.as_ref().is_none_or(matches)
    }
}

impl Page {
    /// Takes what is wanted of a partition; where the next page goes on, if this one is full.
    async fn fill(
        &mut self,
        Fetch { start, mut content }: Fetch,
        partition: &Partition,
        wanted: &Wanted,
    ) -> Result<Option<Offset>, ApiError> {
        while let Some(fetched) = content.try_next().await? {
            let Fetched::Batch(stored) = fetched else { continue };
            for (offset, record) in records(&stored, partition.id)?.filter(|(offset, _)| *offset >= start) {
                if self.is_full() {
                    return Ok(Some(offset));
                }
                self.looked_at += 1;
                tokio::task::consume_budget().await;
                if wanted.includes(partition, offset, &record) {
                    self.take(partition, offset, record, wanted.without_data);
                }
            }
        }
        Ok(None)
    }

    fn is_full(&self) -> bool {
        self.messages.len() >= self.room || self.looked_at >= LIST_LOOKED_AT_MAX || self.bytes >= LIST_BYTES
    }

    fn take(&mut self, partition: &Partition, offset: Offset, record: Record, without_data: bool) {
        let record = if without_data { Record { data: Default::default(), ..record } } else { record };
        let attributes: usize = record.attributes.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.bytes += record.data.len() + record.ordering_key.len() + attributes;
        self.messages.push(convert::received_message(partition.topic.as_str(), partition.id, offset, record));
    }
}

/// Where the next page goes on.
fn token(partition: &Partition, next: Offset) -> String {
    format!("{TOKEN_PREFIX}{}:{next}", partition.id.index)
}

/// The partition and offset where a page begins.
fn resume(token: &str) -> Result<Option<(u32, Offset)>, ApiError> {
    if token.is_empty() {
        return Ok(None);
    }
    let place = token.strip_prefix(TOKEN_PREFIX).and_then(|place| place.split_once(':'));
    let place = place.and_then(|(partition, offset)| Some((partition.parse().ok()?, offset.parse().ok()?)));
    let (partition, offset) = place.ok_or_else(|| paging::invalid_token(token))?;
    Ok(Some((partition, Offset::new(offset))))
}

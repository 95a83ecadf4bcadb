//! [`Messages`]: looks up, lists and deletes single messages.

use std::sync::Arc;

use quorate_model::limits::DELETIONS_MAX;
use quorate_proto::v1 as pb;
use quorate_proto::v1::message_service_client::MessageServiceClient;

use crate::ANSWER_BYTES_MAX;
use crate::call::call;
use crate::client::Client;
use crate::error::{Cause, ClientError};
use crate::message::ReceivedMessage;
use crate::reader::Start;
use crate::subscriber::received;

/// Single messages of the cluster's logs; from [`Client::messages`]. Whoever wants many reads them with a
/// [`Reader`](crate::Reader).
///
/// Every request is retried until the client's deadline; repeating one does no harm.
#[derive(Debug, Clone)]
pub struct Messages {
    client: Client,
}

/// Which messages [`Messages::list`] lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MessageQuery {
    /// The topic.
    pub topic: String,
    /// Only these partitions. Empty: all.
    pub partitions: Vec<u32>,
    /// Where to begin in each partition. Default [`Start::Earliest`].
    pub start: Option<Start>,
    /// Only what was published before, in ms since 1970.
    pub before_ms: Option<u64>,
    /// Only messages with this key. Empty: all.
    pub ordering_key: String,
    /// Only messages that match, in CEL as the filter of a subscription. Empty: all.
    pub filter: String,
    /// Leave `data` empty.
    pub without_data: bool,
}

/// Some of the messages that were asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MessagePage {
    /// May be empty although there are more.
    pub messages: Vec<ReceivedMessage>,
    /// For [`Messages::page`]; `None` on the last page.
    pub next: Option<String>,
}

/// What became of a deletion.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Deletion {
    /// Messages that are deleted now and weren't before. One whose answer was lost, and that was repeated, counts none.
    pub deleted: u64,
    /// Those that weren't there: deleted before, removed by retention, or never published.
    pub absent: u64,
}

impl Messages {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// One message.
    ///
    /// # Errors
    /// `MESSAGE_NOT_FOUND`; `INVALID_ARGUMENT` if that is no message's id.
    pub async fn get(&self, message_id: impl Into<String>) -> Result<ReceivedMessage, ClientError> {
        let request = pb::GetMessageRequest { message_id: message_id.into() };
        let response = call(self.client.router(), "GetMessage", |channel| {
            let request = request.clone();
            Box::pin(async move {
                let client = MessageServiceClient::new(channel);
                client.max_decoding_message_size(ANSWER_BYTES_MAX).get_message(request).await
            })
        });
        let message = response.await.into_result()?.message;
        present(message.ok_or_else(|| ClientError::new(Cause::Protocol, "the node answered without a message"))?)
    }

    /// All messages that were asked for, partition by partition, in the order of their offsets; at most `limit`.
    ///
    /// # Errors
    /// `TOPIC_NOT_FOUND`, `PARTITION_NOT_FOUND`, `INVALID_FILTER`; `NO_LEADER` while a partition has no leader.
    pub async fn list(&self, query: &MessageQuery, limit: usize) -> Result<Vec<ReceivedMessage>, ClientError> {
        let mut messages = Vec::new();
        let mut next = None;
        loop {
            let page = self.page(query, next).await?;
            messages.extend(page.messages);
            next = page.next;
            if messages.len() >= limit || next.is_none() {
                messages.truncate(limit);
                return Ok(messages);
            }
        }
    }

    /// Some of them, from where an earlier page ended.
    ///
    /// # Errors
    /// As [`Messages::list`]; `INVALID_PAGE_TOKEN`.
    pub async fn page(&self, query: &MessageQuery, next: Option<String>) -> Result<MessagePage, ClientError> {
        let request = pb::ListMessagesRequest {
            topic: query.topic.clone(),
            partitions: query.partitions.clone(),
            start: query.start.map(Start::to_wire),
            end_time: query.before_ms.map(crate::wire::timestamp),
            ordering_key: query.ordering_key.clone(),
            filter: query.filter.clone(),
            without_data: query.without_data,
            page_size: 1000,
            page_token: next.unwrap_or_default(),
        };
        let response = call(self.client.router(), "ListMessages", |channel| {
            let request = request.clone();
            Box::pin(async move {
                let client = MessageServiceClient::new(channel);
                client.max_decoding_message_size(ANSWER_BYTES_MAX).list_messages(request).await
            })
        });
        let pb::ListMessagesResponse { messages, next_page_token } = response.await.into_result()?;
        let messages = messages.into_iter().map(present).collect::<Result<_, _>>()?;
        Ok(MessagePage { messages, next: Some(next_page_token).filter(|token| !token.is_empty()) })
    }

    /// Deletes messages: no reader and no subscription gets them any more. One that isn't due yet is cancelled so. Their
    /// bytes leave the disks with the stretch of the log that they stand in, when retention removes it.
    ///
    /// # Errors
    /// `TOO_MANY_DELETED`; `INVALID_ARGUMENT` if something is no message's id. Some may be deleted even so.
    pub async fn delete(&self, message_ids: &[String]) -> Result<Deletion, ClientError> {
        let mut sum = Deletion::default();
        for some in message_ids.chunks(DELETIONS_MAX) {
            let request = pb::DeleteMessagesRequest { message_ids: some.to_vec() };
            let response = call(self.client.router(), "DeleteMessages", |channel| {
                let request = request.clone();
                Box::pin(async move { MessageServiceClient::new(channel).delete_messages(request).await })
            });
            let pb::DeleteMessagesResponse { deleted, absent } = response.await.into_result()?;
            sum = Deletion { deleted: sum.deleted + deleted, absent: sum.absent + absent };
        }
        Ok(sum)
    }

    /// Deletes everything before a position of each partition, or of those that are named; how many messages that were.
    /// With [`Start::Latest`] that is what is there when the request arrives, or when it is repeated.
    ///
    /// # Errors
    /// `TOPIC_NOT_FOUND`, `PARTITION_NOT_FOUND`, `OFFSET_OUT_OF_RANGE`. Some partitions may be purged even so.
    pub async fn purge(&self, topic: impl Into<String>, before: Start, partitions: &[u32]) -> Result<u64, ClientError> {
        let named = partitions.iter().map(|partition| pb::PartitionPosition { partition: *partition, start: None });
        let (before, partitions) = (Some(before.to_wire()), named.collect());
        let request = pb::PurgeMessagesRequest { topic: topic.into(), before, partitions };
        let response = call(self.client.router(), "PurgeMessages", |channel| {
            let request = request.clone();
            Box::pin(async move { MessageServiceClient::new(channel).purge_messages(request).await })
        });
        Ok(response.await.into_result()?.deleted)
    }
}

fn present(wire: pb::ReceivedMessage) -> Result<ReceivedMessage, ClientError> {
    received(&Arc::from(wire.topic.as_str()), wire)
}

//! [`Topics`]: creates, looks up, changes and deletes topics.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_model::Executed;
use quorate_proto::v1 as pb;
use quorate_proto::v1::topic_service_client::TopicServiceClient;

use crate::call::call;
use crate::client::Client;
use crate::error::{Cause, ClientError};
use crate::retry::Deadline;
use crate::wire::{request_id, wire_duration};

/// How long [`Topics::create`] waits for the new topic to appear in this client's map.
const APPEARANCE_MAX: Duration = Duration::from_secs(5);

/// The topics of a cluster; from [`Client::topics`].
///
/// Every request is retried until the client's deadline; a request that may have been carried out
/// without an answer is repeated in a way that can't do harm.
#[derive(Debug, Clone)]
pub struct Topics {
    client: Client,
}

/// What a new topic should be like. Defaults are the broker's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicSpec {
    /// `[A-Za-z][A-Za-z0-9._-]{0,248}`.
    pub name: String,
    /// 1 to 1,000. Default 1.
    pub partitions: Option<u32>,
    /// 1 to the number of nodes. Default 3 where there are 3 nodes, else 1.
    pub replication_factor: Option<u32>,
    /// What may be removed from the head of the log. Default 7 days.
    pub retention: Option<Retention>,
    /// Default 1 MiB, at most 16 MiB.
    pub max_message_bytes: Option<u64>,
    /// At most 64; keys and values at most 63 bytes.
    pub labels: BTreeMap<String, String>,
}

/// Bounds of a log; absent ones don't bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Oldest record.
    pub age: Option<Duration>,
    /// Size of each partition.
    pub bytes: Option<u64>,
    /// Records of each partition.
    pub messages: Option<u64>,
}

/// Changes to a topic; absent fields stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicUpdate {
    /// Replaces all bounds.
    pub retention: Option<Retention>,
    /// At most 16 MiB.
    pub max_message_bytes: Option<u64>,
    /// Replaces all labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// Fails with `ETAG_MISMATCH` if the topic was changed since this etag was read.
    pub etag: Option<String>,
}

/// A topic as the broker describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Topic {
    /// Unique in the cluster while the topic exists.
    pub name: String,
    /// Unique in the cluster for all time.
    pub topic_id: u64,
    /// Number of partitions.
    pub partitions: u32,
    /// Replicas of each partition.
    pub replication_factor: u32,
    /// What may be removed from the head of the log.
    pub retention: Retention,
    /// Largest message in bytes.
    pub max_message_bytes: u64,
    /// As given by its owner.
    pub labels: BTreeMap<String, String>,
    /// For [`TopicUpdate::etag`].
    pub etag: String,
    /// By partition; filled by [`Topics::get`] only.
    pub partition_status: Vec<PartitionStatus>,
}

/// One partition of a topic, as its leader describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartitionStatus {
    /// Partition number, from 0.
    pub partition: u32,
    /// `None` while there is no leader.
    pub leader: Option<u64>,
    /// Node ids; the first is the preferred leader.
    pub replicas: Vec<u64>,
    /// Offset of the oldest record kept.
    pub log_start_offset: u64,
    /// Offset that the next record will get.
    pub end_offset: u64,
    /// Size of the records kept.
    pub bytes: u64,
    /// Records between the offsets that were deleted.
    pub deleted_messages: u64,
    /// The leader didn't answer in time: offsets and bytes are unknown.
    pub unavailable: bool,
}

/// A new topic, and what its creator should know about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedTopic {
    /// As created.
    pub topic: Topic,
    /// Such as a replication factor of 1.
    pub warnings: Vec<String>,
}

impl Topics {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Creates a topic. Safe to retry: a request id makes a repeat answer with the topic of the first attempt.
    ///
    /// # Errors
    /// `TOPIC_EXISTS`, `INVALID_NAME`, `RESERVED_NAME`, `TOO_MANY_PARTITIONS`, `REPLICATION_FACTOR_TOO_HIGH`, …
    pub async fn create(&self, spec: TopicSpec) -> Result<CreatedTopic, ClientError> {
        let name = spec.name.clone();
        let request = pb::CreateTopicRequest { topic: Some(spec.into()), request_id: request_id() };
        let response = call(self.client.router(), "CreateTopic", |channel| {
            let request = request.clone();
            Box::pin(async move { TopicServiceClient::new(channel).create_topic(request).await })
        });
        let response = response.await.into_result()?;
        // So that a publisher made right after this finds the topic. If the map is late, it will wait by itself.
        let _ = self.client.find_by(&name, Deadline::after(APPEARANCE_MAX)).await;
        Ok(CreatedTopic { topic: present(response.topic)?, warnings: response.warnings })
    }

    /// The topic with the status of its partitions.
    ///
    /// # Errors
    /// `TOPIC_NOT_FOUND`.
    pub async fn get(&self, name: impl Into<String>) -> Result<Topic, ClientError> {
        let request = pb::GetTopicRequest { name: name.into() };
        let response = call(self.client.router(), "GetTopic", |channel| {
            let request = request.clone();
            Box::pin(async move { TopicServiceClient::new(channel).get_topic(request).await })
        });
        present(response.await.into_result()?.topic)
    }

    /// All topics, by name, without the status of their partitions.
    ///
    /// # Errors
    /// Only of the connection.
    pub async fn list(&self) -> Result<Vec<Topic>, ClientError> {
        let mut topics = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = pb::ListTopicsRequest { page_size: 1000, page_token };
            let response = call(self.client.router(), "ListTopics", |channel| {
                let request = request.clone();
                Box::pin(async move {
                    let client = TopicServiceClient::new(channel);
                    client.max_decoding_message_size(crate::ANSWER_BYTES_MAX).list_topics(request).await
                })
            });
            let response = response.await.into_result()?;
            topics.extend(response.topics.into_iter().map(Topic::from));
            page_token = response.next_page_token;
            if page_token.is_empty() {
                return Ok(topics);
            }
        }
    }

    /// Changes a topic.
    ///
    /// # Errors
    /// `TOPIC_NOT_FOUND`; `ETAG_MISMATCH`.
    pub async fn update(&self, name: impl Into<String>, update: TopicUpdate) -> Result<Topic, ClientError> {
        let request = update.into_request(name.into());
        let response = call(self.client.router(), "UpdateTopic", |channel| {
            let request = request.clone();
            Box::pin(async move { TopicServiceClient::new(channel).update_topic(request).await })
        });
        present(response.await.into_result()?.topic)
    }

    /// Deletes a topic with all its messages and subscriptions.
    ///
    /// # Errors
    /// `TOPIC_NOT_FOUND`; `TOPIC_IN_USE` if a subscription of another topic sends its dead letters there.
    pub async fn delete(&self, name: impl Into<String>) -> Result<(), ClientError> {
        let request = pb::DeleteTopicRequest { name: name.into(), request_id: request_id() };
        let answered = call(self.client.router(), "DeleteTopic", |channel| {
            let request = request.clone();
            Box::pin(async move { TopicServiceClient::new(channel).delete_topic(request).await })
        });
        answered.await.into_result().map(|_| ())
    }
}

fn present(topic: Option<pb::Topic>) -> Result<Topic, ClientError> {
    let missing = || ClientError::new(Cause::Protocol, "an answer without a topic").with_executed(Executed::Maybe);
    topic.map(Topic::from).ok_or_else(missing)
}

impl TopicSpec {
    /// A topic of this name with the broker's defaults.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }
}

impl From<TopicSpec> for pb::Topic {
    fn from(spec: TopicSpec) -> Self {
        Self {
            name: spec.name,
            partitions: spec.partitions,
            replication_factor: spec.replication_factor,
            retention: spec.retention.map(Into::into),
            max_message_bytes: spec.max_message_bytes.unwrap_or_default(),
            labels: spec.labels,
            ..Self::default()
        }
    }
}

impl TopicUpdate {
    fn into_request(self, name: String) -> pb::UpdateTopicRequest {
        let masked = [
            ("retention", self.retention.is_some()),
            ("max_message_bytes", self.max_message_bytes.is_some()),
            ("labels", self.labels.is_some()),
        ];
        let paths = masked.iter().filter(|(_, given)| *given).map(|(path, _)| (*path).to_owned()).collect();
        let topic = pb::Topic {
            name,
            retention: self.retention.map(Into::into),
            max_message_bytes: self.max_message_bytes.unwrap_or_default(),
            labels: self.labels.unwrap_or_default(),
            etag: self.etag.unwrap_or_default(),
            ..pb::Topic::default()
        };
        let update_mask = Some(prost_types::FieldMask { paths });
        pb::UpdateTopicRequest { topic: Some(topic), update_mask, request_id: request_id() }
    }
}

impl From<Retention> for pb::Retention {
    fn from(retention: Retention) -> Self {
        Self { age: retention.age.map(wire_duration), bytes: retention.bytes, messages: retention.messages }
    }
}

impl From<pb::Retention> for Retention {
    fn from(retention: pb::Retention) -> Self {
        // The broker never sends a negative age.
        let age = retention.age.and_then(|age| Duration::try_from(age).ok());
        Self { age, bytes: retention.bytes, messages: retention.messages }
    }
}

impl From<pb::Topic> for Topic {
    fn from(topic: pb::Topic) -> Self {
        Self {
            name: topic.name,
            topic_id: topic.topic_id,
            partitions: topic.partitions.unwrap_or_default(),
            replication_factor: topic.replication_factor.unwrap_or_default(),
            retention: topic.retention.map(Retention::from).unwrap_or_default(),
            max_message_bytes: topic.max_message_bytes,
            labels: topic.labels,
            etag: topic.etag,
            partition_status: topic.partition_status.into_iter().map(PartitionStatus::from).collect(),
        }
    }
}

impl From<pb::PartitionStatus> for PartitionStatus {
    fn from(status: pb::PartitionStatus) -> Self {
        Self {
            partition: status.partition,
            leader: (status.leader_node_id != 0).then_some(status.leader_node_id),
            replicas: status.replica_node_ids,
            log_start_offset: status.log_start_offset,
            end_offset: status.end_offset,
            bytes: status.bytes,
            deleted_messages: status.deleted_messages,
            unavailable: status.unavailable,
        }
    }
}

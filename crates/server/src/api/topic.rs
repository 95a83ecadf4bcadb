//! `TopicService`: commands to the metadata group, and what the partitions say of themselves.

use std::ops::Bound;
use std::sync::Arc;

use futures::stream::{self, StreamExt};
use quorate_model::limits::{MESSAGE_BYTES_DEFAULT, REPLICATION_FACTOR_DEFAULT};
use quorate_model::{Executed, MetaCommand, MetaReply, Reason, Retention, TopicName, TopicState};
use quorate_proto::internal::{GetOffsetsRequest, GetOffsetsResponse};
use quorate_proto::v1;
use quorate_proto::v1::topic_service_server::TopicService;
use tonic::{Request, Response, Status};

use super::convert;
use super::error::ApiError;
use super::paging::Paging;
use crate::deadline::Deadline;
use crate::front::{Front, Leader, Partition};
use crate::limits::{CREATE_POLL, CREATE_WAIT_MAX, PEER_QUESTION_TIME, PEER_QUESTIONS};
use crate::router::{LEADER_WAIT, Routing};

/// Serves owners of topics.
pub(crate) struct Topics {
    front: Arc<Front>,
}

impl Topics {
    pub(crate) fn new(front: Arc<Front>) -> Self {
        Self { front }
    }

    /// What to ask for when the caller leaves it open. A cluster is as large as it is meant to be, not as it is in
    /// its first seconds: voters count before they have registered, so that an early topic doesn't stay on one disk
    /// for ever. If they don't register in time, the create is refused. `None`: the nodes that have registered decide.
    async fn default_replication_factor(&self, deadline: Deadline) -> Option<u32> {
        let wanted = REPLICATION_FACTOR_DEFAULT as usize;
        if self.front.metadata_replicas.len() < wanted {
            return None;
        }
        let mut map = self.front.map.watch();
        let registered = map.wait_for(|map| map.nodes.len() >= wanted);
        // Whether they have registered or not: the metadata group checks.
        let _ = tokio::time::timeout(deadline.within(LEADER_WAIT).remaining(), registered).await;
        Some(REPLICATION_FACTOR_DEFAULT)
    }

    async fn create(&self, request: Request<v1::CreateTopicRequest>) -> Result<v1::CreateTopicResponse, ApiError> {
        let deadline = self.begin(&request)?;
        let v1::CreateTopicRequest { topic, request_id } = request.into_inner();
        let topic = topic.ok_or_else(|| ApiError::missing("topic"))?;
        let replication_factor = match topic.replication_factor {
            Some(asked) => Some(asked),
            None => self.default_replication_factor(deadline).await,
        };
        self.room_for(&topic, replication_factor)?;
        let command = MetaCommand::CreateTopic {
            time_ms: self.front.env.wall_clock_ms(),
            request_id,
            name: TopicName::parse(&topic.name)?,
            partitions: topic.partitions.unwrap_or(1),
            replication_factor,
            retention: topic.retention.map_or_else(|| Ok(Retention::default()), convert::retention)?,
            max_message_bytes: or_default(topic.max_message_bytes),
            labels: topic.labels,
        };
        let MetaReply::TopicCreated { topic: created, .. } = self.front.change(&command, deadline).await? else {
            return Err(ApiError::out_of_turn());
        };

        let mut warnings = Vec::new();
        if created.replication_factor == 1 {
            warnings.push(format!(
                "replication factor 1: when the node of a partition is down, so is the partition; \
                 {REPLICATION_FACTOR_DEFAULT} nodes or more make {REPLICATION_FACTOR_DEFAULT} the default"
            ));
        }
        let leaderless = self.wait_for_leaders(&created, deadline).await?;
        if !leaderless.is_empty() {
            warnings.push(format!("the topic exists, but has no leader yet in partitions {leaderless:?}"));
        }
        Ok(v1::CreateTopicResponse { topic: Some(convert::topic(&created)), warnings })
    }

    /// Whether the nodes have room for so many replicas more. Seen from the map of this moment: topics that are
    /// created at the same time may pass together. The bounds of the cluster are the metadata group's to check.
    fn room_for(&self, topic: &v1::Topic, replication_factor: Option<u32>) -> Result<(), ApiError> {
        let map = self.front.map.current();
        if map.topic(&topic.name).is_some() {
            // Perhaps the same create again: the metadata group knows.
            return Ok(());
        }
        let partitions = topic.partitions.unwrap_or(1);
        let held: usize =
            map.topics.values().flat_map(|topic| topic.partition_ids()).map(|(_, it)| it.replicas.len()).sum();
        // Voters count before they have registered, as they do for the replication factor.
        let nodes = map.nodes.len().max(self.front.metadata_replicas.len());
        let factor = replication_factor.unwrap_or(if nodes < REPLICATION_FACTOR_DEFAULT as usize {
            1
        } else {
            REPLICATION_FACTOR_DEFAULT
        });
        let asked = usize::try_from(u64::from(partitions) * u64::from(factor)).unwrap_or(usize::MAX);
        let limit = self.front.partitions_per_node;
        if held.saturating_add(asked) <= limit.saturating_mul(nodes) {
            return Ok(());
        }
        let text = format!(
            "partitions: {partitions} with {factor} replicas each; the {nodes} nodes hold {held} replicas, and \
             limits.partitions_per_node is {limit}"
        );
        Err(ApiError::new(Reason::TooManyPartitions, text)
            .with("field", &"partitions")
            .with("value", &partitions)
            .with("limit_name", &"limits.partitions_per_node")
            .with("limit", &limit))
    }

    async fn get(&self, request: Request<v1::GetTopicRequest>) -> Result<v1::GetTopicResponse, ApiError> {
        let deadline = self.begin(&request)?;
        let name = TopicName::parse(&request.get_ref().name)?;
        let state = self.front.topic(name.as_str()).await?;
        let status = stream::iter(Partition::all(&state)?)
            .map(|partition| async move { self.partition_status(&partition, deadline).await })
            .buffered(PEER_QUESTIONS)
            .collect()
            .await;
        Ok(v1::GetTopicResponse { topic: Some(v1::Topic { partition_status: status, ..convert::topic(&state) }) })
    }

    async fn list(&self, request: Request<v1::ListTopicsRequest>) -> Result<v1::ListTopicsResponse, ApiError> {
        self.begin(&request)?;
        let v1::ListTopicsRequest { page_size, page_token } = request.into_inner();
        let asked = Paging::<TopicName>::of(page_size, &page_token)?;
        let map = self.front.map.current();
        let rest = map.topics.range::<TopicName, _>((asked.from(), Bound::Unbounded)).map(|(_, topic)| topic);
        let (page, next_page_token) = asked.cut(rest, |topic| topic.name.clone());
        let topics = page.into_iter().map(|topic| convert::topic(topic)).collect();
        Ok(v1::ListTopicsResponse { topics, next_page_token })
    }

    async fn update(&self, request: Request<v1::UpdateTopicRequest>) -> Result<v1::UpdateTopicResponse, ApiError> {
        let deadline = self.begin(&request)?;
        let v1::UpdateTopicRequest { topic, update_mask, request_id } = request.into_inner();
        let topic = topic.ok_or_else(|| ApiError::missing("topic"))?;
        let mask = Mask::of(update_mask, &topic)?;
        let command = MetaCommand::UpdateTopic {
            request_id,
            name: TopicName::parse(&topic.name)?,
            etag: convert::etag(&topic.etag, "topic.etag")?,
            retention: mask.retention.then(|| convert::retention(topic.retention.unwrap_or_default())).transpose()?,
            max_message_bytes: mask.max_message_bytes.then(|| or_default(topic.max_message_bytes)),
            labels: mask.labels.then_some(topic.labels),
        };
        let MetaReply::TopicUpdated { topic } = self.front.change(&command, deadline).await? else {
            return Err(ApiError::out_of_turn());
        };
        Ok(v1::UpdateTopicResponse { topic: Some(convert::topic(&topic)) })
    }

    async fn delete(&self, request: Request<v1::DeleteTopicRequest>) -> Result<v1::DeleteTopicResponse, ApiError> {
        let deadline = self.begin(&request)?;
        let v1::DeleteTopicRequest { name, request_id } = request.into_inner();
        let command = MetaCommand::DeleteTopic { request_id, name: TopicName::parse(&name)? };
        let MetaReply::TopicDeleted { .. } = self.front.change(&command, deadline).await? else {
            return Err(ApiError::out_of_turn());
        };
        Ok(v1::DeleteTopicResponse {})
    }

    fn begin<T>(&self, request: &Request<T>) -> Result<Deadline, ApiError> {
        self.front.accepting()?;
        Ok(Deadline::of(request.metadata()))
    }

    /// Waits until every partition of a new topic is led; returns those that weren't in time. The topic exists in
    /// any case, so that running out of time is no failure.
    async fn wait_for_leaders(&self, topic: &TopicState, deadline: Deadline) -> Result<Vec<u32>, ApiError> {
        let deadline = deadline.within(CREATE_WAIT_MAX);
        let mut waiting = Partition::all(topic)?;
        while !deadline.expired() {
            let led: Vec<bool> = stream::iter(waiting.clone())
                .map(|partition| async move { self.is_led(&partition, deadline).await })
                .buffered(PEER_QUESTIONS)
                .collect()
                .await;
            let mut led = led.into_iter();
            waiting.retain(|_| !led.next().unwrap_or(false));
            if waiting.is_empty() {
                break;
            }
            tokio::time::sleep(CREATE_POLL.min(deadline.remaining())).await;
        }
        Ok(waiting.into_iter().map(|partition| partition.id.index).collect())
    }

    async fn is_led(&self, partition: &Partition, deadline: Deadline) -> bool {
        match self.front.router.groups().get(partition.group) {
            Some(local) => local.leadership().leader.is_some(),
            // Not here: only a leader answers this question.
            None => self.offsets(partition, deadline).await.is_ok(),
        }
    }

    async fn partition_status(&self, partition: &Partition, deadline: Deadline) -> v1::PartitionStatus {
        let offsets = self.offsets(partition, deadline).await;
        let leader = self.front.router.leader(partition.group);
        let known = offsets.as_ref().ok().copied().unwrap_or_default();
        v1::PartitionStatus {
            partition: partition.id.index,
            leader_node_id: leader.map_or(0, |leader| leader.node.get()),
            replica_node_ids: partition.replicas.iter().map(|replica| replica.node.get()).collect(),
            log_start_offset: known.log_start_offset,
            end_offset: known.end_offset,
            bytes: known.bytes,
            unavailable: offsets.is_err(),
            deleted_messages: known.deleted,
        }
    }

    /// What the partition's leader says of its log. Doesn't wait for an election: this is for people who look.
    async fn offsets(&self, partition: &Partition, deadline: Deadline) -> Result<GetOffsetsResponse, ApiError> {
        let deadline = deadline.within(PEER_QUESTION_TIME);
        let ask = |leader: Leader| async {
            match leader {
                Leader::Local(group) => Ok(super::node_service::offsets(&group)),
                Leader::Remote(leader, mut client) => {
                    let request = GetOffsetsRequest { group_id: partition.group.get() };
                    let answered = client.get_offsets(request).await;
                    let offsets = answered.map_err(|status| ApiError::from_peer(leader.node, &status))?.into_inner();
                    // Only a leader answers, so that a guess is now knowledge.
                    self.front.router.leaders().heard(partition.group, leader);
                    Ok(offsets)
                }
            }
        };
        self.front.ask_leader(partition, Routing::Forward, deadline, Executed::No, ask).await
    }
}

#[tonic::async_trait]
impl TopicService for Topics {
    async fn create_topic(
        &self,
        request: Request<v1::CreateTopicRequest>,
    ) -> Result<Response<v1::CreateTopicResponse>, Status> {
        self.front.metrics.unary("CreateTopic", self.create(request)).await
    }

    async fn get_topic(&self, request: Request<v1::GetTopicRequest>) -> Result<Response<v1::GetTopicResponse>, Status> {
        self.front.metrics.unary("GetTopic", self.get(request)).await
    }

    async fn list_topics(
        &self,
        request: Request<v1::ListTopicsRequest>,
    ) -> Result<Response<v1::ListTopicsResponse>, Status> {
        self.front.metrics.unary("ListTopics", self.list(request)).await
    }

    async fn update_topic(
        &self,
        request: Request<v1::UpdateTopicRequest>,
    ) -> Result<Response<v1::UpdateTopicResponse>, Status> {
        self.front.metrics.unary("UpdateTopic", self.update(request)).await
    }

    async fn delete_topic(
        &self,
        request: Request<v1::DeleteTopicRequest>,
    ) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        self.front.metrics.unary("DeleteTopic", self.delete(request)).await
    }
}

/// Which fields an update means.
struct Mask {
    retention: bool,
    max_message_bytes: bool,
    labels: bool,
}

impl Mask {
    /// Without a mask, every field that holds something is meant, as AIP-134 has it.
    fn of(mask: Option<prost_types::FieldMask>, topic: &v1::Topic) -> Result<Self, ApiError> {
        let Some(mask) = mask.filter(|mask| !mask.paths.is_empty()) else {
            return Ok(Self {
                retention: topic.retention.is_some(),
                max_message_bytes: topic.max_message_bytes != 0,
                labels: !topic.labels.is_empty(),
            });
        };
        let mut meant = Self { retention: false, max_message_bytes: false, labels: false };
        for path in mask.paths {
            match path.as_str() {
                "retention" => meant.retention = true,
                "max_message_bytes" => meant.max_message_bytes = true,
                "labels" => meant.labels = true,
                _ => {
                    let expected = "retention, max_message_bytes or labels; nothing else can be changed";
                    return Err(ApiError::invalid(Reason::InvalidArgument, "update_mask", &path, expected));
                }
            }
        }
        Ok(meant)
    }
}

fn or_default(max_message_bytes: u64) -> u64 {
    if max_message_bytes == 0 { MESSAGE_BYTES_DEFAULT } else { max_message_bytes }
}

//! `NodeService`: what other nodes ask of this one. Never forwards: whoever asks has used up the one hop.

use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt};
use quorate_consensus::RaftGroup;
use quorate_model::{GroupId, NodeId, Offset, PartitionId, Reason, ReplicaId, SubscriptionId, TopicId};
use quorate_proto::internal as wire;
use quorate_proto::internal::fetch_response::Content;
use quorate_proto::internal::node_service_server::NodeService;
use tonic::{Request, Response, Status, Streaming};

use super::error::ApiError;
use crate::fetch::{self, Consistency, FetchOptions, Fetched, Start};
use crate::front::Front;
use crate::leaders::known;
use crate::limits::{READ_BYTES_MIN, WATCH_PAUSE};
use crate::registration::{self, Registrant};

/// Serves other nodes.
pub(crate) struct NodeQuestions {
    front: Arc<Front>,
}

impl NodeQuestions {
    pub(crate) fn new(front: Arc<Front>) -> Self {
        Self { front }
    }

    pub(super) fn front(&self) -> &Front {
        &self.front
    }

    /// This node's replica of the group, if it leads.
    pub(super) fn led(&self, group: u64) -> Result<RaftGroup, ApiError> {
        self.front.accepting()?;
        let group = GroupId::new(group);
        let what = format!("group {group}");
        let local = self.front.router.groups().get(group).ok_or_else(|| ApiError::no_leader(&what))?;
        let leadership = local.leadership();
        if leadership.is_self {
            return Ok(local);
        }
        Err(match known(&leadership) {
            Some(leader) => ApiError::not_leader(&what, leader, &self.front.map.current()),
            None => ApiError::no_leader(&what),
        })
    }

    /// This node's replica of the group, whether it leads or not.
    fn held(&self, group: u64, what: &str) -> Result<RaftGroup, ApiError> {
        self.front.accepting()?;
        let held = self.front.router.groups().get(GroupId::new(group));
        held.ok_or_else(|| ApiError::no_replica(what, self.front.node, &[]))
    }

    async fn open_fetch(
        &self,
        request: wire::FetchRequest,
    ) -> Result<BoxStream<'static, Result<wire::FetchResponse, ApiError>>, ApiError> {
        let what = format!("topic {} partition {}", request.topic_id, request.partition);
        let (group, consistency) = if request.local {
            (self.held(request.group_id, &what)?, Consistency::Local)
        } else {
            (self.led(request.group_id)?, Consistency::Leader)
        };
        let options = FetchOptions {
            start: Start::from_wire(request.start),
            consistency,
            reads: self.front.reads.clone(),
            stop_at_end: request.stop_at_end,
            bytes_max: READ_BYTES_MIN,
            map: self.front.map.watch(),
            draining: self.front.draining.clone(),
        };
        let fetch = fetch::local(group, what, options).await?;
        let start = stream::iter([Ok(Content::StartOffset(fetch.start.get()))]);
        let content = fetch.content.map(|fetched| fetched.map(content));
        let responses = start.chain(content);
        Ok(responses.map(|content| Ok(wire::FetchResponse { content: Some(content?) })).boxed())
    }

    /// Takes a node into the cluster, or its new addresses.
    async fn take_in(&self, request: wire::RegisterRequest) -> Result<wire::RegisterResponse, ApiError> {
        self.front.accepting()?;
        if request.cluster != self.front.cluster {
            let text = format!("node {} belongs to another cluster, {:?}", request.node_id, request.cluster);
            return Err(ApiError::new(Reason::ClusterMismatch, text).with("cluster", &self.front.cluster));
        }
        let node = Registrant {
            id: NodeId::new(request.node_id),
            client_address: request.client_address,
            peer_address: request.peer_address,
            store_id: request.store_id,
        };
        let version = registration::propose(&self.front, node).await?;
        Ok(wire::RegisterResponse { version })
    }

    async fn subscription_status(
        &self,
        request: wire::GetSubscriptionStatusRequest,
    ) -> Result<wire::GetSubscriptionStatusResponse, ApiError> {
        let group = self.led(request.group_id)?;
        let partition = PartitionId::new(TopicId::new(request.topic_id), request.partition);
        let (subscription, start) = (SubscriptionId::new(request.subscription_id), Offset::new(request.start_offset));
        if request.snapshot {
            let snapshot = self.front.dispatch.snapshot(&group, &partition.to_string(), subscription, start).await?;
            return Ok(wire::GetSubscriptionStatusResponse { status: None, snapshot: snapshot.encode() });
        }
        let status = self.front.dispatch.status_in_depth(&group, partition, subscription, start).await;
        Ok(wire::GetSubscriptionStatusResponse { status: Some(status), snapshot: Default::default() })
    }

    async fn transfer(&self, request: wire::TransferLeaderRequest) -> Result<wire::TransferLeaderResponse, ApiError> {
        let group = self.led(request.group_id)?;
        let target = Some(request.target_replica_id).filter(|id| *id != 0).map(ReplicaId::new);
        let what = format!("group {}", group.id());
        let leader = group.transfer_leader(target).await.map_err(|error| ApiError::from_transfer(&error, &what))?;
        Ok(wire::TransferLeaderResponse { leader_replica_id: leader.get() })
    }
}

#[tonic::async_trait]
impl NodeService for NodeQuestions {
    type DispatchStream = BoxStream<'static, Result<wire::DispatchResponse, Status>>;

    async fn dispatch(
        &self,
        request: Request<Streaming<wire::DispatchRequest>>,
    ) -> Result<Response<Self::DispatchStream>, Status> {
        let opened = self.open_dispatch(request.into_inner()).await;
        self.front.metrics.streaming("Dispatch", opened)
    }

    async fn settle(&self, request: Request<wire::SettleRequest>) -> Result<Response<wire::SettleResponse>, Status> {
        let settling = self.settle_here(request.into_inner());
        self.front.metrics.unary("Settle", settling).await
    }

    type FetchStream = BoxStream<'static, Result<wire::FetchResponse, Status>>;

    async fn fetch(&self, request: Request<wire::FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let opened = self.open_fetch(request.into_inner()).await;
        self.front.metrics.streaming("Fetch", opened)
    }

    async fn get_offsets(
        &self,
        request: Request<wire::GetOffsetsRequest>,
    ) -> Result<Response<wire::GetOffsetsResponse>, Status> {
        let group = self.led(request.into_inner().group_id);
        self.front.metrics.unary("GetOffsets", async { Ok(offsets(&group?)) }).await
    }

    async fn get_subscription_status(
        &self,
        request: Request<wire::GetSubscriptionStatusRequest>,
    ) -> Result<Response<wire::GetSubscriptionStatusResponse>, Status> {
        self.front.metrics.unary("GetSubscriptionStatus", self.subscription_status(request.into_inner())).await
    }

    async fn transfer_leader(
        &self,
        request: Request<wire::TransferLeaderRequest>,
    ) -> Result<Response<wire::TransferLeaderResponse>, Status> {
        self.front.metrics.unary("NodeTransferLeader", self.transfer(request.into_inner())).await
    }

    async fn register(
        &self,
        request: Request<wire::RegisterRequest>,
    ) -> Result<Response<wire::RegisterResponse>, Status> {
        self.front.metrics.unary("Register", self.take_in(request.into_inner())).await
    }

    type WatchLeadersStream = BoxStream<'static, Result<wire::WatchLeadersResponse, Status>>;

    async fn watch_leaders(
        &self,
        _: Request<wire::WatchLeadersRequest>,
    ) -> Result<Response<Self::WatchLeadersStream>, Status> {
        let front = Arc::clone(&self.front);
        let draining = self.front.draining.clone().cancelled_owned();
        let changes = stream::unfold((front, self.front.router.leaders().watch(), true), |state| async move {
            let (front, mut leaders, first) = state;
            if !first {
                leaders.changed().await.ok()?;
                // Elections come in bursts: what changes within the pause is in the same answer.
                tokio::time::sleep(WATCH_PAUSE).await;
            }
            leaders.mark_unchanged();
            Some((Ok(led(&front)), (front, leaders, false)))
        });
        self.front.metrics.streaming("WatchLeaders", Ok(changes.take_until(draining).boxed()))
    }

    type WatchMapStream = BoxStream<'static, Result<wire::WatchMapResponse, Status>>;

    async fn watch_map(&self, _: Request<wire::WatchMapRequest>) -> Result<Response<Self::WatchMapStream>, Status> {
        let maps = tokio_stream::wrappers::WatchStream::new(self.front.map.watch());
        let draining = self.front.draining.clone().cancelled_owned();
        // Version 0 is the map of a node that hasn't heard of anything yet.
        let responses = maps
            .filter(|map| std::future::ready(map.version > 0))
            .map(|map| Ok(wire::WatchMapResponse { cluster_map: map.encode() }))
            .take_until(draining);
        self.front.metrics.streaming("WatchMap", Ok(responses.boxed()))
    }
}

/// Where a replica's log begins and ends, as far as it has been applied here.
pub(crate) fn offsets(group: &RaftGroup) -> wire::GetOffsetsResponse {
    let progress = group.progress();
    let now = progress.borrow();
    wire::GetOffsetsResponse {
        log_start_offset: Offset::get(now.log_start),
        end_offset: Offset::get(now.end),
        bytes: now.bytes,
        deleted: now.deleted,
    }
}

/// The groups that this node leads.
fn led(front: &Front) -> wire::WatchLeadersResponse {
    let groups = front.router.groups().list().into_iter().filter_map(|group| {
        let now = group.leadership();
        now.is_self.then(|| wire::LedGroup {
            group_id: group.id().get(),
            replica_id: group.replica().get(),
            term: now.term,
        })
    });
    wire::WatchLeadersResponse { groups: groups.collect() }
}

fn content(fetched: Fetched) -> Content {
    match fetched {
        Fetched::End(end) => Content::EndOffset(end.get()),
        Fetched::Deleted(range) => {
            let (base_offset, end_offset) = (range.start.get(), range.end.get());
            Content::Deleted(wire::FetchDeleted { base_offset, end_offset })
        }
        Fetched::Batch(stored) => {
            Content::Batch(wire::FetchBatch { base_offset: stored.base_offset.get(), batch: stored.batch })
        }
    }
}

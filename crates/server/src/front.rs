//! What every service of the front door shares.

use std::sync::Arc;

use quorate_consensus::{Admission, Env, RaftGroup};
use quorate_model::{
    Executed, GroupId, MetaCommand, MetaReply, NodeId, PartitionId, Replica, ReplicaId, Reply, SubscriptionInfo,
    TopicId, TopicName, TopicState,
};
use tokio_util::sync::CancellationToken;

use crate::api::error::ApiError;
use crate::config::Voter;
use crate::deadline::Deadline;
use crate::dispatch::Dispatch;
use crate::fetch::{self, Consistency, Fetch, FetchOptions};
use crate::leaders::KnownLeader;
use crate::map::MapView;
use crate::metrics::Metrics;
use crate::peers::{PeerClient, Peers, Traffic};
use crate::reads::Reads;
use crate::router::{LEADER_POLL, LEADER_WAIT, Route, RouteError, Router, Routing, Target};

/// One per node, behind an `Arc`.
pub(crate) struct Front {
    pub(crate) cluster: String,
    pub(crate) node: NodeId,
    /// Where the metadata group has its replicas.
    pub(crate) metadata_replicas: Vec<Replica>,
    pub(crate) env: Arc<dyn Env>,
    pub(crate) map: MapView,
    pub(crate) router: Router,
    pub(crate) peers: Peers,
    pub(crate) admission: Admission,
    pub(crate) reads: Reads,
    pub(crate) dispatch: Dispatch,
    /// Replicas that a node is meant to hold.
    pub(crate) partitions_per_node: usize,
    pub(crate) metrics: Arc<Metrics>,
    /// Cancelled when the node begins to shut down.
    pub(crate) draining: CancellationToken,
}

/// A partition that exists, with what is needed to reach it.
#[derive(Clone)]
pub(crate) struct Partition {
    pub(crate) id: PartitionId,
    pub(crate) group: GroupId,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) topic: TopicName,
    /// The topic's bound.
    pub(crate) max_message_bytes: u64,
}

/// Where the leader of a partition is.
pub(crate) enum Leader {
    /// Here.
    Local(RaftGroup),
    /// On another node, or at least it should know better.
    Remote(KnownLeader, PeerClient),
}

impl Front {
    /// Refuses work while the node shuts down.
    pub(crate) fn accepting(&self) -> Result<(), ApiError> {
        if self.draining.is_cancelled() { Err(ApiError::draining()) } else { Ok(()) }
    }

    /// The metadata group as a target of commands.
    pub(crate) fn metadata(&self) -> Target<'_> {
        Target { group: GroupId::METADATA, replicas: &self.metadata_replicas }
    }

    /// The topic of that name.
    pub(crate) async fn topic(&self, name: &str) -> Result<Arc<TopicState>, ApiError> {
        self.map.topic(name).await.ok_or_else(|| ApiError::topic_not_found(name))
    }

    /// The subscription of that name.
    pub(crate) async fn subscription(&self, name: &str) -> Result<Arc<SubscriptionInfo>, ApiError> {
        let found = self.map.find(|map| map.subscription(name).cloned()).await;
        found.ok_or_else(|| ApiError::subscription_not_found(name))
    }

    /// A partition of the topic with that id.
    pub(crate) async fn partition(&self, topic: TopicId, index: u32) -> Result<Partition, ApiError> {
        // Copies one partition out of the map, not its whole topic: publishing asks this of every batch.
        let found = self.map.find(|map| map.topic_by_id(topic).map(|state| Partition::of(state, index))).await;
        found.unwrap_or_else(|| Err(ApiError::topic_not_found(&topic)))
    }

    /// Has the metadata group carry out a command, wherever it is led: there is no hint to be had.
    pub(crate) async fn change(&self, command: &MetaCommand, deadline: Deadline) -> Result<MetaReply, ApiError> {
        let executed = self.router.execute(self.metadata(), command.encode(), Routing::Forward, deadline).await;
        match executed.map_err(|error| self.route_error(error, "the metadata group", Routing::Forward))? {
            Reply::Meta(outcome) => outcome.map_err(ApiError::from),
            Reply::Partition(_)
            | Reply::LogStart(_)
            | Reply::Subscription(_)
            | Reply::Released(_)
            | Reply::Deleted(_)
            | Reply::Seeked(_) => Err(ApiError::out_of_turn()),
            Reply::Refused(why) => Err(ApiError::internal(format!("the metadata group can't read the command: {why}"))),
        }
    }

    /// What became of a command to this group, as an error for the caller.
    pub(crate) fn route_error(&self, error: RouteError, what: &str, routing: Routing) -> ApiError {
        ApiError::route(error, what, routing, &self.map.current())
    }

    /// Finds the partition's leader and asks it. While `Forward` allows it, an election is waited for: whoever
    /// doesn't lead has done nothing, so that the question can be put again. `unanswered` is whether a question
    /// that isn't answered before the deadline may have had an effect.
    pub(crate) async fn ask_leader<T, A: Future<Output = Result<T, ApiError>>>(
        &self,
        partition: &Partition,
        routing: Routing,
        deadline: Deadline,
        unanswered: Executed,
        ask: impl Fn(Leader) -> A,
    ) -> Result<T, ApiError> {
        let answer_by = deadline.within(LEADER_WAIT);
        let mut attempt = 0;
        loop {
            let answered = match self.leader(partition, routing, attempt) {
                Ok(leader) => deadline.limit(ask(leader)).await.map_err(|_| ApiError::unanswered(unanswered))?,
                Err(error) => Err(error),
            };
            match answered {
                Err(error) if error.is_about_leadership() => {
                    if self.map.current().tombstones.contains(&partition.group) {
                        return Err(ApiError::topic_not_found(&partition.topic));
                    }
                    // Whoever was asked doesn't lead: the report that led there is stale.
                    if self.router.groups().get(partition.group).is_none() {
                        self.router.leaders().forget(partition.group);
                    }
                    if routing == Routing::Direct || answer_by.remaining() <= LEADER_POLL {
                        return Err(error);
                    }
                }
                other => return other,
            }
            attempt += 1;
            tokio::time::sleep(LEADER_POLL).await;
        }
    }

    /// Opens a fetch at the partition's leader, or at any replica if that will do.
    pub(crate) async fn fetch(
        &self,
        partition: &Partition,
        routing: Routing,
        deadline: Deadline,
        options: &FetchOptions,
    ) -> Result<Fetch, ApiError> {
        if options.consistency == Consistency::Local {
            let opening = self.fetch_anywhere(partition, routing, options);
            return deadline.limit(opening).await.map_err(|_| ApiError::unanswered(Executed::No))?;
        }
        self.ask_leader(partition, routing, deadline, Executed::No, |leader| async {
            match leader {
                Leader::Local(group) => fetch::local(group, partition.label(), options.clone()).await,
                Leader::Remote(leader, _) => {
                    let client = self.peers.client(leader.node, Traffic::Records);
                    let client = client.ok_or_else(|| ApiError::no_leader(&partition.label()))?;
                    fetch::remote(leader.node, client, fetch_request(partition, options), &options.reads).await
                }
            }
        })
        .await
    }

    /// Opens a fetch at this node's replica, or at the first that answers of the others, the leader's last.
    async fn fetch_anywhere(
        &self,
        partition: &Partition,
        routing: Routing,
        options: &FetchOptions,
    ) -> Result<Fetch, ApiError> {
        if let Some(group) = self.router.groups().get(partition.group) {
            return fetch::local(group, partition.label(), options.clone()).await;
        }
        if routing == Routing::Direct {
            return Err(ApiError::no_replica(&partition.label(), self.node, &partition.replicas));
        }
        let leader = self.router.leader(partition.group).map(|leader| leader.node);
        let mut nodes: Vec<NodeId> = partition.replicas.iter().map(|replica| replica.node).collect();
        fastrand::shuffle(&mut nodes);
        nodes.sort_by_key(|node| Some(*node) == leader);
        let mut last = ApiError::no_leader(&partition.label());
        for node in nodes.into_iter().filter(|node| *node != self.node) {
            let Some(client) = self.peers.client(node, Traffic::Records) else { continue };
            match fetch::remote(node, client, fetch_request(partition, options), &options.reads).await {
                Err(error) if error.is_about_replicas() => last = error,
                other => return other,
            }
        }
        Err(last)
    }

    fn leader(&self, partition: &Partition, routing: Routing, attempt: usize) -> Result<Leader, ApiError> {
        match self.router.route(partition.target(), attempt) {
            None => Err(ApiError::no_leader(&partition.label())),
            Some(Route::Local(group)) => Ok(Leader::Local(group)),
            Some(Route::Remote(leader)) if routing == Routing::Direct => {
                Err(ApiError::not_leader(&partition.label(), leader, &self.map.current()))
            }
            Some(Route::Remote(leader)) => match self.peers.client(leader.node, Traffic::Questions) {
                Some(client) => Ok(Leader::Remote(leader, client)),
                None => Err(ApiError::no_leader(&partition.label())),
            },
        }
    }
}

fn fetch_request(partition: &Partition, options: &FetchOptions) -> quorate_proto::internal::FetchRequest {
    quorate_proto::internal::FetchRequest {
        group_id: partition.group.get(),
        topic_id: partition.id.topic.get(),
        partition: partition.id.index,
        start: Some(options.start.to_wire()),
        stop_at_end: options.stop_at_end,
        local: options.consistency == Consistency::Local,
    }
}

impl Partition {
    /// A partition of a topic.
    pub(crate) fn of(topic: &TopicState, index: u32) -> Result<Self, ApiError> {
        let state = topic.partition(index);
        let state = state.ok_or_else(|| ApiError::partition_not_found(&topic.name, index, topic.partition_count()))?;
        Ok(Self {
            id: PartitionId::new(topic.id, index),
            group: state.group,
            replicas: state.replicas.clone(),
            topic: topic.name.clone(),
            max_message_bytes: topic.max_message_bytes,
        })
    }

    /// All partitions of a topic.
    pub(crate) fn all(topic: &TopicState) -> Result<Vec<Self>, ApiError> {
        (0..topic.partition_count()).map(|index| Self::of(topic, index)).collect()
    }

    /// `topic/index`, for messages to people.
    pub(crate) fn label(&self) -> String {
        format!("{}/{}", self.topic, self.id.index)
    }

    /// The partition as a target of commands.
    pub(crate) fn target(&self) -> Target<'_> {
        Target { group: self.group, replicas: &self.replicas }
    }
}

/// The replicas of the metadata group: their ids are their nodes' numbers.
pub(crate) fn metadata_replicas(voters: &[Voter]) -> Vec<Replica> {
    voters.iter().map(|voter| Replica { id: ReplicaId::of_metadata_voter(voter.node), node: voter.node }).collect()
}

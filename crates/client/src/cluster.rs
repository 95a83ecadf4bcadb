//! [`Cluster`]: the cluster map, the health of nodes, leadership.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use futures::{Stream, StreamExt as _};
use quorate_model::NodeId;
use quorate_proto::v1 as pb;
use quorate_proto::v1::cluster_service_client::ClusterServiceClient;
use tokio_stream::wrappers::WatchStream;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::call::call;
use crate::client::Client;
use crate::error::{Cause, ClientError};
use crate::retry::Deadline;
use crate::routing::ClusterView;

/// The health service's name for "ready to serve requests".
const READY: &str = "quorate.ready";

/// The cluster; from [`Client::cluster`].
#[derive(Debug, Clone)]
pub struct Cluster {
    client: Client,
}

/// What one node says about itself, or why it doesn't.
#[derive(Debug, Clone)]
pub struct NodeHealth {
    /// As in the cluster map.
    pub node_id: u64,
    /// Where it was asked, `host:port`.
    pub address: String,
    /// How it is.
    pub status: HealthStatus,
}

/// See [`NodeHealth`].
#[derive(Debug, Clone)]
pub enum HealthStatus {
    /// Serves requests.
    Ready,
    /// Runs, but doesn't serve requests yet or any more.
    NotReady,
    /// Gave no answer to this client; other nodes may well reach it.
    Unreachable(ClientError),
}

impl Cluster {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Asks a node for the cluster map.
    ///
    /// # Errors
    /// Why no node answered within the client's deadline.
    pub async fn get(&self) -> Result<Arc<ClusterView>, ClientError> {
        let router = self.client.router();
        let response = call(router, "GetCluster", |channel| {
            Box::pin(async move {
                let client = ClusterServiceClient::new(channel);
                client.max_decoding_message_size(crate::ANSWER_BYTES_MAX).get_cluster(pb::GetClusterRequest {}).await
            })
        });
        let map = response.await.into_result()?.cluster;
        router.merge(map.ok_or_else(|| ClientError::new(Cause::Protocol, "an answer without a cluster map"))?)?;
        Ok(router.view())
    }

    /// The cluster map as this client knows it: at once if it has one, then after every change.
    pub fn watch(&self) -> impl Stream<Item = Arc<ClusterView>> + Send + Unpin + use<> {
        let client = self.client.clone();
        let views = WatchStream::new(client.router().watch_view());
        // The closure holds the client, so that the map is followed as long as somebody watches.
        views.filter(move |view| {
            let _ = &client;
            std::future::ready(view.version > 0 || !view.cluster.is_empty())
        })
    }

    /// Waits until the map fulfils a condition.
    ///
    /// # Errors
    /// `DEADLINE_EXCEEDED` after `timeout`.
    pub async fn wait_for(
        &self,
        timeout: Duration,
        condition: impl Fn(&ClusterView) -> bool,
    ) -> Result<Arc<ClusterView>, ClientError> {
        let mut views = pin!(self.watch().filter(|view| std::future::ready(condition(view))));
        match tokio::time::timeout(timeout, views.next()).await {
            Ok(Some(view)) => Ok(view),
            _ => Err(ClientError::deadline(
                "the cluster didn't reach the awaited state in time",
                quorate_model::Executed::No,
            )),
        }
    }

    /// Hands the leadership of a partition to another of its replicas; `None`: the most caught-up one.
    /// Returns the new leader.
    ///
    /// # Errors
    /// `TOPIC_NOT_FOUND`, `PARTITION_NOT_FOUND`, `NODE_NOT_FOUND`, or why the leader refused.
    pub async fn transfer_leader(
        &self,
        topic: impl Into<String>,
        partition: u32,
        target: Option<NodeId>,
    ) -> Result<NodeId, ClientError> {
        let target_node_id = target.map_or(0, NodeId::get);
        let request = pb::TransferLeaderRequest { topic: topic.into(), partition, target_node_id };
        let response = call(self.client.router(), "TransferLeader", |channel| {
            let request = request.clone();
            Box::pin(async move { ClusterServiceClient::new(channel).transfer_leader(request).await })
        });
        Ok(NodeId::new(response.await.into_result()?.leader_node_id))
    }

    /// Asks every node of the map how it is, all at once, each for at most `timeout`.
    ///
    /// # Errors
    /// Why no node could be asked for the cluster map; a single node that doesn't answer is no error.
    pub async fn health(&self, timeout: Duration) -> Result<Vec<NodeHealth>, ClientError> {
        let view = self.client.first_view(Deadline::after(self.client.router().retry().total)).await?;
        let checks = view.nodes.iter().map(|(node, known)| async {
            let status = self.check(&known.address, timeout).await;
            NodeHealth { node_id: node.get(), address: known.address.clone(), status }
        });
        Ok(join_all(checks).await)
    }

    async fn check(&self, address: &str, timeout: Duration) -> HealthStatus {
        let asked = async {
            let connection = self.client.router().connection_to(address).await;
            HealthClient::new(connection.channel).check(HealthCheckRequest { service: READY.to_owned() }).await
        };
        match tokio::time::timeout(timeout, asked).await {
            Ok(Ok(response)) if response.get_ref().status() == ServingStatus::Serving => HealthStatus::Ready,
            Ok(Ok(_)) => HealthStatus::NotReady,
            Ok(Err(status)) => HealthStatus::Unreachable(ClientError::from_status(&status)),
            Err(_) => HealthStatus::Unreachable(ClientError::new(
                Cause::Unreachable,
                format!("no answer from {address} within {timeout:?}"),
            )),
        }
    }
}

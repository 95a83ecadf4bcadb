//! [`Watcher`]: keeps a `WatchCluster` stream open to one reachable node, a home of the client.

use std::sync::{Arc, Weak};
use std::time::Duration;

use quorate_model::Reason;
use quorate_proto::v1 as pb;
use quorate_proto::v1::cluster_service_client::ClusterServiceClient;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tonic::Streaming;
use tracing::{debug, warn};

use super::router::Router;
use crate::connection::Connection;
use crate::error::{Cause, ClientError};
use crate::retry::{Backoff, RetrySettings};

/// A node that was just chosen gets this long to tell something new before complaints move the client on.
const HOME_MIN: Duration = Duration::from_secs(1);

/// Holds the router only for moments: the router ends with its last user, and its watcher with it.
pub(super) struct Watcher {
    router: Weak<Router>,
    backoff: Backoff,
    attempt: Duration,
    links: watch::Receiver<u64>,
    stale: Arc<Notify>,
    last: Option<Arc<str>>,
}

impl Watcher {
    pub(super) fn new(
        router: Weak<Router>,
        retry: RetrySettings,
        links: watch::Receiver<u64>,
        stale: Arc<Notify>,
    ) -> Self {
        Self { router, backoff: Backoff::new(retry), attempt: retry.attempt, links, stale, last: None }
    }

    /// Ends with the router.
    pub(super) async fn run(mut self) {
        loop {
            self.links.mark_unchanged();
            let Some(home) = self.router.upgrade().map(|router| router.take_home(self.last.as_ref())) else { return };
            let Some(home) = home else {
                if self.links.changed().await.is_err() {
                    return;
                }
                continue;
            };
            self.last = Some(Arc::clone(&home.address));
            let ended = self.follow(&home).await;
            let Some(router) = self.router.upgrade() else { return };
            router.leave_home(&home.address, ended.as_ref().err().cloned());
            let Err(error) = ended else { continue };
            debug!(?home, %error, "lost a source of the cluster map");
            if error.is_transport() {
                router.suspect(&home);
            }
            drop(router);
            tokio::time::sleep(self.backoff.after(&error)).await;
        }
    }

    /// Follows the map of one node until the stream fails, or until another node is asked for.
    async fn follow(&mut self, home: &Connection) -> Result<(), ClientError> {
        let opened = Instant::now();
        let mut answers = self.open(home).await?;
        loop {
            let answer = tokio::select! {
                answer = answers.message() => answer,
                () = self.stale.notified() => {
                    if opened.elapsed() > HOME_MIN {
                        return Ok(());
                    }
                    continue;
                }
            };
            let answer = answer.map_err(|status| ClientError::from_status(&status))?;
            let answer = answer.ok_or_else(|| ClientError::known(Reason::Draining, "the node ended the watch"))?;
            let (Some(map), Some(router)) = (answer.cluster, self.router.upgrade()) else { continue };
            router.merge(map).inspect_err(|error| warn!(?home, %error, "node of another cluster"))?;
            router.settle_home(&home.address);
            self.backoff.reset();
        }
    }

    async fn open(&self, home: &Connection) -> Result<Streaming<pb::WatchClusterResponse>, ClientError> {
        let mut client =
            ClusterServiceClient::new(home.channel.clone()).max_decoding_message_size(crate::ANSWER_BYTES_MAX);
        match tokio::time::timeout(self.attempt, client.watch_cluster(pb::WatchClusterRequest {})).await {
            Ok(response) => Ok(response.map_err(|status| ClientError::from_status(&status))?.into_inner()),
            Err(_) => {
                Err(ClientError::new(Cause::ConnectionLost, "the node didn't answer the request for the cluster map"))
            }
        }
    }
}

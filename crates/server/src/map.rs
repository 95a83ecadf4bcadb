//! The cluster map of this node: one watch, replaced whole, fed by the node's own replica of the metadata group
//! or, on nodes that hold none, by a voter's `WatchMap`.

use std::sync::Arc;
use std::time::Duration;

use quorate_consensus::RaftGroup;
use quorate_model::{ClusterMap, NodeId, TopicState};
use quorate_proto::internal::WatchMapRequest;
use tokio::sync::watch;
use tracing::{debug, warn};

use crate::deadline::Deadline;
use crate::limits::{MAP_CATCH_UP, RETRY_PAUSE};
use crate::peers::{Peers, Traffic};

/// The newest map that this node has.
#[derive(Clone)]
pub(crate) struct MapView {
    newest: watch::Receiver<Arc<ClusterMap>>,
}

impl MapView {
    pub(crate) fn new(newest: watch::Receiver<Arc<ClusterMap>>) -> Self {
        Self { newest }
    }

    pub(crate) fn current(&self) -> Arc<ClusterMap> {
        Arc::clone(&self.newest.borrow())
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Arc<ClusterMap>> {
        self.newest.clone()
    }

    /// The topic of that name. One that is missing is waited for, shortly.
    pub(crate) async fn topic(&self, name: &str) -> Option<Arc<TopicState>> {
        self.find(|map| map.topic(name).cloned()).await
    }

    /// The map once it is of this version or a later one; `None` if it isn't in time.
    pub(crate) async fn reaching(&self, version: u64, deadline: Deadline) -> Option<Arc<ClusterMap>> {
        let mut newest = self.newest.clone();
        let reached = newest.wait_for(|map| map.version >= version);
        let map = deadline.limit(reached).await.ok()?.ok()?;
        Some(Arc::clone(&map))
    }

    /// Looks `what` up in the newest map; if it is missing, in those of the next quarter second too, because
    /// another node may have answered the request that made it before its map reached this node.
    pub(crate) async fn find<T>(&self, what: impl Fn(&ClusterMap) -> Option<T>) -> Option<T> {
        if let Some(found) = what(&self.newest.borrow()) {
            return Some(found);
        }
        let mut newest = self.newest.clone();
        let appears = newest.wait_for(|map| what(map).is_some());
        let map = tokio::time::timeout(MAP_CATCH_UP, appears).await.ok()?.ok()?;
        what(&map)
    }
}

/// Where the map comes from.
pub(crate) enum MapSource {
    /// This node holds the metadata group.
    OwnGroup(RaftGroup),
    /// Others do: the voters, by id.
    Voters(Vec<NodeId>, Peers),
}

impl MapSource {
    /// The map that was on this node's disk; an empty one where there is none.
    pub(crate) fn recovered(&self) -> Arc<ClusterMap> {
        let maps = match self {
            Self::OwnGroup(group) => group.cluster_map(),
            Self::Voters(..) => None,
        };
        maps.map(|maps| Arc::clone(&maps.borrow())).unwrap_or_default()
    }
}

/// Publishes every newer map that the source has, for as long as the node runs.
pub(crate) async fn follow(source: MapSource, publish: Arc<watch::Sender<Arc<ClusterMap>>>) {
    match source {
        MapSource::OwnGroup(group) => {
            let Some(mut maps) = group.cluster_map() else { return };
            loop {
                let map = Arc::clone(&maps.borrow_and_update());
                publish_newer(&publish, map);
                if maps.changed().await.is_err() {
                    return;
                }
            }
        }
        MapSource::Voters(voters, peers) => follow_voters(&voters, &peers, &publish).await,
    }
}

/// Watches one voter until its stream breaks, then the next. A voter that lags behind is harmless: an older
/// map never replaces a newer one.
async fn follow_voters(voters: &[NodeId], peers: &Peers, publish: &watch::Sender<Arc<ClusterMap>>) {
    let mut pause = RETRY_PAUSE.start;
    // Nodes that start together shouldn't all lean on the first voter.
    for voter in voters.iter().cycle().skip(fastrand::usize(..voters.len().max(1))) {
        match watch_voter(*voter, peers, publish).await {
            Ok(()) => pause = RETRY_PAUSE.start,
            Err(why) => {
                debug!(%voter, why, "cluster map not available from voter");
                pause = (pause * 2).min(RETRY_PAUSE.end);
            }
        }
        tokio::time::sleep(jittered(pause)).await;
    }
}

/// The map that a voter has now.
pub(crate) async fn ask_voter(voter: NodeId, peers: &Peers) -> Option<ClusterMap> {
    let mut maps = peers.client(voter, Traffic::Questions)?.watch_map(WatchMapRequest {}).await.ok()?.into_inner();
    let response = maps.message().await.ok()??;
    ClusterMap::decode(&response.cluster_map).ok()
}

/// `Ok` if at least one map came before the stream ended.
async fn watch_voter(voter: NodeId, peers: &Peers, publish: &watch::Sender<Arc<ClusterMap>>) -> Result<(), String> {
    let mut client = peers.client(voter, Traffic::Questions).ok_or("no usable address")?;
    let response = client.watch_map(WatchMapRequest {}).await.map_err(|status| status.to_string())?;
    let mut maps = response.into_inner();
    let mut got_one = false;
    loop {
        match maps.message().await {
            Ok(Some(response)) => match ClusterMap::decode(&response.cluster_map) {
                Ok(map) => {
                    got_one = true;
                    publish_newer(publish, Arc::new(map));
                }
                Err(error) => {
                    warn!(%voter, %error, "cluster map can't be decoded");
                    return Err(error.to_string());
                }
            },
            Ok(None) if got_one => return Ok(()),
            Ok(None) => return Err("stream ended before a map came".to_owned()),
            Err(_) if got_one => return Ok(()),
            Err(status) => return Err(status.to_string()),
        }
    }
}

fn publish_newer(publish: &watch::Sender<Arc<ClusterMap>>, map: Arc<ClusterMap>) {
    publish.send_if_modified(|newest| {
        let newer = map.version > newest.version;
        if newer {
            *newest = map;
        }
        newer
    });
}

/// Between half of `pause` and all of it.
pub(crate) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + fastrand::f64() / 2.0)
}

//! [`Router`]: answers "over which connection?" for every request of a client.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_model::Reason;
use quorate_proto::v1 as pb;
use tokio::sync::{Notify, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::metadata::MetadataValue;

use super::choice::{Way, Ways};
use super::view::{ClusterView, LeaderHint, Leadership, TopicRef};
use super::watcher::Watcher;
use crate::connection::{Connection, Links};
use crate::error::{Cause, ClientError};
use crate::retry::{Deadline, RetrySettings};

/// Asks the broker to refuse with a hint instead of forwarding.
const ROUTING_KEY: &str = "quorate-routing";
const ROUTING_DIRECT: &str = "direct";

/// Whether the node at the other end is meant to serve the request itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RoutingMode {
    /// It leads: it should answer `NOT_LEADER` if that has changed.
    Direct,
    /// It passes the request on to the leader.
    Forwarded,
}

/// One way to serve a request.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    pub(crate) connection: Connection,
    pub(crate) mode: RoutingMode,
    /// Who is believed to lead the partition, however it is reached.
    pub(crate) leadership: Leadership,
}

/// Nodes whose maps are followed at the same time: if one stands still, the other tells who took over.
const HOMES: usize = 2;

#[derive(Default)]
struct Homes {
    /// At most [`HOMES`], each kept by its watcher.
    taken: Vec<Home>,
    /// Why the last one was lost.
    lost: Option<ClientError>,
}

struct Home {
    address: Arc<str>,
    /// It has sent its map.
    settled: bool,
}

/// The one cluster map of a client, and the connections to the nodes in it.
pub(crate) struct Router {
    view: watch::Sender<Arc<ClusterView>>,
    links: Links,
    /// Addresses that the caller gave: always worth a try, whatever the map says.
    bootstrap: Vec<Arc<str>>,
    homes: Mutex<Homes>,
    stale: Arc<Notify>,
    retry: RetrySettings,
    _ends_watchers: DropGuard,
}

impl Router {
    /// Starts to connect and to follow the cluster map, on the current tokio runtime.
    pub(crate) fn start(bootstrap: Vec<Arc<str>>, links: Links, retry: RetrySettings) -> Arc<Self> {
        let stop = CancellationToken::new();
        let stale = Arc::new(Notify::new());
        let router = Arc::new(Self {
            view: watch::Sender::new(Arc::default()),
            links,
            bootstrap,
            homes: Mutex::default(),
            stale: Arc::clone(&stale),
            retry,
            _ends_watchers: stop.clone().drop_guard(),
        });
        for _ in 0..HOMES {
            let links = router.links.changes();
            let watcher = Watcher::new(Arc::downgrade(&router), retry, links, Arc::clone(&stale));
            tokio::spawn(stop.clone().run_until_cancelled_owned(watcher.run()));
        }
        router
    }

    /// What is known now.
    pub(crate) fn view(&self) -> Arc<ClusterView> {
        Arc::clone(&self.view.borrow())
    }

    pub(crate) fn watch_view(&self) -> watch::Receiver<Arc<ClusterView>> {
        self.view.subscribe()
    }

    /// Wakes whenever a different route may have become possible.
    pub(crate) fn watch_routes(&self) -> RouteChanges {
        RouteChanges { view: self.view.subscribe(), links: self.links.changes() }
    }

    pub(crate) fn retry(&self) -> RetrySettings {
        self.retry
    }

    /// The best way to a partition's leader at this moment.
    pub(crate) fn partition(&self, topic: &TopicRef, partition: u32) -> Option<Route> {
        let view = self.view();
        let leadership = view.leadership(topic, partition);
        let leader = leadership.node.and_then(|node| view.address(node));
        self.choose(&view, leader, leadership)
    }

    /// A way to one of a partition's replicas, preferably one that doesn't lead; another one with each `attempt`. The
    /// node there passes the request on if it turns out to hold none.
    pub(crate) fn replica(&self, topic: &TopicRef, partition: u32, attempt: u32) -> Option<Route> {
        let view = self.view();
        let leadership = view.leadership(topic, partition);
        let mut holders = view.replicas(topic, partition);
        holders.sort_by_key(|node| Some(*node) == leadership.node);
        if let Some(first) = (attempt as usize).checked_rem(holders.len()) {
            holders.rotate_left(first);
        }
        let addresses: Vec<&str> = holders.into_iter().filter_map(|node| view.address(node)).collect();
        // All are asked about before choosing, because asking is what dials them.
        let up: Vec<Connection> = addresses.iter().filter_map(|address| self.links.connection(address)).collect();
        match up.into_iter().next() {
            Some(connection) => Some(Route { connection, mode: RoutingMode::Forwarded, leadership }),
            None => self.any(),
        }
    }

    /// Whether the node at this address leads the partition, as far as is known.
    pub(crate) fn is_leader(&self, topic: &TopicRef, partition: u32, address: &str) -> bool {
        let view = self.view();
        view.leadership(topic, partition).node.and_then(|node| view.address(node)) == Some(address)
    }

    /// Any node: for requests that every node serves or forwards.
    pub(crate) fn any(&self) -> Option<Route> {
        self.choose(&self.view(), None, Leadership::default())
    }

    /// Waits until a node is reachable, or fails with the reasons why none is.
    pub(crate) async fn any_by(&self, deadline: Deadline) -> Result<Route, ClientError> {
        let mut changes = self.watch_routes();
        loop {
            if let Some(route) = self.any() {
                return Ok(route);
            }
            if tokio::time::timeout_at(deadline.instant(), changes.changed()).await.is_err() {
                return Err(self.nothing_reachable());
            }
        }
    }

    /// The connection to this address, as soon as it stands.
    pub(crate) async fn connection_to(&self, address: &str) -> Connection {
        let mut changes = self.watch_routes();
        loop {
            if let Some(connection) = self.links.connection(address) {
                return connection;
            }
            changes.changed().await;
        }
    }

    /// Learns from an error of a partition's leader, and sees to a fresher map where that may help.
    pub(crate) fn learn(&self, route: &Route, topic: &TopicRef, partition: u32, error: &ClientError) {
        if error.is_transport() {
            self.links.suspect(&route.connection);
        }
        if error.is(Reason::NotLeader) {
            self.update_view(|view| match LeaderHint::from_metadata(error.metadata()) {
                Some(hint) => view.hinted(topic, partition, &hint),
                None if route.mode == RoutingMode::Direct => view.denied(topic, partition, route.leadership.node?),
                None => None,
            });
        }
    }

    /// The map seems to lag behind: follow another node's, if another can be reached.
    pub(crate) fn refresh(&self) {
        self.stale.notify_one();
    }

    pub(crate) fn suspect(&self, connection: &Connection) {
        self.links.suspect(connection);
    }

    pub(crate) fn nothing_reachable(&self) -> ClientError {
        let down = self.links.describe_down();
        // A node that can be reached but won't tell the map says why.
        let lost = self.homes().lost.clone().filter(|error| down.is_empty() || !error.retryable());
        let unreachable =
            || ClientError::new(Cause::Unreachable, format!("no node of the cluster can be reached: {down}"));
        lost.unwrap_or_else(unreachable)
    }

    /// Takes over an answer of a node. An error says that the node belongs to another cluster.
    pub(crate) fn merge(&self, answer: pb::ClusterMap) -> Result<(), ClientError> {
        let mut outcome = Ok(());
        self.update_view(|view| match view.merged(answer) {
            Ok(merged) => Some(merged),
            Err(error) => {
                outcome = Err(error);
                None
            }
        });
        let view = self.view();
        self.links
            .retain(|address| self.is_bootstrap(address) || view.nodes.values().any(|node| node.address == address));
        outcome
    }

    /// A node for a watcher to follow, which is its own until it leaves it; `last` only if there is no other.
    pub(super) fn take_home(&self, last: Option<&Arc<str>>) -> Option<Connection> {
        let view = self.view();
        let candidates = self.addresses(&view);
        let after_last =
            last.and_then(|last| candidates.iter().position(|address| **address == **last)).map_or(0, |at| at + 1);
        let (before, after) = candidates.split_at(after_last);
        // All candidates are asked about before choosing, because asking is what dials them.
        let up = after.iter().chain(before).filter_map(|address| self.links.connection(address)).collect::<Vec<_>>();
        let mut homes = self.homes();
        let home = up.into_iter().find(|candidate| homes.taken.iter().all(|home| home.address != candidate.address))?;
        homes.taken.push(Home { address: Arc::clone(&home.address), settled: false });
        Some(home)
    }

    pub(super) fn settle_home(&self, address: &str) {
        if let Some(home) = self.homes().taken.iter_mut().find(|home| *home.address == *address) {
            home.settled = true;
        }
    }

    pub(super) fn leave_home(&self, address: &str, why: Option<ClientError>) {
        let mut homes = self.homes();
        homes.taken.retain(|home| *home.address != *address);
        homes.lost = why;
    }

    fn choose(&self, view: &ClusterView, leader: Option<&str>, leadership: Leadership) -> Option<Route> {
        let home = self.homes().taken.iter().find(|home| home.settled).map(|home| Arc::clone(&home.address));
        let ways = Ways { leader, home: home.as_deref(), others: &self.addresses(view) };
        let (address, mode) = match ways.choose(|address| self.links.is_up(address))? {
            Way::Direct(address) => (address, RoutingMode::Direct),
            Way::Forwarded(address) => (address, RoutingMode::Forwarded),
        };
        let connection = self.links.connection(address)?;
        Some(Route { connection, mode, leadership })
    }

    fn addresses<'a>(&'a self, view: &'a ClusterView) -> Vec<&'a str> {
        let mapped =
            view.nodes.values().map(|node| node.address.as_str()).filter(|address| !self.is_bootstrap(address));
        self.bootstrap.iter().map(|address| &**address).chain(mapped).collect()
    }

    fn is_bootstrap(&self, address: &str) -> bool {
        self.bootstrap.iter().any(|candidate| **candidate == *address)
    }

    fn homes(&self) -> MutexGuard<'_, Homes> {
        self.homes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update_view(&self, update: impl FnOnce(&ClusterView) -> Option<ClusterView>) {
        self.view.send_if_modified(|view| match update(view) {
            Some(newer) if newer != **view => {
                *view = Arc::new(newer);
                true
            }
            _ => false,
        });
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Router").field("bootstrap", &self.bootstrap).finish_non_exhaustive()
    }
}

impl Route {
    /// A request with the metadata that this way asks for.
    pub(crate) fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        if self.mode == RoutingMode::Direct {
            request.metadata_mut().insert(ROUTING_KEY, MetadataValue::from_static(ROUTING_DIRECT));
        }
        request
    }
}

/// See [`Router::watch_routes`].
#[derive(Debug)]
pub(crate) struct RouteChanges {
    view: watch::Receiver<Arc<ClusterView>>,
    links: watch::Receiver<u64>,
}

impl RouteChanges {
    /// Never resolves again once the router is gone.
    pub(crate) async fn changed(&mut self) {
        let changed = tokio::select! {
            changed = self.view.changed() => changed,
            changed = self.links.changed() => changed,
        };
        if changed.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

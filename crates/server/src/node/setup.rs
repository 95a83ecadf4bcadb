//! The ordered list of what a node consists of.

use std::sync::Arc;
use std::time::Duration;

use quorate_consensus::{AdmissionLimits, Env, GroupSpec, GroupsConfig, Listener, RaftGroups};
use quorate_model::sabotage::{Bug, is_planted};
use quorate_model::{ClusterMap, GroupId, MachineKind, Reason, ReplicaId};
use quorate_storage::{NodeIdentity, Storage, TailCacheLimits};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic_health::ServingStatus;
use tracing::info;

use super::failure::{Alarm, NodeFailure};
use super::{Addresses, Node, Probe, Runtimes, StartError};
use crate::api::{self, Ending, ServeError};
use crate::config::Config;
use crate::dispatch::Dispatch;
use crate::endings::Endings;
use crate::front::{Front, metadata_replicas};
use crate::hearsay;
use crate::identity;
use crate::leaders::LeaderBook;
use crate::map::{self, MapSource, MapView};
use crate::metrics::Metrics;
use crate::metrics::listener::MetricsListener;
use crate::peers::Peers;
use crate::readiness::{READY_SERVICE, Readiness};
use crate::reads::Reads;
use crate::reconcile::{self, Reconciler};
use crate::registration::{self, Registrant};
use crate::retention::Retainer;
use crate::router::Router;

/// Sets up a node, step by step; a failure takes down what the earlier steps set up.
pub(super) async fn start(env: Arc<dyn Env>, config: Config, runtimes: Runtimes) -> Result<Node, StartError> {
    let metrics = Arc::new(Metrics::new()?);
    let storage = env.open_storage(&config.node.data_dir).await?;
    metrics.observe_storage(&storage);
    let started = start_on(env, config, runtimes, metrics, storage.clone()).await;
    if started.is_err() {
        // So that the folder is free for whoever tries next.
        storage.close().await;
    }
    started
}

async fn start_on(
    env: Arc<dyn Env>,
    config: Config,
    runtimes: Runtimes,
    metrics: Arc<Metrics>,
    storage: Storage,
) -> Result<Node, StartError> {
    let identity = identity::settle(&storage, &config).await?;
    storage.limit_tail_caches(config.limits.tail_cache_bytes);
    let listeners = Listeners::bind(&env, &config).await?;
    let groups = RaftGroups::new(
        groups_config(&config, &identity),
        Arc::clone(&env),
        storage.clone(),
        runtimes.consensus.clone(),
    )?;

    let draining = CancellationToken::new();
    let newest_map = Arc::new(watch::Sender::new(Arc::new(ClusterMap::default())));
    let leaders = LeaderBook::new();
    let router = Router::new(config.node.id, groups.clone(), leaders.clone());
    let front = Arc::new(Front {
        cluster: config.cluster.name.clone(),
        node: config.node.id,
        metadata_replicas: metadata_replicas(&config.cluster.voters),
        map: MapView::new(newest_map.subscribe()),

        peers: Peers::new(Arc::clone(&env), &config.cluster.voters),
        dispatch: Dispatch::new(
            Arc::clone(&env),
            newest_map.subscribe(),
            router.clone(),
            Arc::clone(&metrics),
            draining.clone(),
        ),
        router,
        env,
        admission: groups.admission().clone(),
        reads: Reads::new(&config.limits),
        partitions_per_node: config.limits.partitions_per_node,
        metrics,
        draining: draining.clone(),
    });
    let readiness = Readiness::new(draining.clone());
    let addresses = listeners.addresses(&config);
    let parts = Parts {
        config: &config,
        runtimes: &runtimes,
        front: &front,
        groups: &groups,
        stopping: CancellationToken::new(),
        front_tasks: TaskTracker::new(),
        tasks: TaskTracker::new(),
        alarm: Alarm::new(),
    };

    parts.watch_for_failures(&storage);
    let source = parts.open_metadata_group().await?;
    parts.meet_peers(&source);
    if is_planted(Bug::UnmentionedDataDeleted) {
        let map = Arc::clone(&newest_map.borrow());
        let mentioned: Vec<ReplicaId> = map.replicas_on(config.node.id).map(|local| local.replica).collect();
        let metadata = ReplicaId::of_metadata_voter(config.node.id);
        for replica in storage.list_replicas().await.unwrap_or_default() {
            if replica != metadata && !mentioned.contains(&replica) {
                let _ = storage.destroy_replica(replica).await;
            }
        }
    }
    parts.background(map::follow(source, newest_map));
    parts.background(
        Reconciler {
            node: config.node.id,
            groups: groups.clone(),
            leaders,
            peers: front.peers.clone(),
            voters: config.cluster.voters.clone(),
            map: front.map.watch(),
            readiness: readiness.clone(),
            tasks: parts.tasks.clone(),
            stopping: parts.stopping.clone(),
        }
        .run(),
    );
    parts.background(Endings { groups: groups.clone(), map: front.map.watch() }.run());
    let env = Arc::clone(&front.env);
    parts.background(Retainer { groups: groups.clone(), map: front.map.watch(), env }.run());
    parts.background(hearsay::listen(Arc::clone(&front), parts.tasks.clone()));
    let probe = Probe { front: Arc::clone(&front), storage: storage.clone(), readiness: readiness.clone() };
    parts.serve(listeners, probe, &readiness).await;
    parts.register(&addresses, &identity, readiness.clone());
    info!(node = %config.node.id, cluster = config.cluster.name, client = addresses.client, peer = addresses.peer, "node started");

    let Parts { stopping, front_tasks, tasks, alarm, .. } = parts;
    Ok(Node {
        addresses,
        groups,
        storage,
        readiness,
        draining,
        stopping,
        front_tasks,
        tasks,
        failure: alarm.watch(),
        drain_time: Duration::from_millis(config.limits.drain_ms),
    })
}

/// The bound sockets: before anything is promised to other nodes, the addresses must be ours.
struct Listeners {
    client: Listener,
    peer: Listener,
    metrics: Option<MetricsListener>,
}

impl Listeners {
    async fn bind(env: &Arc<dyn Env>, config: &Config) -> Result<Self, StartError> {
        let failed = |setting, address: &str| {
            let address = address.to_owned();
            move |source| StartError::Listen { setting, address, source }
        };
        let listen = &config.listen;
        let client = env.listen(&listen.client).await.map_err(failed("listen.client", &listen.client))?;
        let peer = env.listen(&listen.peer).await.map_err(failed("listen.peer", &listen.peer))?;
        let metrics = match &listen.metrics {
            Some(address) => Some(MetricsListener::bind(address).await.map_err(failed("listen.metrics", address))?),
            None => None,
        };
        Ok(Self { client, peer, metrics })
    }

    fn addresses(&self, config: &Config) -> Addresses {
        let resolved = |asked: &str, listener: &Listener| {
            if asked.ends_with(":0") { listener.local_address.clone() } else { asked.to_owned() }
        };
        Addresses {
            client: resolved(&config.listen.client, &self.client),
            peer: resolved(&config.listen.peer, &self.peer),
            metrics: self.metrics.as_ref().map(|listener| listener.address().to_owned()),
        }
    }
}

/// What the later steps share.
struct Parts<'a> {
    config: &'a Config,
    runtimes: &'a Runtimes,
    front: &'a Arc<Front>,
    groups: &'a RaftGroups,
    stopping: CancellationToken,
    front_tasks: TaskTracker,
    tasks: TaskTracker,
    alarm: Alarm,
}

impl Parts<'_> {
    /// Runs `work` beside consensus until the node stops.
    fn background(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.stopping.clone();
        let until_stopped = async move {
            stopping.run_until_cancelled(work).await;
        };
        self.tasks.spawn_on(until_stopped, &self.runtimes.consensus);
    }

    fn watch_for_failures(&self, storage: &Storage) {
        let storage = storage.clone();
        self.background(self.alarm.clone().raise_on(async move { NodeFailure::of_storage(&storage.failed().await) }));
        let mut failure = self.groups.failure();
        self.background(self.alarm.clone().raise_on(async move {
            let seen = failure.wait_for(Option::is_some).await.ok().and_then(|seen| seen.clone());
            match seen {
                Some(why) => NodeFailure::of_groups(why),
                None => std::future::pending().await,
            }
        }));
    }

    /// On a voter the map comes from the node's own replica of the metadata group.
    async fn open_metadata_group(&self) -> Result<MapSource, StartError> {
        let voters = &self.config.cluster.voters;
        if !self.config.is_voter() {
            let voters = voters.iter().map(|voter| voter.node).collect();
            return Ok(MapSource::Voters(voters, self.front.peers.clone()));
        }
        let group = self
            .groups
            .open(GroupSpec {
                group: GroupId::METADATA,
                replica: ReplicaId::of_metadata_voter(self.config.node.id),
                kind: MachineKind::Meta,
                members: self.front.metadata_replicas.clone(),
            })
            .await?;
        let leaders = self.front.router.leaders().clone();
        self.background(leaders.follow(group.id(), group.watch_leadership()));
        Ok(MapSource::OwnGroup(group))
    }

    /// Greets the other nodes. Not earlier: a peer whose disk was replaced is told from the one that registered only
    /// by the map that this node had when it stopped.
    fn meet_peers(&self, source: &MapSource) {
        let map = source.recovered();
        self.front.peers.learn(&map);
        self.groups.set_peers(reconcile::peers(self.config.node.id, &self.config.cluster.voters, &map));
    }

    async fn serve(&self, listeners: Listeners, probe: Probe, readiness: &Readiness) {
        let peers =
            api::serve_peers(Arc::clone(self.front), listeners.peer, self.groups.clone(), self.stopping.clone());
        self.background(served(peers, self.alarm.clone(), "listen.peer"));

        let (reporter, health) = tonic_health::server::health_reporter();
        // Known before the first question: a name that isn't known is an error to whoever watches it.
        reporter.set_service_status(READY_SERVICE, ServingStatus::NotServing).await;
        let clients = api::serve_clients(
            Arc::clone(self.front),
            listeners.client,
            self.config.limits,
            health,
            Ending { draining: self.front.draining.clone(), stopping: self.stopping.clone() },
        );
        let clients = served(clients, self.alarm.clone(), "listen.client");
        self.front_tasks.spawn_on(clients, &self.runtimes.front);
        self.background(readiness.clone().report(reporter));

        if let Some(listener) = listeners.metrics {
            let serving = listener.serve(probe, self.stopping.clone());
            self.tasks.spawn_on(async move { drop(serving.await) }, &self.runtimes.front);
        }
    }

    fn register(&self, addresses: &Addresses, identity: &NodeIdentity, readiness: Readiness) {
        let advertised =
            |configured: &Option<String>, bound: &str| configured.clone().unwrap_or_else(|| bound.to_owned());
        let node = &self.config.node;
        let node = Registrant {
            id: node.id,
            client_address: advertised(&node.client_address, &addresses.client),
            peer_address: advertised(&node.peer_address, &addresses.peer),
            store_id: identity.store_id,
        };
        let front = Arc::clone(self.front);
        let alarm = self.alarm.clone();
        self.background(async move {
            match registration::register(front, node).await {
                Ok(version) => readiness.registered(version),
                Err(failure) => alarm.raise(failure),
            }
        });
    }
}

/// A listener that ends before it was told to ends the node.
async fn served(serving: impl Future<Output = Result<(), ServeError>>, alarm: Alarm, setting: &'static str) {
    if let Err(error) = serving.await {
        alarm.raise(NodeFailure::new(Reason::Internal, format!("{setting}: {error}")));
    }
}

fn groups_config(config: &Config, identity: &NodeIdentity) -> GroupsConfig {
    GroupsConfig {
        cluster: config.cluster.name.clone(),
        node: config.node.id,
        store_id: identity.store_id,
        detection: config.detection,
        tail_cache: TailCacheLimits::default(),
        admission: AdmissionLimits {
            in_flight_bytes: config.limits.in_flight_bytes,
            in_flight_requests: config.limits.in_flight_requests,
            queued_bytes: config.limits.queued_bytes,
        },
    }
}

//! Nodes for tests: real sockets on the loopback, real RocksDB in temporary folders, all in this process.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
#![allow(dead_code, missing_docs, unreachable_pub)]

pub mod stream;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use quorate_consensus::{BoxIo, Env, Listener};
use quorate_proto::v1;
use quorate_proto::v1::cluster_service_client::ClusterServiceClient;
use quorate_proto::v1::publisher_service_client::PublisherServiceClient;
use quorate_proto::v1::reader_service_client::ReaderServiceClient;
use quorate_proto::v1::subscription_service_client::SubscriptionServiceClient;
use quorate_proto::v1::topic_service_client::TopicServiceClient;
use quorate_server::config::{LogConfig, LogFormat};
use quorate_server::{Config, Node, Runtimes, StartError, SystemEnv};
use quorate_storage::{OpenError, Storage};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Handle;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

/// Longest wait for anything that must happen.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The real world, but with sockets bound in advance: a port that is free now may be taken a moment later, a bound
/// one can't.
#[derive(Default)]
pub struct TestEnv {
    bound: Mutex<BTreeMap<String, std::net::TcpListener>>,
}

impl TestEnv {
    /// An address of our own.
    pub fn reserve(&self) -> String {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap().to_string();
        self.bound.lock().unwrap().insert(address.clone(), socket);
        address
    }
}

impl Env for TestEnv {
    fn listen(&self, address: &str) -> BoxFuture<'static, io::Result<Listener>> {
        match self.bound.lock().unwrap().remove(address) {
            None => SystemEnv::default().listen(address),
            Some(socket) => async move {
                socket.set_nonblocking(true)?;
                quorate_server::env::accepting(tokio::net::TcpListener::from_std(socket)?)
            }
            .boxed(),
        }
    }

    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<BoxIo>> {
        SystemEnv::default().connect(address)
    }

    fn wall_clock_ms(&self) -> u64 {
        SystemEnv::default().wall_clock_ms()
    }

    fn open_storage(&self, data_dir: &Path) -> BoxFuture<'static, Result<Storage, OpenError>> {
        SystemEnv::default().open_storage(data_dir)
    }
}

/// Where a node of a test lives.
#[derive(Clone)]
pub struct Place {
    pub id: u64,
    pub client: String,
    pub peer: String,
}

impl Place {
    fn as_voter(&self) -> String {
        format!("{}={}", self.id, self.peer)
    }
}

/// A cluster of nodes in this process.
pub struct Cluster {
    env: Arc<TestEnv>,
    folder: TempDir,
    voters: String,
    pub places: Vec<Place>,
    pub nodes: BTreeMap<u64, Node>,
}

impl Cluster {
    /// Starts `count` nodes, all of them voters, and waits until each is ready and knows the others.
    pub async fn start(count: u64) -> Self {
        Self::start_with_voters(count, count).await
    }

    /// The same, with the first `voters` nodes as voters.
    pub async fn start_with_voters(count: u64, voters: u64) -> Self {
        let mut cluster = Self::prepare(count);
        let voters: Vec<String> =
            cluster.places.iter().filter(|place| place.id <= voters).map(Place::as_voter).collect();
        cluster.voters = voters.join(",");
        for id in 1..=count {
            cluster.start_node(id).await;
        }
        for place in cluster.places.clone() {
            ready(&place.client).await;
            let nodes = usize::try_from(count).unwrap();
            watch_until(&place.client, |map| map.nodes.len() == nodes).await;
        }
        cluster
    }

    /// One node with further settings, ready.
    pub async fn start_one_with(settings: &[&str]) -> Self {
        let mut cluster = Self::prepare(1);
        let node = cluster.try_start(1, settings).await.unwrap();
        cluster.nodes.insert(1, node);
        ready(&cluster.place(1).client).await;
        cluster
    }

    /// Addresses and folders for `count` nodes.
    pub fn prepare(count: u64) -> Self {
        // `QUORATE_TEST_LOG=debug` shows what the nodes log.
        if let Ok(level) = std::env::var("QUORATE_TEST_LOG") {
            let log = LogConfig { level, format: LogFormat::Human };
            quorate_server::telemetry::install(&log).unwrap();
        }
        let env = Arc::new(TestEnv::default());
        let places: Vec<Place> =
            (1..=count).map(|id| Place { id, client: env.reserve(), peer: env.reserve() }).collect();
        let voters: Vec<String> = places.iter().map(Place::as_voter).collect();
        let folder = tempfile::tempdir().unwrap();
        Self { env, folder, voters: voters.join(","), places, nodes: BTreeMap::new() }
    }

    pub fn place(&self, id: u64) -> Place {
        self.places.iter().find(|place| place.id == id).cloned().unwrap()
    }

    /// The configuration of a node, with further `section.key=value` settings over it.
    pub fn config(&self, id: u64, settings: &[&str]) -> Config {
        let place = self.place(id);
        let mut flags = vec![
            format!("node.id={id}"),
            format!("node.data_dir={}", self.folder.path().join(format!("node-{id}")).display()),
            "cluster.name=test".to_owned(),
            format!("cluster.voters={}", self.voters),
            format!("listen.client={}", place.client),
            format!("listen.peer={}", place.peer),
            // Several nodes can't share the default address.
            "listen.metrics=".to_owned(),
        ];
        flags.extend(settings.iter().map(|setting| (*setting).to_owned()));
        Config::load(None, [], &flags).unwrap()
    }

    pub async fn start_node(&mut self, id: u64) {
        let node = self.try_start(id, &[]).await.unwrap();
        self.nodes.insert(id, node);
    }

    pub async fn try_start(&self, id: u64, settings: &[&str]) -> Result<Node, StartError> {
        let runtimes = Runtimes { consensus: Handle::current(), front: Handle::current() };
        let env: Arc<dyn Env> = Arc::clone(&self.env) as Arc<dyn Env>;
        Node::start(env, self.config(id, settings), runtimes).await
    }

    pub async fn stop_node(&mut self, id: u64) {
        let node = self.nodes.remove(&id).unwrap();
        tokio::time::timeout(PATIENCE, node.shutdown()).await.unwrap();
    }

    pub async fn stop(mut self) {
        for id in self.places.iter().map(|place| place.id).collect::<Vec<_>>() {
            if self.nodes.contains_key(&id) {
                self.stop_node(id).await;
            }
        }
    }
}

pub async fn channel(address: &str) -> Channel {
    Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

pub async fn publisher(address: &str) -> PublisherServiceClient<Channel> {
    PublisherServiceClient::new(channel(address).await).max_encoding_message_size(64 << 20)
}

pub async fn reader(address: &str) -> ReaderServiceClient<Channel> {
    ReaderServiceClient::new(channel(address).await).max_decoding_message_size(64 << 20)
}

pub async fn topics(address: &str) -> TopicServiceClient<Channel> {
    TopicServiceClient::new(channel(address).await)
}

pub async fn subscriptions(address: &str) -> SubscriptionServiceClient<Channel> {
    SubscriptionServiceClient::new(channel(address).await)
}

pub async fn clusters(address: &str) -> ClusterServiceClient<Channel> {
    ClusterServiceClient::new(channel(address).await)
}

/// Waits until the node says that it is ready.
pub async fn ready(address: &str) {
    let request = HealthCheckRequest { service: "quorate.ready".to_owned() };
    let wait = async {
        let mut states = HealthClient::new(channel(address).await).watch(request).await.unwrap().into_inner();
        while let Some(state) = states.message().await.unwrap() {
            if state.status() == ServingStatus::Serving {
                return;
            }
        }
        panic!("the health watch ended");
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("the node becomes ready");
}

/// Watches the cluster from a node until the map is as wanted, and returns it.
pub async fn watch_until(address: &str, wanted: impl Fn(&v1::ClusterMap) -> bool) -> v1::ClusterMap {
    let wait = async {
        let mut maps = clusters(address).await.watch_cluster(v1::WatchClusterRequest {}).await.unwrap().into_inner();
        while let Some(response) = maps.message().await.unwrap() {
            let map = response.cluster.unwrap();
            if wanted(&map) {
                return map;
            }
        }
        panic!("the cluster watch ended");
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("the map becomes as wanted")
}

/// Creates a topic with the given partitions and the defaults of everything else.
pub async fn create(address: &str, name: &str, partitions: u32) -> v1::Topic {
    let topic = v1::Topic { name: name.to_owned(), partitions: Some(partitions), ..v1::Topic::default() };
    let request = v1::CreateTopicRequest { topic: Some(topic), request_id: String::new() };
    topics(address).await.create_topic(request).await.unwrap().into_inner().topic.unwrap()
}

pub fn message(data: &str) -> v1::Message {
    v1::Message { data: data.to_owned().into(), ..v1::Message::default() }
}

/// Publishes and expects every message to be accepted.
pub async fn publish(address: &str, topic: &str, partition: Option<u32>, data: &[&str]) -> Vec<v1::Published> {
    let messages = data.iter().map(|data| message(data)).collect();
    let request = v1::PublishRequest { topic: topic.to_owned(), partition, messages };
    let response = publisher(address).await.publish(request).await.unwrap().into_inner();
    response.results.into_iter().map(|result| published(result).unwrap()).collect()
}

/// Publishes one message to a partition, again and again while it certainly wasn't appended.
pub async fn publish_patiently(address: &str, topic: &str, partition: u32, data: &str) {
    let request =
        v1::PublishRequest { topic: topic.to_owned(), partition: Some(partition), messages: vec![message(data)] };
    let mut publisher = publisher(address).await;
    let wait = async {
        loop {
            let response = publisher.publish(request.clone()).await.unwrap().into_inner();
            match published(response.results.into_iter().next().unwrap()) {
                Ok(_) => return,
                // The node has waited for a leader before it answered.
                Err(error) => assert_eq!(error.reason, "NO_LEADER", "{error:?}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("a leader is elected");
}

pub fn published(result: v1::PublishResult) -> Result<v1::Published, v1::PublishError> {
    match result.outcome.unwrap() {
        v1::publish_result::Outcome::Published(published) => Ok(published),
        v1::publish_result::Outcome::Error(error) => Err(error),
    }
}

pub fn position(position: v1::position::Position) -> Option<v1::Position> {
    Some(v1::Position { position: Some(position) })
}

/// Everything from `start` to the end of the topic.
pub async fn read_from(
    address: &str,
    topic: &str,
    start: Option<v1::Position>,
) -> Result<Vec<v1::ReceivedMessage>, Status> {
    let request = v1::ReadRequest { topic: topic.to_owned(), start, stop_at_end: true, ..Default::default() };
    let mut responses = reader(address).await.read(request).await?.into_inner();
    let mut received = Vec::new();
    while let Some(response) = responses.message().await? {
        if let Some(v1::read_response::Content::Messages(messages)) = response.content {
            received.extend(messages.messages);
        }
    }
    Ok(received)
}

pub fn texts(received: &[v1::ReceivedMessage]) -> Vec<String> {
    let text = |message: &v1::ReceivedMessage| String::from_utf8(message.message.clone().unwrap().data.to_vec());
    received.iter().map(|message| text(message).unwrap()).collect()
}

/// A request that wants the leader's address rather than forwarding.
pub fn direct<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("quorate-routing", "direct".parse().unwrap());
    request
}

/// Code, reason and facts of a refusal.
pub fn refusal(status: &Status) -> (Code, String, BTreeMap<String, String>) {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!(info.domain, "quorate");
    (status.code(), info.reason.clone(), info.metadata.clone().into_iter().collect())
}

/// What a plain HTTP request is answered.
pub async fn get(address: &str, path: &str) -> String {
    let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    connection.read_to_string(&mut response).await.unwrap();
    response
}

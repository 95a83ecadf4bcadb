//! [`Client`]: the entry point. Everything else is made from it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quorate_model::{Reason, TopicName};
use quorate_proto::v1 as pb;
use quorate_proto::v1::topic_service_client::TopicServiceClient;

use crate::call::call;
use crate::cluster::Cluster;
use crate::connection::{ConnectionSettings, Connector, Links, check_address, tcp_connector};
use crate::error::ClientError;
use crate::messages::Messages;
use crate::publisher::PublisherBuilder;
use crate::reader::ReaderBuilder;
use crate::retry::{Deadline, RetrySettings};
use crate::routing::{ClusterView, Router, TopicRef, TopicView};
use crate::subscriber::SubscriberBuilder;
use crate::subscriptions::Subscriptions;
use crate::topics::Topics;

/// A topic that one node knows reaches the map of another within this time, or it isn't there.
const TOPIC_GRACE: Duration = Duration::from_secs(1);

/// Reads milliseconds since 1970.
#[derive(Clone)]
pub(crate) struct WallClock(Arc<dyn Fn() -> u64 + Send + Sync>);

impl WallClock {
    pub(crate) fn now_ms(&self) -> u64 {
        (self.0)()
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("WallClock")
    }
}

/// A connection to a cluster. Cheap to clone; the clones share connections and the cluster map.
///
/// One reachable address is enough, whichever node it is and whatever addresses the others advertise:
/// the client talks to leaders directly where it can, and through the node it knows where it can't.
#[derive(Clone)]
pub struct Client {
    router: Arc<Router>,
    clock: WallClock,
}

/// Builds a [`Client`]; from [`Client::builder`].
#[derive(Clone)]
#[must_use = "a builder does nothing before `build`"]
pub struct ClientBuilder {
    servers: Vec<String>,
    connection: ConnectionSettings,
    retry: RetrySettings,
    connector: Connector,
    clock: WallClock,
}

impl Client {
    /// Settings with their defaults.
    pub fn builder() -> ClientBuilder {
        ClientBuilder {
            servers: Vec::new(),
            connection: ConnectionSettings::default(),
            retry: RetrySettings::default(),
            connector: tcp_connector(),
            clock: WallClock(Arc::new(system_clock)),
        }
    }

    /// A client with default settings that knows one address, `host:port`.
    ///
    /// # Errors
    /// See [`ClientBuilder::build`].
    pub fn connect(server: impl Into<String>) -> Result<Self, ClientError> {
        Self::builder().servers([server.into()]).build()
    }

    /// Publishes to a topic.
    pub fn publisher(&self, topic: impl Into<String>) -> PublisherBuilder {
        PublisherBuilder::new(self.clone(), topic.into())
    }

    /// Reads a topic's log, without any state on the server.
    pub fn reader(&self, topic: impl Into<String>) -> ReaderBuilder {
        ReaderBuilder::new(self.clone(), topic.into())
    }

    /// Takes messages of a subscription, and says what became of each.
    pub fn subscriber(&self, subscription: impl Into<String>) -> SubscriberBuilder {
        SubscriberBuilder::new(self.clone(), subscription.into())
    }

    /// Creates, looks up, changes and deletes topics.
    #[must_use]
    pub fn topics(&self) -> Topics {
        Topics::new(self.clone())
    }

    /// Creates, looks up, changes and deletes subscriptions.
    #[must_use]
    pub fn subscriptions(&self) -> Subscriptions {
        Subscriptions::new(self.clone())
    }

    /// Looks up, lists and deletes single messages.
    #[must_use]
    pub fn messages(&self) -> Messages {
        Messages::new(self.clone())
    }

    /// The cluster map, the health of nodes, leadership.
    #[must_use]
    pub fn cluster(&self) -> Cluster {
        Cluster::new(self.clone())
    }

    pub(crate) fn router(&self) -> &Arc<Router> {
        &self.router
    }

    pub(crate) fn wall_clock(&self) -> &WallClock {
        &self.clock
    }

    /// Finds a topic in the cluster map, and waits for a map that has it if a node says that it exists.
    pub(crate) async fn resolve(&self, name: &str) -> Result<(TopicRef, TopicView), ClientError> {
        let invalid = |error: quorate_model::NameError| ClientError::known(error.reason(), error.to_string());
        TopicName::parse(name).map_err(invalid)?;
        let deadline = Deadline::after(self.router.retry().total);
        self.first_view(deadline).await?;
        if let Some(found) = find(&self.router.view(), name) {
            return Ok(found);
        }
        let request = pb::GetTopicRequest { name: name.to_owned() };
        let answered = call(&self.router, "GetTopic", |channel| {
            let request = request.clone();
            Box::pin(async move { TopicServiceClient::new(channel).get_topic(request).await })
        });
        match answered.await.into_result() {
            Ok(_) => self.find_by(name, deadline).await,
            // The topic may have been created a moment ago, through another node.
            Err(error) if error.is(Reason::TopicNotFound) => {
                self.find_by(name, Deadline::after(TOPIC_GRACE)).await.map_err(|_| error)
            }
            Err(error) => Err(error),
        }
    }

    /// Waits for the topic to appear in the map.
    pub(crate) async fn find_by(&self, name: &str, deadline: Deadline) -> Result<(TopicRef, TopicView), ClientError> {
        let mut views = self.router.watch_view();
        let found = views.wait_for(|view| view.topics.contains_key(name));
        let found = match tokio::time::timeout_at(deadline.instant(), found).await {
            Ok(Ok(view)) => find(&view, name),
            _ => None,
        };
        let missing = || {
            ClientError::known(Reason::TopicNotFound, format!("topic {name:?} doesn't exist")).with_fact("topic", name)
        };
        found.ok_or_else(missing)
    }

    /// Waits for the first answer with a cluster map.
    pub(crate) async fn first_view(&self, deadline: Deadline) -> Result<Arc<ClusterView>, ClientError> {
        let mut views = self.router.watch_view();
        let first = views.wait_for(|view| !view.cluster.is_empty() || view.version > 0);
        match tokio::time::timeout_at(deadline.instant(), first).await {
            Ok(Ok(view)) => Ok(Arc::clone(&view)),
            _ => Err(self.router.nothing_reachable()),
        }
    }
}

fn find(view: &ClusterView, name: &str) -> Option<(TopicRef, TopicView)> {
    let topic = view.topic(name)?;
    Some((TopicRef { name: name.into(), id: topic.id }, topic.clone()))
}

fn system_clock() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

impl ClientBuilder {
    /// Addresses to start from, each `host:port`. One is enough; several survive the loss of some.
    pub fn servers(mut self, servers: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.servers = servers.into_iter().map(Into::into).collect();
        self
    }

    /// Timeouts and keepalive of connections.
    pub fn connection(mut self, settings: ConnectionSettings) -> Self {
        self.connection = settings;
        self
    }

    /// Waits between attempts, and the deadline of administrative requests.
    pub fn retry(mut self, settings: RetrySettings) -> Self {
        self.retry = settings;
        self
    }

    /// How byte streams to nodes are opened: TLS, a proxy, a simulated network. Default plain TCP.
    pub fn connector(mut self, connector: Connector) -> Self {
        self.connector = connector;
        self
    }

    /// Where the publish time of messages comes from, in ms since 1970. Default the system's clock.
    pub fn wall_clock(mut self, clock: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        self.clock = WallClock(Arc::new(clock));
        self
    }

    /// Starts to connect in the background, on the current tokio runtime, and returns at once.
    ///
    /// # Errors
    /// `INVALID_SETTING` if there is no address or one is not of the form `host:port`.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn build(self) -> Result<Client, ClientError> {
        if self.servers.is_empty() {
            return Err(ClientError::invalid_setting("no server address was given"));
        }
        for server in &self.servers {
            check_address(server)?;
        }
        let links = Links::new(self.connection, self.connector);
        let mut bootstrap: Vec<Arc<str>> = self.servers.iter().map(|server| server.as_str().into()).collect();
        // Clients that were given the same list should not all choose the same node.
        fastrand::shuffle(&mut bootstrap);
        Ok(Client { router: Router::start(bootstrap, links, self.retry), clock: self.clock })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Client").field("router", &self.router).finish_non_exhaustive()
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ClientBuilder").field("servers", &self.servers).finish_non_exhaustive()
    }
}

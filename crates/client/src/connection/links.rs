//! One link per node address, each kept up by a task of its own.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use hyper_util::rt::TokioIo;
use tokio::sync::{Notify, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::{Channel, Endpoint};
use tracing::debug;

use super::{ConnectionSettings, Connector};
use crate::error::ClientError;

/// How long a call that was given up is remembered, and how many are: an answer that was held up on the way is then
/// ignored, where it would count as an error of the connection. Long also because HTTP/2 takes this time from the
/// system's clock, which a simulated run must never get to notice.
const RESET_MEMORY: Duration = Duration::from_secs(60);
const RESET_MEMORY_STREAMS: usize = 1024;

/// Flow-control windows large enough for several full batches in flight.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// A connection that stood when it was handed out.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) address: Arc<str>,
    pub(crate) channel: Channel,
    /// Counts the connections to this address, so that a late complaint doesn't close its successor.
    generation: u64,
}

impl fmt::Debug for Connection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}#{}", self.address, self.generation)
    }
}

/// All links of a client. Dropping it ends their tasks.
pub(crate) struct Links {
    settings: ConnectionSettings,
    connector: Connector,
    table: Mutex<BTreeMap<Arc<str>, Link>>,
    /// Rises whenever a link comes up or goes down.
    changes: watch::Sender<u64>,
}

struct Link {
    state: Arc<Mutex<LinkState>>,
    suspected: Arc<Notify>,
    _ends_task: DropGuard,
}

enum LinkState {
    Dialling,
    Up(Connection),
    Down(String),
}

impl Links {
    pub(crate) fn new(settings: ConnectionSettings, connector: Connector) -> Self {
        Self { settings, connector, table: Mutex::default(), changes: watch::Sender::new(0) }
    }

    /// The connection to this address if it stands. Starts dialling an address that wasn't asked for before.
    pub(crate) fn connection(&self, address: &str) -> Option<Connection> {
        let mut table = locked(&self.table);
        if let Some(link) = table.get(address) {
            return match &*locked(&link.state) {
                LinkState::Up(connection) => Some(connection.clone()),
                LinkState::Dialling | LinkState::Down(_) => None,
            };
        }
        let address: Arc<str> = address.into();
        table.insert(Arc::clone(&address), self.dial(address));
        None
    }

    pub(crate) fn is_up(&self, address: &str) -> bool {
        self.connection(address).is_some()
    }

    /// Reports that a request over this connection failed in the transport: it is replaced.
    pub(crate) fn suspect(&self, connection: &Connection) {
        let table = locked(&self.table);
        let Some(link) = table.get(&connection.address) else { return };
        let mut state = locked(&link.state);
        if matches!(&*state, LinkState::Up(current) if current.generation == connection.generation) {
            *state = LinkState::Down("the connection was lost".to_owned());
            link.suspected.notify_one();
            drop(state);
            self.changes.send_modify(|changes| *changes += 1);
        }
    }

    /// Drops the links to addresses that neither the caller nor the cluster map names any more.
    pub(crate) fn retain(&self, wanted: impl Fn(&str) -> bool) {
        locked(&self.table).retain(|address, _| wanted(address));
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Why nothing is reachable, address by address.
    pub(crate) fn describe_down(&self) -> String {
        let described = locked(&self.table)
            .iter()
            .filter_map(|(address, link)| match &*locked(&link.state) {
                LinkState::Down(why) => Some(format!("{address} ({why})")),
                LinkState::Dialling => Some(format!("{address} (connecting)")),
                LinkState::Up(_) => None,
            })
            .collect::<Vec<_>>();
        described.join(", ")
    }

    fn dial(&self, address: Arc<str>) -> Link {
        let state = Arc::new(Mutex::new(LinkState::Dialling));
        let suspected = Arc::new(Notify::new());
        let stop = CancellationToken::new();
        let task = LinkTask {
            address,
            settings: self.settings,
            connector: Arc::clone(&self.connector),
            state: Arc::clone(&state),
            suspected: Arc::clone(&suspected),
            changes: self.changes.clone(),
        };
        tokio::spawn(stop.clone().run_until_cancelled_owned(task.run()));
        Link { state, suspected, _ends_task: stop.drop_guard() }
    }
}

struct LinkTask {
    address: Arc<str>,
    settings: ConnectionSettings,
    connector: Connector,
    state: Arc<Mutex<LinkState>>,
    suspected: Arc<Notify>,
    changes: watch::Sender<u64>,
}

impl LinkTask {
    async fn run(self) {
        let mut delays = self.delays();
        for generation in 1.. {
            match self.connect().await {
                Ok(channel) => {
                    debug!(address = %self.address, generation, "connected");
                    self.become_state(LinkState::Up(Connection {
                        address: Arc::clone(&self.address),
                        channel,
                        generation,
                    }));
                    let connected_at = tokio::time::Instant::now();
                    self.suspected.notified().await;
                    debug!(address = %self.address, generation, "connection lost");
                    // A connection that lasted proves the address; one that broke at once doesn't.
                    if connected_at.elapsed() > self.settings.redial_max {
                        delays = self.delays();
                    }
                }
                Err(why) => {
                    debug!(address = %self.address, %why, "connect failed");
                    self.become_state(LinkState::Down(why));
                }
            }
            tokio::time::sleep(delays.next().unwrap_or(self.settings.redial_max)).await;
        }
    }

    async fn connect(&self) -> Result<Channel, String> {
        let endpoint = endpoint(&self.address, self.settings).map_err(|error| error.to_string())?;
        let (connector, address) = (Arc::clone(&self.connector), Arc::clone(&self.address));
        let service = tower::service_fn(move |_: http::Uri| {
            let stream = connector(address.to_string());
            async move { stream.await.map(TokioIo::new) }
        });
        // The endpoint's own connect timeout covers the byte stream, this one the HTTP/2 handshake as well.
        match tokio::time::timeout(self.settings.connect_timeout * 2, endpoint.connect_with_connector(service)).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(error)) => Err(innermost(&error)),
            Err(_) => Err("no answer to the HTTP/2 handshake".to_owned()),
        }
    }

    fn become_state(&self, state: LinkState) {
        *locked(&self.state) = state;
        self.changes.send_modify(|changes| *changes += 1);
    }

    fn delays(&self) -> impl Iterator<Item = Duration> + use<> {
        ExponentialBuilder::default()
            .with_min_delay(self.settings.redial_min)
            .with_max_delay(self.settings.redial_max)
            .with_jitter()
            .without_max_times()
            .build()
    }
}

/// Fails unless the address has the form `host:port`.
pub(crate) fn check_address(address: &str) -> Result<(), ClientError> {
    endpoint(address, ConnectionSettings::default()).map(|_| ())
}

fn endpoint(address: &str, settings: ConnectionSettings) -> Result<Endpoint, ClientError> {
    let invalid = || ClientError::invalid_setting(format!("{address:?} is not an address of the form host:port"));
    let uri = address.parse::<http::uri::Authority>().map_err(|_| invalid())?;
    if uri.port_u16().is_none() || uri.host().is_empty() || address.contains('@') {
        return Err(invalid());
    }
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|_| invalid())?;
    Ok(endpoint
        .connect_timeout(settings.connect_timeout)
        .http2_keep_alive_interval(settings.keepalive_interval)
        .keep_alive_timeout(settings.keepalive_timeout)
        .keep_alive_while_idle(true)
        .http2_reset_stream_duration(RESET_MEMORY)
        .http2_max_concurrent_reset_streams(RESET_MEMORY_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES))
}

fn innermost(error: &tonic::transport::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = error.to_string();
        source = error.source();
    }
    text
}

/// These locks guard a few lines that can't panic halfway, so a poisoned one is still whole.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

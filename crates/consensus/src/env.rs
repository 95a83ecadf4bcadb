//! Everything outside the node's own memory comes through one small trait, so that the same node runs
//! in production and in deterministic simulation (ADR 0003). Timers use `tokio::time`, which the
//! simulation drives; randomness uses `fastrand`, which the simulation seeds.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt};
use hyper_util::rt::TokioIo;
use quorate_storage::{OpenError, Storage};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint, Uri};

/// A connection's two directions of bytes.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// A boxed connection.
pub type BoxIo = Box<dyn Io>;

/// A bound address and the connections that arrive there.
pub struct Listener {
    /// Where it is bound, with the port that was chosen if port 0 was asked for.
    pub local_address: String,
    /// Accepted connections.
    pub incoming: BoxStream<'static, io::Result<Accepted>>,
}

/// A connection that somebody opened.
pub struct Accepted {
    /// Its two directions.
    pub io: BoxIo,
    /// Who, where that is known: bounds per address don't hold for the others.
    pub from: Option<IpAddr>,
}

/// What a node needs of the outside world.
pub trait Env: Send + Sync + 'static {
    /// Binds `address` (`host:port`).
    fn listen(&self, address: &str) -> BoxFuture<'static, io::Result<Listener>>;
    /// Connects to `address` (`host:port`).
    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<BoxIo>>;
    /// Milliseconds since the Unix epoch. Stamped into commands, never used for safety.
    fn wall_clock_ms(&self) -> u64;
    /// Opens the database of this node.
    fn open_storage(&self, data_dir: &Path) -> BoxFuture<'static, Result<Storage, OpenError>>;
}

/// How eagerly a channel notices a dead peer.
#[derive(Clone, Copy, Debug)]
pub struct ChannelSettings {
    /// Longest time to establish a connection.
    pub connect_timeout: Duration,
    /// Interval of HTTP/2 pings, also while idle. Without them a cut link is never noticed.
    pub keepalive_interval: Duration,
    /// How long a ping may stay unanswered.
    pub keepalive_timeout: Duration,
}

impl Default for ChannelSettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(1),
            keepalive_interval: Duration::from_secs(1),
            keepalive_timeout: Duration::from_millis(1500),
        }
    }
}

/// How long a call that was given up is remembered, and how many are: an answer that was held up on the way is then
/// ignored, where it would count as an error of the connection. Long also because HTTP/2 takes this time from the
/// system's clock, which a simulated run must never get to notice.
const RESET_MEMORY: Duration = Duration::from_secs(60);
const RESET_MEMORY_STREAMS: usize = 1024;

/// Nobody connects again so soon after a connection that wasn't made, however often requests ask for it: those that look
/// for a leader every few milliseconds would otherwise knock thousands of times a second where a node is down.
const REDIAL_PAUSE: Duration = Duration::from_millis(100);

const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// A lazily connecting channel to `address` (`host:port`) through `env`.
///
/// # Errors
/// If `address` isn't a valid authority.
pub fn channel(
    env: &Arc<dyn Env>,
    address: &str,
    settings: ChannelSettings,
) -> Result<Channel, tonic::transport::Error> {
    let dialer = Arc::new(Dialer { env: Arc::clone(env), address: address.to_owned(), failed_at: Mutex::default() });
    Ok(Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(settings.connect_timeout)
        .http2_keep_alive_interval(settings.keepalive_interval)
        .keep_alive_timeout(settings.keepalive_timeout)
        .keep_alive_while_idle(true)
        .http2_reset_stream_duration(RESET_MEMORY)
        .http2_max_concurrent_reset_streams(RESET_MEMORY_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
            let dialer = Arc::clone(&dialer);
            async move { dialer.dial().await.map(TokioIo::new) }
        })))
}

/// Connects to one address, with pauses.
struct Dialer {
    env: Arc<dyn Env>,
    address: String,
    failed_at: Mutex<Option<Instant>>,
}

impl Dialer {
    async fn dial(&self) -> io::Result<BoxIo> {
        if self.failed_at().is_some_and(|at| at.elapsed() < REDIAL_PAUSE) {
            let detail = format!("{} could not be reached a moment ago", self.address);
            return Err(io::Error::new(io::ErrorKind::ConnectionRefused, detail));
        }
        // A dial that is given up, because it takes too long, has failed as well.
        *self.failed_at() = Some(Instant::now());
        let connection = self.env.connect(&self.address).await;
        *self.failed_at() = connection.is_err().then(Instant::now);
        connection
    }

    fn failed_at(&self) -> MutexGuard<'_, Option<Instant>> {
        self.failed_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Turns accepted connections into what tonic serves.
pub fn serve_incoming(listener: Listener) -> impl Stream<Item = io::Result<ServerIo>> + Send + 'static {
    listener.incoming.map(|accepted| accepted.map(|accepted| ServerIo(accepted.io)))
}

/// An accepted connection, as tonic wants it.
pub struct ServerIo(BoxIo);

impl Connected for ServerIo {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl AsyncRead for ServerIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for ServerIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt;
    use tonic::codegen::Service as _;

    use super::*;

    /// Where nobody listens.
    #[derive(Default)]
    struct Nowhere {
        dialed: AtomicUsize,
    }

    impl Env for Nowhere {
        fn listen(&self, _: &str) -> BoxFuture<'static, io::Result<Listener>> {
            unreachable!("nobody listens")
        }

        fn connect(&self, _: &str) -> BoxFuture<'static, io::Result<BoxIo>> {
            self.dialed.fetch_add(1, Ordering::Relaxed);
            std::future::ready(Err(io::ErrorKind::ConnectionRefused.into())).boxed()
        }

        fn wall_clock_ms(&self) -> u64 {
            0
        }

        fn open_storage(&self, _: &Path) -> BoxFuture<'static, Result<Storage, OpenError>> {
            unreachable!("there is no storage")
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_is_down_is_not_called_more_often_than_the_pause_allows() {
        let nowhere = Arc::new(Nowhere::default());
        let env: Arc<dyn Env> = Arc::clone(&nowhere) as _;
        let mut channel = channel(&env, "nowhere:1", ChannelSettings::default()).unwrap();
        for _ in 0..1000 {
            futures::future::poll_fn(|cx| channel.poll_ready(cx)).await.unwrap();
            channel.call(http::Request::new(tonic::body::Body::empty())).await.unwrap_err();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let dialed = nowhere.dialed.load(Ordering::Relaxed);
        assert!((5..=10).contains(&dialed), "{dialed} times within a second");
    }
}

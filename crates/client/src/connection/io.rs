//! The bytes below HTTP/2: TCP by default, replaceable by TLS, a Unix socket or a simulated network.

use std::io;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A byte stream to a node.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// A byte stream of any kind.
pub type BoxIo = Box<dyn Io>;

/// Opens a byte stream to `host:port`. The client applies its own connect timeout around it.
pub type Connector = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<BoxIo>> + Send + Sync>;

/// The default: plain TCP, without Nagle's delay, because batching is done above.
#[must_use]
pub fn tcp_connector() -> Connector {
    Arc::new(|address| {
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as BoxIo)
        })
    })
}

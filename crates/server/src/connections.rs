//! What the node keeps of every connection: a bound on how many there are, and the means to end them. The server
//! lets go of a connection only when the other side closes it, which another node never does.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::StreamExt;
use quorate_consensus::{BoxIo, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tracing::debug;

/// The listener's connections: at most `connections` at the same time, further ones closed at once, and all of them
/// broken when `cut` is cancelled.
pub(crate) fn guarded(listener: Listener, connections: usize, cut: CancellationToken) -> Listener {
    let room = Arc::new(Semaphore::new(connections));
    let admitted = move |accepted: io::Result<BoxIo>| {
        let guarded = match (accepted, Arc::clone(&room).try_acquire_owned()) {
            (Ok(io), Ok(permit)) => {
                let cut = Box::pin(cut.clone().cancelled_owned());
                Some(Ok(Box::new(Guarded { io, cut, _permit: permit }) as BoxIo))
            }
            (Ok(_), Err(_)) => {
                debug!(connections, "connection refused: there are as many as there may be");
                None
            }
            (Err(error), _) => Some(Err(error)),
        };
        std::future::ready(guarded)
    };
    Listener { local_address: listener.local_address, incoming: listener.incoming.filter_map(admitted).boxed() }
}

/// A connection that can be broken, and gives its place back when it is dropped.
struct Guarded {
    io: BoxIo,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    _permit: OwnedSemaphorePermit,
}

impl AsyncRead for Guarded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // HTTP/2 always waits for a read, so this is where a connection at rest learns of the cut.
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::stream;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    fn listener(near: Vec<DuplexStream>) -> Listener {
        let incoming = stream::iter(near).map(|io| Ok(Box::new(io) as BoxIo)).boxed();
        Listener { local_address: String::new(), incoming }
    }

    #[tokio::test]
    async fn one_connection_too_many_is_closed_and_a_closed_one_makes_room() {
        let (near, mut far): (Vec<_>, Vec<_>) = (0..4).map(|_| duplex(8)).unzip();
        let mut incoming = guarded(listener(near), 2, CancellationToken::new()).incoming;
        let first = incoming.next().await.unwrap().unwrap();
        let _second = incoming.next().await.unwrap().unwrap();
        drop(first);
        let _third = incoming.next().await.unwrap().unwrap();
        assert!(incoming.next().await.is_none());
        assert_eq!(far[3].read(&mut [0; 8]).await.unwrap(), 0);
        assert!(far[2].write(b"open").await.is_ok());
    }

    #[tokio::test]
    async fn a_cut_breaks_a_connection_that_waits() {
        let (near, _far) = duplex(8);
        let cut = CancellationToken::new();
        let mut connection = guarded(listener(vec![near]), 1, cut.clone()).incoming.next().await.unwrap().unwrap();
        let waiting = tokio::spawn(async move { connection.read(&mut [0; 8]).await });
        tokio::task::yield_now().await;
        cut.cancel();
        assert_eq!(waiting.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }
}

//! The real world: TCP, RocksDB, the wall clock. The simulation has its own.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt};
use futures::stream;
use quorate_consensus::{Accepted, BoxIo, Env, Listener};
use quorate_storage::{OpenError, RocksOptions, Storage};
use tokio::net::{TcpListener, TcpStream};
use tracing::warn;

/// The [`Env`] of a node in production.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEnv {
    /// How the database is opened.
    pub storage: RocksOptions,
}

/// Pause after a failed accept: most failures (too many open files) don't go away within a microsecond,
/// and a loop without pause would take the processor from those who could close some.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

impl Env for SystemEnv {
    fn listen(&self, address: &str) -> BoxFuture<'static, io::Result<Listener>> {
        let address = address.to_owned();
        async move { accepting(TcpListener::bind(&address).await?) }.boxed()
    }

    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<BoxIo>> {
        let address = address.to_owned();
        async move {
            let connection = TcpStream::connect(&address).await?;
            connection.set_nodelay(true)?;
            Ok(Box::new(connection) as BoxIo)
        }
        .boxed()
    }

    fn wall_clock_ms(&self) -> u64 {
        // A clock before 1970 reads as 0: times are never used for safety.
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
    }

    fn open_storage(&self, data_dir: &Path) -> BoxFuture<'static, Result<Storage, OpenError>> {
        let (data_dir, options) = (data_dir.to_owned(), self.storage);
        // Opening reads the write-ahead log, which may take seconds: never on a worker of the runtime.
        let opening = tokio::task::spawn_blocking(move || Storage::open_rocks(&data_dir, &options));
        async move {
            match opening.await {
                Ok(opened) => opened,
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            }
        }
        .boxed()
    }
}

/// The connections of a bound socket, small packets sent at once.
///
/// # Errors
/// If the socket has no local address.
pub fn accepting(socket: TcpListener) -> io::Result<Listener> {
    let local_address = socket.local_addr()?.to_string();
    let incoming = stream::unfold(socket, |socket| async move {
        loop {
            match socket.accept().await {
                Ok((connection, from)) => match connection.set_nodelay(true) {
                    Ok(()) => {
                        let accepted = Accepted { io: Box::new(connection), from: Some(from.ip()) };
                        return Some((Ok(accepted), socket));
                    }
                    // The other side is gone already.
                    Err(_) => continue,
                },
                Err(error) => {
                    warn!(%error, "connection not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
    Ok(Listener { local_address, incoming: incoming.boxed() })
}

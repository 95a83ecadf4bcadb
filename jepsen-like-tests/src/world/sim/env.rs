//! What a node of the simulation reaches of the outside: turmoil's network and clock, and a disk in memory.

use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, stream};
use quorate_consensus::{Accepted, BoxIo, Env, Listener};
use quorate_storage::{OpenError, SimDisk, Storage};
use turmoil::net::{TcpListener, TcpStream};

/// The [`Env`] of one simulated node.
pub(super) struct SimEnv {
    disk: SimDisk,
}

impl SimEnv {
    pub(super) fn new(disk: SimDisk) -> Self {
        Self { disk }
    }
}

impl Env for SimEnv {
    fn listen(&self, address: &str) -> BoxFuture<'static, io::Result<Listener>> {
        let local_address = address.to_owned();
        async move {
            // A simulated host listens on its own address, whatever the name.
            let (_, port) = host_and_port(&local_address)?;
            let socket = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
            let incoming = stream::unfold(socket, |socket| async move {
                let accepted = socket.accept().await;
                let accepted =
                    accepted.map(|(connection, from)| Accepted { io: Box::new(connection), from: Some(from.ip()) });
                Some((accepted, socket))
            });
            Ok(Listener { local_address, incoming: incoming.boxed() })
        }
        .boxed()
    }

    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<BoxIo>> {
        let address = address.to_owned();
        async move { Ok(Box::new(connect(address).await?) as BoxIo) }.boxed()
    }

    fn wall_clock_ms(&self) -> u64 {
        wall_clock_ms()
    }

    fn open_storage(&self, data_dir: &Path) -> BoxFuture<'static, Result<Storage, OpenError>> {
        std::future::ready(self.disk.open(data_dir)).boxed()
    }
}

/// A connection from the host that runs now.
pub(super) async fn connect(address: String) -> io::Result<TcpStream> {
    TcpStream::connect(host_and_port(&address)?).await
}

/// The simulated time of day of the host that runs now.
pub(super) fn wall_clock_ms() -> u64 {
    let since_epoch = turmoil::since_epoch().unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

fn host_and_port(address: &str) -> io::Result<(String, u16)> {
    let parts = address.rsplit_once(':').and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
    parts.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("{address:?} is not host:port")))
}

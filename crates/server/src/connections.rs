//! What the node keeps of every connection: bounds on how many there are and on how long one may be of no use, and the
//! means to end them. The server below knows neither: it lets go of a connection only when the other side closes it.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::{Stream, StreamExt};
use quorate_consensus::{Accepted, BoxIo, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;
use tracing::debug;

use crate::limits::{PREFACE_TIME, STREAM_STALL};

/// Bounds of one listener's connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionLimits {
    /// At the same time.
    pub(crate) total: usize,
    /// At the same time from one address.
    pub(crate) per_address: usize,
    /// How long one may be without requests; `None`: for ever.
    pub(crate) idle: Option<Duration>,
    /// How long one may be there at all; `None`: for ever.
    pub(crate) age: Option<Duration>,
}

/// The listener's connections within `limits`: one too many is closed at once, `refused` is told which bound it was
/// beyond, and all are broken when `cut` is cancelled.
pub(crate) fn guarded(
    listener: Listener,
    limits: ConnectionLimits,
    cut: CancellationToken,
    refused: impl Fn(&'static str) + Send + 'static,
) -> impl Stream<Item = io::Result<Guarded>> + Send {
    let door = Door { limits, room: Arc::new(Semaphore::new(limits.total)), addresses: Arc::default() };
    let admitted = move |accepted: io::Result<Accepted>| {
        let guarded = accepted.map(|accepted| match door.admit(accepted.from) {
            Ok(place) => Some(Guarded::new(accepted.io, place, limits, cut.child_token())),
            Err(setting) => {
                debug!(setting, from = ?accepted.from, "connection refused: there are as many as there may be");
                refused(setting);
                None
            }
        });
        std::future::ready(guarded.transpose())
    };
    listener.incoming.filter_map(admitted)
}

/// Counts who is inside.
struct Door {
    limits: ConnectionLimits,
    room: Arc<Semaphore>,
    addresses: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
}

impl Door {
    /// A place, or the setting that has none.
    fn admit(&self, from: Option<IpAddr>) -> Result<Place, &'static str> {
        let room = Arc::clone(&self.room).try_acquire_owned().map_err(|_| "limits.connections")?;
        if let Some(address) = from {
            let mut addresses = lock(&self.addresses);
            let count = addresses.entry(address).or_default();
            if *count >= self.limits.per_address {
                return Err("limits.connections_per_address");
            }
            *count += 1;
        }
        Ok(Place { from, addresses: Arc::clone(&self.addresses), _room: room })
    }
}

/// A connection's place, given back when it is dropped.
struct Place {
    from: Option<IpAddr>,
    addresses: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
    _room: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(address) = self.from else { return };
        let mut addresses = lock(&self.addresses);
        if let Some(count) = addresses.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(&address);
            }
        }
    }
}

/// What the requests of a connection and the connection itself know of each other; every request carries it in its
/// extensions.
#[derive(Clone)]
pub(crate) struct Connection {
    activity: Arc<Mutex<Activity>>,
}

struct Activity {
    open: u32,
    next_request: u64,
    last_end: Instant,
    /// Requests of which an answer, or a part of one, was handed to the connection, and since when. One that is asked
    /// for more isn't among them.
    handed: BTreeMap<u64, Instant>,
}

/// An open request. Ends when it is dropped.
pub(crate) struct OpenRequest {
    connection: Connection,
    number: u64,
}

impl Connection {
    fn new() -> Self {
        let activity = Activity { open: 0, next_request: 0, last_end: Instant::now(), handed: BTreeMap::new() };
        Self { activity: Arc::new(Mutex::new(activity)) }
    }

    /// Begins a request; `None` if as many as `most` are open.
    pub(crate) fn begin(&self, most: u32) -> Option<OpenRequest> {
        let mut activity = lock(&self.activity);
        if activity.open >= most {
            return None;
        }
        activity.open += 1;
        activity.next_request += 1;
        Some(OpenRequest { number: activity.next_request, connection: self.clone() })
    }

    /// When to look again, or why the connection is of no use any more.
    fn verdict(&self, limits: &ConnectionLimits, born: Instant, greeted: bool) -> Result<Instant, &'static str> {
        let activity = lock(&self.activity);
        let mut bounds = Vec::with_capacity(4);
        if !greeted {
            bounds.push((born + PREFACE_TIME, "it didn't begin to speak HTTP/2"));
        }
        if let Some(age) = limits.age {
            bounds.push((born + age, "it is too old"));
        }
        if let Some(idle) = limits.idle {
            // While requests are open, the time without any begins now at the earliest.
            let since = if activity.open == 0 { activity.last_end } else { Instant::now() };
            bounds.push((since + idle, "it has had no request for long"));
        }
        let oldest = activity.handed.values().min().copied();
        bounds.push((oldest.unwrap_or_else(Instant::now) + STREAM_STALL, "it doesn't take its answers"));
        let now = Instant::now();
        match bounds.iter().find(|(end, _)| *end <= now) {
            Some((_, why)) => Err(why),
            None => Ok(bounds.into_iter().map(|(end, _)| end).min().unwrap_or(now + STREAM_STALL)),
        }
    }
}

impl OpenRequest {
    /// The connection took a part of the answer; until it asks for the next, that part takes up memory.
    pub(crate) fn handed(&self) {
        lock(&self.connection.activity).handed.insert(self.number, Instant::now());
    }

    /// The connection asks for more.
    pub(crate) fn asked(&self) {
        lock(&self.connection.activity).handed.remove(&self.number);
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let mut activity = lock(&self.connection.activity);
        activity.open -= 1;
        activity.last_end = Instant::now();
        activity.handed.remove(&self.number);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes with which every HTTP/2 connection begins.
const PREFACE_BYTES: usize = 24;

/// A connection that can be broken, breaks itself when it is of no use, and gives its place back when it is dropped.
pub(crate) struct Guarded {
    io: BoxIo,
    connection: Connection,
    limits: ConnectionLimits,
    born: Instant,
    /// Bytes of the preface that have come.
    greeting: usize,
    look: Pin<Box<Sleep>>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    _place: Place,
}

impl Guarded {
    fn new(io: BoxIo, place: Place, limits: ConnectionLimits, cut: CancellationToken) -> Self {
        let born = Instant::now();
        Self {
            io,
            connection: Connection::new(),
            limits,
            born,
            greeting: 0,
            look: Box::pin(sleep_until(born + PREFACE_TIME)),
            cut: Box::pin(cut.cancelled_owned()),
            _place: place,
        }
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(io::ErrorKind::ConnectionAborted.into());
        }
        loop {
            ready!(self.look.as_mut().poll(cx));
            match self.connection.verdict(&self.limits, self.born, self.greeting >= PREFACE_BYTES) {
                Ok(next) => self.look.as_mut().reset(next),
                Err(why) => {
                    debug!(why, "connection closed");
                    return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, why));
                }
            }
        }
    }
}

impl Connected for Guarded {
    type ConnectInfo = Connection;

    fn connect_info(&self) -> Connection {
        self.connection.clone()
    }
}

impl AsyncRead for Guarded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // HTTP/2 always waits for a read, so this is where a connection at rest learns of its end.
        if let Poll::Ready(end) = self.poll_end(cx) {
            return Poll::Ready(Err(end));
        }
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
        self.greeting = self.greeting.saturating_add(buf.filled().len() - before);
        Poll::Ready(read)
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

    const LIMITS: ConnectionLimits = ConnectionLimits { total: 3, per_address: 2, idle: None, age: None };

    fn listener(near: Vec<(DuplexStream, u8)>) -> Listener {
        let accepted = |(io, host): (DuplexStream, u8)| {
            Ok(Accepted { io: Box::new(io), from: Some(IpAddr::from([10, 0, 0, host])) })
        };
        Listener { local_address: String::new(), incoming: stream::iter(near).map(accepted).boxed() }
    }

    async fn one(limits: ConnectionLimits) -> (Guarded, DuplexStream) {
        let (near, far) = duplex(64);
        let incoming = guarded(listener(vec![(near, 1)]), limits, CancellationToken::new(), |_| {});
        let guarded = std::pin::pin!(incoming).next().await.unwrap().unwrap();
        (guarded, far)
    }

    /// How long the connection lives, if nothing more comes.
    async fn lifetime(mut connection: Guarded) -> (Duration, String) {
        let begun = Instant::now();
        loop {
            if let Err(error) = connection.read(&mut [0; 64]).await {
                return (begun.elapsed(), error.to_string());
            }
        }
    }

    #[tokio::test]
    async fn one_connection_too_many_is_closed_and_a_closed_one_makes_room() {
        let hosts = [1, 1, 1, 2, 2, 3];
        let (near, mut far): (Vec<_>, Vec<_>) =
            hosts.map(|host| (host, duplex(8))).map(|(host, (near, far))| ((near, host), far)).into_iter().unzip();
        let refusals = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&refusals);
        let incoming = guarded(listener(near), LIMITS, CancellationToken::new(), move |why| lock(&noted).push(why));
        let mut incoming = std::pin::pin!(incoming);
        let first = incoming.next().await.unwrap().unwrap();
        let _second = incoming.next().await.unwrap().unwrap();
        // The third comes from the same address as the first two.
        let _fourth = incoming.next().await.unwrap().unwrap();
        assert_eq!(*lock(&refusals), ["limits.connections_per_address"]);
        assert_eq!(far[2].read(&mut [0; 8]).await.unwrap(), 0);
        drop(first);
        let _fifth = incoming.next().await.unwrap().unwrap();
        assert!(incoming.next().await.is_none());
        assert_eq!(lock(&refusals)[1..], ["limits.connections"]);
        assert!(far[4].write(b"open").await.is_ok());
    }

    #[tokio::test]
    async fn a_cut_breaks_a_connection_that_waits() {
        let (near, _far) = duplex(8);
        let cut = CancellationToken::new();
        let incoming = guarded(listener(vec![(near, 1)]), LIMITS, cut.clone(), |_| {});
        let mut connection = std::pin::pin!(incoming).next().await.unwrap().unwrap();
        let waiting = tokio::spawn(async move { connection.read(&mut [0; 8]).await });
        tokio::task::yield_now().await;
        cut.cancel();
        assert_eq!(waiting.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_does_not_speak_http2_is_sent_away() {
        let (silent, _far) = one(LIMITS).await;
        assert_eq!(lifetime(silent).await.0, PREFACE_TIME);
        let (halting, mut far) = one(LIMITS).await;
        far.write_all(&[0; PREFACE_BYTES - 1]).await.unwrap();
        assert_eq!(lifetime(halting).await.0, PREFACE_TIME);
        let (fluent, mut far) = one(ConnectionLimits { age: Some(Duration::from_secs(100)), ..LIMITS }).await;
        far.write_all(&[0; PREFACE_BYTES]).await.unwrap();
        assert_eq!(lifetime(fluent).await.0, Duration::from_secs(100));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_requests_ends_and_one_with_requests_does_not() {
        let idle = Duration::from_secs(300);
        let (connection, mut far) = one(ConnectionLimits { idle: Some(idle), ..LIMITS }).await;
        far.write_all(&[0; PREFACE_BYTES]).await.unwrap();
        let open = connection.connect_info().begin(1).unwrap();
        let ended = tokio::spawn(lifetime(connection));
        tokio::time::sleep(3 * idle).await;
        assert!(!ended.is_finished());
        drop(open);
        let (lived, why) = ended.await.unwrap();
        assert_eq!((lived, why.as_str()), (4 * idle, "it has had no request for long"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_leaves_an_answer_lying_ends() {
        let (connection, mut far) = one(LIMITS).await;
        far.write_all(&[0; PREFACE_BYTES]).await.unwrap();
        let [slow, waiting] = [(); 2].map(|()| connection.connect_info().begin(2).unwrap());
        let ended = tokio::spawn(lifetime(connection));
        // One takes its answers, if late, and then waits for a record for as long as it likes.
        for _ in 0..3 {
            waiting.handed();
            slow.handed();
            tokio::time::sleep(STREAM_STALL - Duration::from_secs(1)).await;
            waiting.asked();
            slow.asked();
        }
        tokio::time::sleep(10 * STREAM_STALL).await;
        assert!(!ended.is_finished());
        slow.handed();
        let before = Instant::now();
        let (_, why) = ended.await.unwrap();
        assert_eq!(why, "it doesn't take its answers");
        // The connection looks once per such time, so that it may take two.
        assert!((STREAM_STALL..2 * STREAM_STALL).contains(&before.elapsed()), "{:?}", before.elapsed());
    }

    #[tokio::test]
    async fn requests_are_counted_per_connection() {
        let connection = Connection::new();
        let open = [(); 2].map(|()| connection.begin(2));
        assert!(open.iter().all(Option::is_some), "at the bound");
        assert!(connection.begin(2).is_none(), "one past it");
        drop(open);
        assert!(connection.begin(2).is_some());
    }
}

//! The asking side of one stream to one peer.
//!
//! A link connects by itself, for ever. While it is down, calls fail at once; when it goes down, every call
//! and session that waits for an answer fails at once, so that openraft hears `Unreachable` instead of
//! hanging.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use quorate_proto::internal::raft_service_client::RaftServiceClient;
use quorate_proto::internal::{Envelope, Frame, envelope};
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tonic::Streaming;
use tonic::transport::Channel;

use super::peers::Peers;
use super::{Class, FRAME_BYTES_MAX, HELLO_TIMEOUT, Identity, LINK_BYTES, OUTBOX_ENVELOPES, address, frames};

/// Reconnect delay: uniform between these, so that nodes don't knock in step.
const RECONNECT_MS: std::ops::Range<u64> = 100..200;

/// Why a call over a link failed.
#[derive(Clone, Debug, Error)]
pub(crate) enum LinkError {
    #[error("no connection to node {0}")]
    Down(u64),
    #[error("the connection to node {0} was lost before the answer")]
    Lost(u64),
    #[error("node {node} refused: {reason}")]
    Refused { node: u64, reason: String },
    #[error("too many messages are waiting for node {0}")]
    Full(u64),
}

/// Cheap to clone; all clones share the stream.
#[derive(Clone)]
pub(crate) struct Link {
    shared: Arc<Shared>,
}

struct Shared {
    node: u64,
    next_call: AtomicU64,
    state: Mutex<State>,
    up: watch::Sender<bool>,
    budget: Arc<Semaphore>,
}

/// The outbox of the current stream, if there is one, and who waits for answers from it.
#[derive(Default)]
struct State {
    outbox: Option<mpsc::Sender<Envelope>>,
    /// Who answered at the other end of the current stream.
    peer: Option<Identity>,
    waiting: BTreeMap<u64, Waiter>,
}

enum Waiter {
    Call(oneshot::Sender<Envelope>),
    Session(mpsc::UnboundedSender<Envelope>),
}

impl Link {
    pub(crate) fn new(node: u64) -> Self {
        Self {
            shared: Arc::new(Shared {
                node,
                next_call: AtomicU64::new(1),
                state: Mutex::default(),
                up: watch::Sender::new(false),
                budget: Arc::new(Semaphore::new(LINK_BYTES)),
            }),
        }
    }

    /// Bytes that all append sessions of this link may have unanswered.
    pub(crate) fn budget(&self) -> Arc<Semaphore> {
        Arc::clone(&self.shared.budget)
    }

    pub(crate) fn is_up(&self) -> bool {
        *self.shared.up.borrow()
    }

    pub(crate) async fn wait_until_up(&self) {
        // Fails only once the link is dropped, and this is one.
        let _ = self.shared.up.subscribe().wait_for(|up| *up).await;
    }

    /// Who is at the other end, while the link is up.
    pub(crate) fn peer(&self) -> Option<Identity> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).peer.clone()
    }

    /// Sends one envelope and waits for its answer. Cancel-safe: dropping the future forgets the call.
    pub(crate) async fn call(
        &self,
        group: u64,
        to_replica: u64,
        body: envelope::Body,
    ) -> Result<envelope::Body, LinkError> {
        self.start_call(group, to_replica, body).await?.await
    }

    /// Enqueues the question, and returns the wait for its answer: questions of one caller keep their order.
    pub(crate) async fn start_call(
        &self,
        group: u64,
        to_replica: u64,
        body: envelope::Body,
    ) -> Result<impl Future<Output = Result<envelope::Body, LinkError>> + Send + use<>, LinkError> {
        let (answer, answered) = oneshot::channel();
        let (call_id, outbox) = self.register(Waiter::Call(answer))?;
        let forget = Forget { link: self.clone(), call_id };
        let node = self.shared.node;
        outbox.send(address(group, to_replica, call_id, body)).await.map_err(|_| LinkError::Lost(node))?;
        Ok(async move {
            let _forget = forget;
            let envelope = answered.await.map_err(|_| LinkError::Lost(node))?;
            match envelope.body {
                Some(envelope::Body::Refusal(refusal)) => Err(LinkError::Refused { node, reason: refusal.reason }),
                Some(body) => Ok(body),
                None => Err(LinkError::Refused { node, reason: "empty answer".to_owned() }),
            }
        })
    }

    /// Sends one envelope that wants no answer, or drops it if it would have to wait.
    pub(crate) fn post(&self, body: envelope::Body) -> Result<(), LinkError> {
        let outbox = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).outbox.clone();
        let outbox = outbox.ok_or(LinkError::Down(self.shared.node))?;
        outbox.try_send(address(0, 0, 0, body)).map_err(|_| LinkError::Full(self.shared.node))
    }

    /// Opens an append session: many questions, answers in order, one call id.
    pub(crate) fn open_session(&self, group: u64, to_replica: u64) -> Result<Session, LinkError> {
        let (answers, receiver) = mpsc::unbounded_channel();
        let (call_id, outbox) = self.register(Waiter::Session(answers))?;
        Ok(Session {
            questions: SessionSender { group, to_replica, call_id, outbox, node: self.shared.node },
            answers: receiver,
            _forget: Forget { link: self.clone(), call_id },
        })
    }

    fn register(&self, waiter: Waiter) -> Result<(u64, mpsc::Sender<Envelope>), LinkError> {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        let outbox = state.outbox.clone().ok_or(LinkError::Down(self.shared.node))?;
        let call_id = self.shared.next_call.fetch_add(1, Ordering::Relaxed);
        state.waiting.insert(call_id, waiter);
        Ok((call_id, outbox))
    }

    fn dispatch(&self, answer: Envelope) {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        // An answer whose asker has gone is dropped: it gave up, and its call id is never used again.
        match state.waiting.get(&answer.call_id) {
            Some(Waiter::Call(_)) => {
                if let Some(Waiter::Call(waiter)) = state.waiting.remove(&answer.call_id) {
                    let _ = waiter.send(answer);
                }
            }
            Some(Waiter::Session(waiter)) => {
                let _ = waiter.send(answer);
            }
            None => {}
        }
    }

    /// Keeps the stream to `peers`' idea of this node open until the task is dropped.
    pub(crate) async fn run(self, class: Class, peers: Peers, channel: Channel, address: String) {
        let control = peers.link(self.shared.node, Class::Control);
        loop {
            if let Err(error) = self.run_stream(class, &peers, channel.clone()).await {
                tracing::debug!(node = self.shared.node, ?class, %error, "peer stream ended");
            }
            // A lost connection alone says nothing of the process at its other end.
            let sentinel = peers.sentinel();
            if class == Class::Control && !sentinel.is_gone(self.shared.node) && peers.is_refused(&address).await {
                sentinel.gone(self.shared.node);
            }
            tokio::time::sleep(Duration::from_millis(fastrand::u64(RECONNECT_MS))).await;
            // One of the streams knocks at the door of a node that is down, not all of them.
            if class != Class::Control {
                control.wait_until_up().await;
            }
        }
    }

    async fn run_stream(&self, class: Class, peers: &Peers, channel: Channel) -> Result<(), StreamError> {
        let (outbox, waiting) = mpsc::channel(OUTBOX_ENVELOPES);
        let opening = open(class, peers.me(), &outbox, waiting, channel);
        let mut incoming = tokio::time::timeout(HELLO_TIMEOUT, opening).await??;
        let greeting = tokio::time::timeout(HELLO_TIMEOUT, incoming.message()).await??;
        let first = greeting.and_then(|frame| frame.envelopes.into_iter().next()).and_then(|envelope| envelope.body);
        let peer = match first {
            Some(envelope::Body::Hello(hello)) => {
                let peer = Identity::from(hello);
                if peer.node != self.shared.node {
                    return Err(StreamError::WrongPeer(format!("it is node {}", peer.node)));
                }
                peers.objection(&peer).map_or(Ok(()), |why| Err(StreamError::WrongPeer(why)))?;
                peer
            }
            Some(envelope::Body::Refusal(refusal)) => {
                tracing::warn!(node = self.shared.node, reason = refusal.reason, "peer refused us");
                return Err(StreamError::Refused(refusal.reason));
            }
            _ => return Err(StreamError::NoHello),
        };
        let _up = Up::new(self, outbox, peer);
        tracing::debug!(node = self.shared.node, ?class, "peer stream open");
        let sentinel = peers.sentinel();
        sentinel.heard(self.shared.node);
        if class == Class::Data {
            sentinel.linked(self.shared.node);
        }
        while let Some(frame) = incoming.next().await {
            let frame = frame?;
            sentinel.heard(self.shared.node);
            for answer in frame.envelopes {
                self.dispatch(answer);
            }
        }
        Ok(())
    }
}

/// While it lives, the link is up; when it goes, everyone who waits for an answer hears of it.
struct Up<'a> {
    link: &'a Link,
    outbox: mpsc::Sender<Envelope>,
}

impl<'a> Up<'a> {
    fn new(link: &'a Link, outbox: mpsc::Sender<Envelope>, peer: Identity) -> Self {
        {
            let mut state = link.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.outbox = Some(outbox.clone());
            state.peer = Some(peer);
        }
        link.shared.up.send_replace(true);
        Self { link, outbox }
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        let waiting = {
            let mut state = self.link.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            // A newer stream of the same link may have taken over already.
            if !state.outbox.as_ref().is_some_and(|current| current.same_channel(&self.outbox)) {
                return;
            }
            state.outbox = None;
            state.peer = None;
            std::mem::take(&mut state.waiting)
        };
        self.link.shared.up.send_replace(false);
        drop(waiting);
    }
}

async fn open(
    class: Class,
    me: &Identity,
    outbox: &mpsc::Sender<Envelope>,
    waiting: mpsc::Receiver<Envelope>,
    channel: Channel,
) -> Result<Streaming<Frame>, StreamError> {
    // The channel is empty and far larger than one: this can't wait or fail.
    let _ = outbox.try_send(me.hello());
    let mut client = RaftServiceClient::new(channel)
        .max_decoding_message_size(FRAME_BYTES_MAX)
        .max_encoding_message_size(FRAME_BYTES_MAX);
    let outgoing = frames(waiting);
    let response = match class {
        Class::Control => client.control(outgoing).await,
        Class::Data => client.data(outgoing).await,
        Class::Forward => client.forward(outgoing).await,
    }?;
    Ok(response.into_inner())
}

#[derive(Debug, Error)]
enum StreamError {
    #[error("timed out")]
    Timeout(#[from] tokio::time::error::Elapsed),
    #[error("{0}")]
    Grpc(#[from] tonic::Status),
    #[error("not the peer that was meant: {0}")]
    WrongPeer(String),
    #[error("refused: {0}")]
    Refused(String),
    #[error("the peer sent no greeting")]
    NoHello,
}

/// One append session of the asking side.
pub(crate) struct Session {
    pub(crate) questions: SessionSender,
    /// Closed when the link is lost.
    pub(crate) answers: mpsc::UnboundedReceiver<Envelope>,
    _forget: Forget,
}

/// The sending half of a session.
#[derive(Clone)]
pub(crate) struct SessionSender {
    group: u64,
    to_replica: u64,
    call_id: u64,
    outbox: mpsc::Sender<Envelope>,
    node: u64,
}

impl SessionSender {
    pub(crate) async fn send(&self, body: envelope::Body) -> Result<(), LinkError> {
        let envelope = address(self.group, self.to_replica, self.call_id, body);
        self.outbox.send(envelope).await.map_err(|_| LinkError::Lost(self.node))
    }

    /// For a place that can't wait, such as a drop.
    pub(crate) fn try_send(&self, body: envelope::Body) -> Result<(), LinkError> {
        let envelope = address(self.group, self.to_replica, self.call_id, body);
        self.outbox.try_send(envelope).map_err(|_| LinkError::Full(self.node))
    }
}

/// Takes a call out of the registry when its asker goes away.
struct Forget {
    link: Link,
    call_id: u64,
}

impl Drop for Forget {
    fn drop(&mut self) {
        let mut state = self.link.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting.remove(&self.call_id);
    }
}

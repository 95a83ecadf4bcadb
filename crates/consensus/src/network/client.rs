//! openraft's network traits over links.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, Stream, StreamExt};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption, RaftNetworkFactory,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendError, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use quorate_model::sabotage::{Bug, is_planted};
use quorate_proto::internal::{self as wire, envelope::Body};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::link::{Link, SessionSender};
use super::peers::Peers;
use super::{Class, SESSION_BYTES, SESSION_WINDOW};
use crate::codec;
use crate::types::{Entry, Member, Snapshot, Types, Vote};

type AppendResponses<'s> = BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>;

/// Makes the clients of one group.
pub(crate) struct NetworkFactory {
    group: u64,
    peers: Peers,
}

impl NetworkFactory {
    pub(crate) fn new(group: u64, peers: Peers) -> Self {
        Self { group, peers }
    }

    fn client(&self, target: u64, member: Member, class: Class) -> Client {
        Client {
            group: self.group,
            target,
            class,
            link: self.peers.link(member.node, class),
            control: self.peers.link(member.node, Class::Control),
        }
    }
}

impl RaftNetworkFactory<Types> for NetworkFactory {
    type Network = Client;

    async fn new_client(&mut self, target: u64, node: &Member) -> Client {
        self.client(target, *node, Class::Data)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Member) -> Client {
        self.client(target, *node, Class::Control)
    }
}

/// One group's way to one replica.
pub(crate) struct Client {
    group: u64,
    target: u64,
    class: Class,
    /// Of `class`.
    link: Link,
    /// Votes always go here.
    control: Link,
}

impl Client {
    async fn call(&self, link: &Link, body: Body, option: &RPCOption) -> Result<Body, Unreachable<Types>> {
        let call = link.call(self.group, self.target, body);
        match tokio::time::timeout(option.hard_ttl(), call).await {
            Ok(answer) => answer.map_err(|error| Unreachable::new(&error)),
            Err(elapsed) => Err(Unreachable::new(&elapsed)),
        }
    }

    async fn ask_vote(&self, body: Body, option: RPCOption) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let Body::VoteReply(reply) = self.call(&self.control, body, &option).await? else {
            return Err(unexpected());
        };
        let vote = codec::wire_to_vote(reply.vote.ok_or_else(unexpected)?);
        Ok(VoteResponse::new(vote, reply.last_log_id.map(codec::wire_to_log_id), reply.granted))
    }

    /// A heartbeat: one question, one answer, on the control connection.
    async fn append_once<S>(&self, mut input: S, option: RPCOption) -> Result<AppendResponses<'static>, RPCError<Types>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
    {
        let Some(request) = input.next().await else {
            return Ok(stream::empty().boxed());
        };
        let body = Body::Append(append_to_wire(request, Part::Single));
        let Body::AppendReply(reply) = self.call(&self.link, body, &option).await? else {
            return Err(unexpected());
        };
        let result = append_result(reply)?;
        Ok(stream::once(async move { Ok(result) }).boxed())
    }

    /// A replication session: a pipeline of questions with their answers in order.
    async fn append_session<S>(&self, mut input: S) -> Result<AppendResponses<'static>, RPCError<Types>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
    {
        let session = match self.link.open_session(self.group, self.target) {
            Ok(session) => session,
            Err(error) => {
                // openraft's back-off lives in its input stream: failing without polling it would make
                // openraft spin on a dead peer.
                let _ = input.next().await;
                return Err(Unreachable::new(&error).into());
            }
        };
        let sent = is_planted(Bug::SentCountedAsStored).then(|| Arc::new(Mutex::new(None)));
        let newest = sent.clone();
        let input = input.inspect(move |request| {
            if let (Some(newest), Some(last)) = (&newest, request.entries.last()) {
                *newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(last.log_id);
            }
        });
        let window = Window::new(self.link.budget());
        // openraft holds a lock inside the input stream: the pump must die with the response stream.
        let task = tokio::spawn(pump(input, session.questions.clone(), window.clone()));
        let pump = Pump { task, questions: session.questions.clone() };
        let node_lost = Unreachable::from_string("connection lost during replication");
        let responses = stream::unfold(Some((session, pump)), move |state| {
            let window = window.clone();
            let node_lost = node_lost.clone();
            let sent = sent.clone();
            async move {
                let (mut session, pump) = state?;
                let Some(answer) = session.answers.recv().await else {
                    return Some((Err(node_lost.into()), None));
                };
                match answer.body {
                    Some(Body::AppendReply(reply)) => {
                        window.answered();
                        match append_result(reply) {
                            Ok(Ok(matching)) => {
                                let sent = sent.and_then(|sent| *sent.lock().unwrap_or_else(PoisonError::into_inner));
                                Some((Ok(Ok(matching.max(sent))), Some((session, pump))))
                            }
                            Ok(result) => Some((Ok(result), None)),
                            Err(error) => Some((Err(error), None)),
                        }
                    }
                    Some(Body::SessionEnd(_)) => None,
                    Some(Body::Refusal(refusal)) => Some((Err(Unreachable::from_string(refusal.reason).into()), None)),
                    _ => Some((Err(unexpected()), None)),
                }
            }
        });
        Ok(responses.boxed())
    }
}

/// Forwards requests until openraft's stream ends, then half-closes the session. The half-close matters:
/// openraft's first stream to a follower is a finite probe, and it waits for the end of the answers.
async fn pump<S>(mut input: S, questions: SessionSender, window: Window)
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin,
{
    let mut part = Part::First;
    while let Some(request) = input.next().await {
        window.wait_for_room(&request).await;
        if questions.send(Body::Append(append_to_wire(request, part))).await.is_err() {
            return;
        }
        part = Part::Later;
    }
    let _ = questions.send(Body::SessionEnd(wire::SessionEnd {})).await;
}

/// What a session may have unanswered: a number of requests, which is what the other side buffers for it, so
/// that one slow group can't block the link; and bytes, of its own and of all sessions of the link, so that a
/// follower which catches up in many groups at once doesn't fill anybody's memory.
#[derive(Clone)]
struct Window {
    requests: Arc<Semaphore>,
    session_bytes: Arc<Semaphore>,
    link_bytes: Arc<Semaphore>,
    in_flight: Arc<Mutex<VecDeque<[OwnedSemaphorePermit; 3]>>>,
}

impl Window {
    fn new(link_bytes: Arc<Semaphore>) -> Self {
        Self {
            requests: Arc::new(Semaphore::new(SESSION_WINDOW)),
            session_bytes: Arc::new(Semaphore::new(SESSION_BYTES as usize)),
            link_bytes,
            in_flight: Arc::default(),
        }
    }

    async fn wait_for_room(&self, request: &AppendEntriesRequest<Types>) {
        let bytes: usize = request.entries.iter().map(entry_bytes).sum();
        // A request beyond the budget goes alone.
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).clamp(1, SESSION_BYTES);
        // These semaphores are never closed.
        let Ok(slot) = Arc::clone(&self.requests).acquire_owned().await else { return };
        let Ok(of_session) = Arc::clone(&self.session_bytes).acquire_many_owned(bytes).await else { return };
        let Ok(of_link) = Arc::clone(&self.link_bytes).acquire_many_owned(bytes).await else { return };
        self.lock().push_back([slot, of_session, of_link]);
    }

    /// Answers come in the order of the requests.
    fn answered(&self) {
        self.lock().pop_front();
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<[OwnedSemaphorePermit; 3]>> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn entry_bytes(entry: &Entry) -> usize {
    match &entry.payload {
        openraft::EntryPayload::Normal(command) => command.0.len(),
        _ => 0,
    }
}

/// The running pump; dropping it ends the session on the other side too.
struct Pump {
    task: tokio::task::JoinHandle<()>,
    questions: SessionSender,
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.task.abort();
        // With a full outbox the other side keeps an idle session until the link closes: a few bytes.
        let _ = self.questions.try_send(Body::SessionEnd(wire::SessionEnd {}));
    }
}

impl NetBackoff<Types> for Client {
    /// None: openraft's configured series.
    fn backoff(&self) -> Option<Backoff> {
        None
    }
}

impl NetStreamAppend<Types> for Client {
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<AppendResponses<'s>, RPCError<Types>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
    {
        Box::pin(async move {
            match self.class {
                Class::Control => self.append_once(input, option).await,
                Class::Data | Class::Forward => self.append_session(input).await,
            }
        })
    }
}

impl NetVote<Types> for Client {
    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask_vote(Body::Vote(vote_request_to_wire(&rpc)), option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask_vote(Body::PreVote(vote_request_to_wire(&rpc)), option).await
    }
}

impl NetSnapshot<Types> for Client {
    type SnapshotData = Bytes;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let membership = &snapshot.meta.last_membership;
        let body = Body::Snapshot(wire::Snapshot {
            vote: Some(codec::vote_to_wire(&vote)),
            last_log_id: snapshot.meta.last_log_id.as_ref().map(codec::log_id_to_wire),
            membership: codec::stored_membership_to_bytes(membership),
            data: snapshot.snapshot,
        });
        let answer = tokio::select! {
            answer = self.call(&self.link, body, &option) => answer?,
            closed = cancel => return Err(closed.into()),
        };
        let Body::SnapshotReply(reply) = answer else {
            return Err(Unreachable::from_string("unexpected answer").into());
        };
        let vote = reply.vote.ok_or_else(|| Unreachable::<Types>::from_string("answer without a vote"))?;
        Ok(SnapshotResponse::new(codec::wire_to_vote(vote)))
    }
}

impl NetTransferLeader<Types> for Client {
    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let body = Body::TransferLeader(wire::TransferLeader {
            from_leader: Some(codec::vote_to_wire(req.from_leader())),
            to: *req.to_node_id(),
            last_log_id: req.last_log_id().map(codec::log_id_to_wire),
        });
        let Body::TransferLeaderReply(reply) = self.call(&self.control, body, &option).await? else {
            return Err(unexpected());
        };
        // The refusal's details are in the other node's log; to openraft a refused transfer is a failed one.
        if reply.refusal.is_empty() { Ok(Ok(())) } else { Err(Unreachable::from_string(reply.refusal).into()) }
    }
}

/// Which request of how many.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// A call of its own.
    Single,
    /// The first of a session.
    First,
    /// Another one of a session.
    Later,
}

fn append_to_wire(request: AppendEntriesRequest<Types>, part: Part) -> wire::Append {
    wire::Append {
        vote: Some(codec::vote_to_wire(&request.vote)),
        prev_log_id: request.prev_log_id.as_ref().map(codec::log_id_to_wire),
        leader_commit: request.leader_commit.as_ref().map(codec::log_id_to_wire),
        entries: request.entries.into_iter().map(codec::entry_to_wire).collect(),
        single: part == Part::Single,
        opens_session: part == Part::First,
    }
}

fn append_result(reply: wire::AppendReply) -> Result<StreamAppendResult<Types>, RPCError<Types>> {
    use wire::append_reply::Outcome;
    match reply.outcome {
        Some(Outcome::Matching(matching)) => Ok(Ok(matching.log_id.map(codec::wire_to_log_id))),
        Some(Outcome::Conflict(id)) => Ok(Err(StreamAppendError::Conflict(codec::wire_to_log_id(id)))),
        Some(Outcome::HigherVote(vote)) => Ok(Err(StreamAppendError::HigherVote(codec::wire_to_vote(vote)))),
        None => Err(unexpected()),
    }
}

fn vote_request_to_wire(request: &VoteRequest<Types>) -> wire::Vote {
    wire::Vote {
        vote: Some(codec::vote_to_wire(&request.vote)),
        last_log_id: request.last_log_id.as_ref().map(codec::log_id_to_wire),
        leadership_transfer: request.leadership_transfer,
    }
}

fn unexpected() -> RPCError<Types> {
    Unreachable::from_string("unexpected answer").into()
}

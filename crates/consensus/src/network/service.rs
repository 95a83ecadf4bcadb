//! The answering side: greets, finds the group, hands requests to its Raft, sends answers back.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use futures::stream::{Stream, StreamExt};
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use quorate_model::sabotage::{Bug, is_planted};
use quorate_model::{Appended, GroupId, PartitionCommand, ReplicaId};
use quorate_proto::internal::raft_service_server::{RaftService, RaftServiceServer};
use quorate_proto::internal::{self as wire, Envelope, Frame, envelope::Body};
use tokio::sync::mpsc;
use tokio::task::unconstrained;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{
    FORWARD_TIME_MAX, FRAME_BYTES_MAX, HELLO_TIMEOUT, Identity, OUTBOX_ENVELOPES, SESSION_WINDOW, address, frames,
    refusal,
};
use crate::admission::{Overload, Permit};
use crate::codec;
use crate::group::{ProposeError, RaftGroup};
use crate::groups::RaftGroups;
use crate::types::{Snapshot, SnapshotMeta, Types};

type Answers = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

/// The tonic service of a node's peer listener.
pub(crate) struct Service {
    groups: RaftGroups,
}

impl Service {
    pub(crate) fn server(groups: RaftGroups) -> RaftServiceServer<Self> {
        RaftServiceServer::new(Self { groups })
            .max_decoding_message_size(FRAME_BYTES_MAX)
            .max_encoding_message_size(FRAME_BYTES_MAX)
    }

    /// Answers at once, so that the response headers go out, and works in a task that ends with the stream.
    fn accept(&self, request: Request<Streaming<Frame>>) -> Response<Answers> {
        let (outbox, waiting) = mpsc::channel(OUTBOX_ENVELOPES);
        let inbound = Inbound { groups: self.groups.clone(), outbox, sessions: BTreeMap::new() };
        tokio::spawn(inbound.run(request.into_inner()));
        Response::new(frames(waiting).map(Ok).boxed())
    }
}

#[tonic::async_trait]
impl RaftService for Service {
    type ControlStream = Answers;
    type DataStream = Answers;
    type ForwardStream = Answers;

    async fn control(&self, request: Request<Streaming<Frame>>) -> Result<Response<Answers>, Status> {
        Ok(self.accept(request))
    }

    async fn data(&self, request: Request<Streaming<Frame>>) -> Result<Response<Answers>, Status> {
        Ok(self.accept(request))
    }

    async fn forward(&self, request: Request<Streaming<Frame>>) -> Result<Response<Answers>, Status> {
        Ok(self.accept(request))
    }
}

/// One peer's stream to this node.
struct Inbound {
    groups: RaftGroups,
    outbox: mpsc::Sender<Envelope>,
    sessions: BTreeMap<u64, mpsc::Sender<AppendEntriesRequest<Types>>>,
}

impl Inbound {
    async fn run(mut self, mut incoming: Streaming<Frame>) {
        let Ok(Ok(Some(first))) = tokio::time::timeout(HELLO_TIMEOUT, incoming.message()).await else { return };
        let mut envelopes = first.envelopes.into_iter();
        let Some(Body::Hello(hello)) = envelopes.next().and_then(|envelope| envelope.body) else { return };
        let greeting = Identity::from(hello);
        if let Some(reason) = self.groups.peers().objection(&greeting) {
            tracing::warn!(node = greeting.node, reason, "refused a peer");
            let _ = self.outbox.send(address(0, 0, 0, refusal(&reason))).await;
            return;
        }
        let _ = self.outbox.send(self.groups.peers().me().hello()).await;
        for envelope in envelopes {
            self.serve(envelope).await;
        }
        while let Some(Ok(frame)) = incoming.next().await {
            // What is known of the peer may have changed since it greeted us: its disk must not vote on.
            if let Some(reason) = self.groups.peers().objection(&greeting) {
                tracing::warn!(node = greeting.node, reason, "turned a peer away");
                return;
            }
            self.groups.peers().sentinel().heard(greeting.node);
            for envelope in frame.envelopes {
                match envelope.body {
                    Some(Body::NodeHeartbeat(word)) => self.groups.peers().sentinel().heartbeat(greeting.node, word),
                    _ => self.serve(envelope).await,
                }
            }
        }
    }

    async fn serve(&mut self, question: Envelope) {
        let Envelope { group_id, to_replica_id, call_id, body } = question;
        let reply = Reply { outbox: self.outbox.clone(), group_id, call_id };
        if let Some(Body::SessionEnd(_)) = body {
            self.sessions.remove(&call_id);
            return;
        }
        let Some(group) = self.groups.get(GroupId::new(group_id)) else {
            return reply.send(refusal(&format!("group {group_id} is not open on this node"))).await;
        };
        if group.replica().get() != to_replica_id {
            let held = group.replica();
            return reply.send(refusal(&format!("this node holds replica {held}, not {to_replica_id}"))).await;
        }
        match body {
            Some(Body::Append(append)) if !append.single => self.serve_session(&group, append, reply).await,
            Some(Body::Propose(propose)) => self.serve_propose(group, propose, reply).await,
            Some(body) => drop(tokio::spawn(async move { reply.send(answer(&group, body).await).await })),
            None => reply.send(refusal(&"empty envelope")).await,
        }
    }

    async fn serve_propose(&self, group: RaftGroup, propose: wire::Propose, reply: Reply) {
        let asked = Duration::from_millis(u64::from(propose.timeout_ms));
        // 0 is a node of a version that didn't say.
        let time = if asked.is_zero() { FORWARD_TIME_MAX } else { asked.min(FORWARD_TIME_MAX) };
        let permit = match self.admit(group.id(), propose.command.len()) {
            Ok(permit) => permit,
            Err(overload) => return reply.send(propose_reply(Err(ProposeError::Overloaded(overload)))).await,
        };
        let command = match group.id() {
            GroupId::METADATA => propose.command,
            _ => PartitionCommand::proposed_at(propose.command, self.groups.peers().wall_clock_ms()),
        };
        let mut proposing = Box::pin(async move {
            if is_planted(Bug::AnswerBeforeCommit) && group.id() != GroupId::METADATA {
                let base_offset = group.progress().borrow().end;
                drop(group.submit(command).await);
                let appended = Appended { base_offset, count: 1, duplicate: false };
                return reply.send(propose_reply(Ok(quorate_model::Reply::Partition(Ok(appended))))).await;
            }
            let outcome = tokio::time::timeout(time, group.propose(command)).await;
            // Whether it is committed later or never: nobody waits for it, so it takes up no room.
            drop(permit);
            let late = |_| Err(ProposeError::Unknown { why: "no quorum within the sender's time".to_owned() });
            reply.send(propose_reply(outcome.unwrap_or_else(late))).await;
        });
        // The first poll takes a place in the group's queue, so that proposals keep the order in which they
        // arrived; the rest is a task, so that one group can't hold up the others. Unconstrained: a poll for which
        // tokio's budget is used up would return without a place.
        if futures::poll!(unconstrained(proposing.as_mut())).is_pending() {
            tokio::spawn(proposing);
        }
    }

    /// Room for a forwarded command. The metadata group is small and must be able to help: it always has room.
    fn admit(&self, group: GroupId, bytes: usize) -> Result<Option<Permit>, Overload> {
        if group == GroupId::METADATA {
            return Ok(None);
        }
        let admission = self.groups.admission();
        admission.disk_keeps_up()?;
        admission.admit(bytes).map(Some)
    }

    async fn serve_session(&mut self, group: &RaftGroup, append: wire::Append, reply: Reply) {
        let call_id = reply.call_id;
        if !append.opens_session && !self.sessions.contains_key(&call_id) {
            // Left over from a session that has ended.
            return;
        }
        let request = match append_from_wire(append) {
            Ok(request) => request,
            Err(error) => return reply.send(refusal(&error)).await,
        };
        let requests = self.sessions.entry(call_id).or_insert_with(|| {
            let (requests, receiver) = mpsc::channel(SESSION_WINDOW);
            let results = group.raft().stream_append(ReceiverStream::new(receiver));
            tokio::spawn(answer_session(results, reply));
            requests
        });
        // The asking side keeps to the window, so this doesn't wait: one group can't hold up the others.
        if requests.send(request).await.is_err() {
            self.sessions.remove(&call_id);
        }
    }
}

async fn answer_session<E: std::fmt::Display>(
    results: impl Stream<Item = Result<StreamAppendResult<Types>, E>> + Send,
    reply: Reply,
) {
    let mut results = std::pin::pin!(results);
    while let Some(result) = results.next().await {
        match result {
            Ok(result) => reply.send(append_reply(&result)).await,
            Err(fatal) => return reply.send(refusal(&fatal)).await,
        }
    }
    reply.send(Body::SessionEnd(wire::SessionEnd {})).await;
}

/// Where an answer goes.
struct Reply {
    outbox: mpsc::Sender<Envelope>,
    group_id: u64,
    call_id: u64,
}

impl Reply {
    /// An error means that the stream has ended: the asking side knows.
    async fn send(&self, body: Body) {
        let _ = self.outbox.send(address(self.group_id, 0, self.call_id, body)).await;
    }
}

/// Everything that is one question and one answer.
async fn answer(group: &RaftGroup, question: Body) -> Body {
    if let Body::Vote(vote) | Body::PreVote(vote) = &question {
        let candidacy = vote.vote.unwrap_or_default();
        group.hear_candidate(ReplicaId::new(candidacy.voted_for), candidacy.term).await;
    }
    match try_answer(group, question).await {
        Ok(body) => body,
        Err(reason) => refusal(&reason),
    }
}

async fn try_answer(group: &RaftGroup, question: Body) -> Result<Body, String> {
    let raft = group.raft();
    match question {
        Body::Vote(vote) => {
            let response = raft.vote(vote_request_from_wire(vote)?).await.map_err(text)?;
            Ok(vote_reply(&response))
        }
        Body::PreVote(vote) => {
            let response = raft.pre_vote(vote_request_from_wire(vote)?).await.map_err(text)?;
            Ok(vote_reply(&response))
        }
        Body::Append(append) => {
            let request = append_from_wire(append).map_err(text)?;
            let prev = request.prev_log_id;
            let last = request.entries.last().map(|entry| entry.log_id).or(prev);
            let response = raft.append_entries(request).await.map_err(text)?;
            Ok(append_reply(&response.into_stream_result(prev, last)))
        }
        Body::TransferLeader(transfer) => {
            let from = codec::wire_to_vote(transfer.from_leader.ok_or("transfer without a vote")?);
            let last = transfer.last_log_id.map(codec::wire_to_log_id);
            let request = TransferLeaderRequest::new(from, transfer.to, last);
            let refusal = match raft.handle_transfer_leader(request).await.map_err(text)? {
                Ok(()) => String::new(),
                Err(error) => error.to_string(),
            };
            Ok(Body::TransferLeaderReply(wire::TransferLeaderReply { refusal }))
        }
        Body::Snapshot(snapshot) => {
            let vote = codec::wire_to_vote(snapshot.vote.ok_or("snapshot without a vote")?);
            let meta = SnapshotMeta {
                last_log_id: snapshot.last_log_id.map(codec::wire_to_log_id),
                last_membership: codec::stored_membership_from_bytes(&snapshot.membership).map_err(text)?,
            };
            let snapshot = Snapshot { meta, snapshot: snapshot.data };
            let vote = group.running().install(vote, snapshot).await?;
            Ok(Body::SnapshotReply(wire::SnapshotReply { vote: Some(codec::vote_to_wire(&vote)) }))
        }
        other => Err(format!("not a question: {other:?}")),
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn append_from_wire(append: wire::Append) -> Result<AppendEntriesRequest<Types>, std::io::Error> {
    let vote = append.vote.ok_or_else(|| std::io::Error::other("append without a vote"))?;
    let mut request: AppendEntriesRequest<Types> = AppendEntriesRequest {
        vote: codec::wire_to_vote(vote),
        prev_log_id: append.prev_log_id.map(codec::wire_to_log_id),
        entries: append.entries.into_iter().map(codec::wire_to_entry).collect::<Result<_, _>>()?,
        leader_commit: append.leader_commit.map(codec::wire_to_log_id),
    };
    if is_planted(Bug::ReceivedTakenForCommitted) {
        request.leader_commit = request.entries.last().map(|entry| entry.log_id).or(request.leader_commit);
    }
    Ok(request)
}

fn append_reply(result: &StreamAppendResult<Types>) -> Body {
    use wire::append_reply::{Matching, Outcome};
    let outcome = match result {
        Ok(matching) => Outcome::Matching(Matching { log_id: matching.as_ref().map(codec::log_id_to_wire) }),
        Err(StreamAppendError::Conflict(id)) => Outcome::Conflict(codec::log_id_to_wire(id)),
        Err(StreamAppendError::HigherVote(vote)) => Outcome::HigherVote(codec::vote_to_wire(vote)),
    };
    Body::AppendReply(wire::AppendReply { outcome: Some(outcome) })
}

fn vote_request_from_wire(request: wire::Vote) -> Result<VoteRequest<Types>, String> {
    let vote = codec::wire_to_vote(request.vote.ok_or("vote request without a vote")?);
    let mut out = VoteRequest::new(vote, request.last_log_id.map(codec::wire_to_log_id));
    out.leadership_transfer = request.leadership_transfer;
    Ok(out)
}

fn vote_reply(response: &VoteResponse<Types>) -> Body {
    Body::VoteReply(wire::VoteReply {
        vote: Some(codec::vote_to_wire(&response.vote)),
        granted: response.vote_granted,
        last_log_id: response.last_log_id.as_ref().map(codec::log_id_to_wire),
    })
}

fn propose_reply(result: Result<quorate_model::Reply, ProposeError>) -> Body {
    use wire::propose_reply::Outcome;
    let outcome = match result {
        Ok(reply) => Outcome::Reply(reply.encode()),
        Err(ProposeError::NotLeader { leader, term }) => Outcome::NotLeader(wire::NotLeader {
            leader_replica_id: leader.map_or(0, |leader| leader.id.get()),
            leader_node_id: leader.map_or(0, |leader| leader.node.get()),
            term,
        }),
        Err(ProposeError::Overloaded(Overload { setting, limit })) => {
            Outcome::Overloaded(wire::Overloaded { setting: setting.into_owned(), limit })
        }
        Err(ProposeError::Unknown { why }) => Outcome::Unknown(why),
        Err(ProposeError::Stopped) => return refusal(&"the group stopped"),
    };
    Body::ProposeReply(wire::ProposeReply { outcome: Some(outcome) })
}

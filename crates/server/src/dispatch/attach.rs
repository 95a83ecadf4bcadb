//! Keeps a session attached to the leaders of its partitions, wherever they are.

use std::sync::Arc;

use quorate_model::SubscriptionInfo;
use quorate_proto::internal::dispatch_request::Request;
use quorate_proto::internal::dispatch_response::Response;
use quorate_proto::{internal as wire, v1};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::session::Credit;
use super::{Event, Handle, Order, Session};
use crate::api::error::ApiError;
use crate::front::{Front, Partition};
use crate::leaders::KnownLeader;
use crate::limits::CREDIT_LENT;
use crate::peers::Traffic;
use crate::router::{LEADER_POLL, Route, Routing};

/// Requests to another node's dispatching that wait to be sent.
const REMOTE_REQUESTS: usize = 4;

/// A partition that isn't attached any more, and why.
pub(crate) struct Lost {
    pub(crate) partition: u32,
    pub(crate) error: ApiError,
}

/// A session's attachments, one per partition.
pub(crate) struct Attachments {
    tasks: JoinSet<Lost>,
    leaving: CancellationToken,
    keeping: CancellationToken,
}

impl Attachments {
    /// Attaches a session to partitions of a subscription's topic.
    pub(crate) fn of(
        front: &Arc<Front>,
        subscription: &Arc<SubscriptionInfo>,
        partitions: Vec<Partition>,
        session: &Session,
        routing: Routing,
    ) -> Self {
        let (mut tasks, leaving, keeping) = (JoinSet::new(), CancellationToken::new(), CancellationToken::new());
        for partition in partitions {
            let attachment = Attachment {
                front: Arc::clone(front),
                subscription: Arc::clone(subscription),
                partition,
                session: session.clone(),
                routing,
                leaving: leaving.clone(),
                keeping: keeping.clone(),
            };
            tasks.spawn(async move {
                let (partition, error) = (attachment.partition.id.index, attachment.keep().await);
                Lost { partition, error }
            });
        }
        Self { tasks, leaving, keeping }
    }

    /// Resolves when a partition can't be kept attached.
    pub(crate) async fn lost(&mut self) -> Lost {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(lost)) => return lost,
                Some(Err(broken)) => tracing::error!(%broken, "an attachment ended before its time"),
                None => std::future::pending().await,
            }
        }
    }

    /// Whether no partition is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Detaches the session, which keeps what it has in hand until the time for that is over.
    pub(crate) fn detach(self) {
        self.keeping.cancel();
    }
}

impl Drop for Attachments {
    /// The session leaves. What it has in hand is delivered again, unless it keeps it.
    fn drop(&mut self) {
        self.leaving.cancel();
        // They say goodbye, and end.
        self.tasks.detach_all();
    }
}

/// One session at one partition.
struct Attachment {
    front: Arc<Front>,
    subscription: Arc<SubscriptionInfo>,
    partition: Partition,
    session: Session,
    routing: Routing,
    leaving: CancellationToken,
    keeping: CancellationToken,
}

impl Attachment {
    /// Attaches again and again, until the session leaves or nothing can be done.
    async fn keep(self) -> ApiError {
        let mut attempt = 0;
        loop {
            let ended = match self.front.router.route(self.partition.target(), attempt) {
                None => Err(ApiError::no_leader(&self.partition.label())),
                Some(Route::Local(group)) => {
                    let handle = self.front.dispatch.of(&group, &self.partition, &self.subscription);
                    self.local(handle).await;
                    Ok(())
                }
                Some(Route::Remote(leader)) if self.routing == Routing::Direct => {
                    Err(ApiError::not_leader(&self.partition.label(), leader, &self.front.map.current()))
                }
                Some(Route::Remote(leader)) => self.remote(leader).await,
            };
            if self.leaving.is_cancelled() {
                return ApiError::draining();
            }
            if self.front.map.current().subscription_by_id(self.subscription.id).is_none() {
                return ApiError::subscription_not_found(&self.subscription.name);
            }
            match ended {
                Err(error) if self.routing == Routing::Direct || !error.is_about_leadership() => return error,
                Ok(()) if self.routing == Routing::Direct => return ApiError::no_leader(&self.partition.label()),
                _ => {}
            }
            attempt += 1;
            tokio::select! {
                () = sleep(LEADER_POLL) => {}
                () = self.leaving.cancelled() => return ApiError::draining(),
            }
        }
    }

    /// Until the actor of this node ends, or the session leaves.
    async fn local(&self, handle: Handle) {
        let mut filled = self.session.purse.watch();
        if !handle.send(Order::Join(self.session.clone())).await {
            return;
        }
        loop {
            tokio::select! {
                () = self.leaving.cancelled() => break,
                () = handle.ended() => return,
                changed = filled.changed() => match changed {
                    Ok(()) => handle.wake(),
                    Err(_) => break,
                },
            }
        }
        handle.send(Order::Leave { session: self.session.id, keeps: self.keeping.is_cancelled() }).await;
    }

    /// Until the actor of another node ends, or the session leaves. Credit is lent to it when it needs some.
    async fn remote(&self, leader: KnownLeader) -> Result<(), ApiError> {
        let client = self.front.peers.client(leader.node, Traffic::Records);
        let mut client = client.ok_or_else(|| ApiError::no_leader(&self.partition.label()))?;
        let (requests, receiver) = mpsc::channel(REMOTE_REQUESTS);
        let open = wire::DispatchOpen {
            group_id: self.partition.group.get(),
            topic_id: self.partition.id.topic.get(),
            partition: self.partition.id.index,
            subscription_id: self.subscription.id.get(),
        };
        let broken = move |status: tonic::Status| ApiError::from_peer(leader.node, &status);
        let _ = requests.send(request(Request::Open(open))).await;
        let opening = client.dispatch(ReceiverStream::new(receiver));
        let responses = tokio::select! {
            responses = opening => responses.map_err(broken)?.into_inner(),
            () = self.leaving.cancelled() => return Ok(()),
        };
        let mut lending = Lending { session: &self.session, requests, lent: Credit::default(), waiting: false };
        let ended = lending.run(responses, &self.leaving, &self.keeping).await;
        self.session.purse.put(lending.lent);
        ended.map_err(broken)
    }
}

/// Credit that another node has.
struct Lending<'a> {
    session: &'a Session,
    requests: mpsc::Sender<wire::DispatchRequest>,
    lent: Credit,
    /// It needs more.
    waiting: bool,
}

impl Lending<'_> {
    async fn run(
        &mut self,
        mut responses: Streaming<wire::DispatchResponse>,
        leaving: &CancellationToken,
        keeping: &CancellationToken,
    ) -> Result<(), tonic::Status> {
        let mut filled = self.session.purse.watch();
        let mut detached = false;
        loop {
            tokio::select! {
                response = responses.message() => match response? {
                    Some(response) => self.heard(response),
                    None => return Ok(()),
                },
                Ok(()) = filled.changed(), if self.waiting => {}
                () = leaving.cancelled(), if !detached => {
                    if !keeping.is_cancelled() {
                        return Ok(());
                    }
                    // What is under way is still delivered before the stream ends.
                    detached = true;
                    let _ = self.requests.send(request(Request::Detach(true))).await;
                }
            }
            if self.waiting && !detached {
                self.lend().await;
            }
        }
    }

    fn heard(&mut self, response: wire::DispatchResponse) {
        match response.response {
            Some(Response::Deliveries(v1::Deliveries { deliveries })) => {
                let sizes = deliveries.iter().filter_map(|delivery| delivery.message.as_ref()?.message.as_ref());
                let bytes: u64 = sizes.map(|message| message.data.len() as u64).sum();
                self.lent.messages = self.lent.messages.saturating_sub(deliveries.len() as u64);
                self.lent.bytes = self.lent.bytes.saturating_sub(bytes);
                self.session.send(Event::Delivered(deliveries));
            }
            Some(Response::Waiting(_)) => self.waiting = true,
            Some(Response::Unspent(v1::Credit { messages, bytes })) => {
                let unspent =
                    Credit { messages: u64::from(messages).min(self.lent.messages), bytes: bytes.min(self.lent.bytes) };
                self.lent.messages -= unspent.messages;
                self.lent.bytes -= unspent.bytes;
                self.session.purse.put(unspent);
            }
            None => {}
        }
    }

    async fn lend(&mut self) {
        let Credit { messages, bytes } = self.session.purse.split(CREDIT_LENT);
        if messages == 0 {
            return;
        }
        self.waiting = false;
        self.lent.messages += messages;
        self.lent.bytes += bytes;
        let credit = v1::Credit { messages: u32::try_from(messages).unwrap_or(u32::MAX), bytes };
        let _ = self.requests.send(request(Request::Credit(credit))).await;
    }
}

fn request(request: Request) -> wire::DispatchRequest {
    wire::DispatchRequest { request: Some(request) }
}

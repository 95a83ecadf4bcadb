//! [`Streams`]: the `PublishStream` calls of one publisher, one per node and way of routing.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use quorate_model::Reason;
use quorate_proto::v1 as pb;
use quorate_proto::v1::publisher_service_client::PublisherServiceClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::error::ClientError;
use crate::routing::{Route, RoutingMode, TopicRef};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StreamId(u64);

/// What happened on a stream.
#[derive(Debug)]
pub(super) enum StreamEvent {
    Answer {
        stream: StreamId,
        response: pb::PublishStreamResponse,
    },
    /// `opened`: the node had accepted the call, so batches may have been taken.
    Lost {
        stream: StreamId,
        error: ClientError,
        opened: bool,
    },
}

/// One attempt under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) partition: u32,
    pub(super) batch: u64,
    pub(super) attempt: u32,
}

pub(super) struct Streams {
    open: BTreeMap<StreamId, Stream>,
    ids: BTreeMap<(Arc<str>, RoutingMode), StreamId>,
    next: u64,
    events: mpsc::UnboundedSender<StreamEvent>,
}

struct Stream {
    route: Route,
    /// Bounded by the lanes' windows and, through them, by the publisher's byte budget.
    requests: mpsc::UnboundedSender<pb::PublishStreamRequest>,
    outstanding: BTreeMap<u64, Sent>,
    next_sequence: u64,
    _ends_task: DropGuard,
}

impl Streams {
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<StreamEvent>) {
        let (events, receiver) = mpsc::unbounded_channel();
        (Self { open: BTreeMap::new(), ids: BTreeMap::new(), next: 0, events }, receiver)
    }

    /// The stream of this way; begins it if there is none.
    pub(super) fn open(&mut self, route: &Route) -> StreamId {
        let key = (Arc::clone(&route.connection.address), route.mode);
        if let Some(id) = self.ids.get(&key) {
            return *id;
        }
        let id = StreamId(self.next);
        self.next += 1;
        let (requests, receiver) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(run(id, route.clone(), receiver, self.events.clone())));
        let stream = Stream {
            route: route.clone(),
            requests,
            outstanding: BTreeMap::new(),
            next_sequence: 1,
            _ends_task: stop.drop_guard(),
        };
        self.open.insert(id, stream);
        self.ids.insert(key, id);
        id
    }

    pub(super) fn send(
        &mut self,
        id: StreamId,
        topic: &TopicRef,
        partition: u32,
        batch: u64,
        attempt: u32,
        bytes: Bytes,
    ) {
        // A stream that has just ended reports it by an event, which takes the batch back.
        let Some(stream) = self.open.get_mut(&id) else { return };
        let sequence = stream.next_sequence;
        stream.next_sequence += 1;
        stream.outstanding.insert(sequence, Sent { partition, batch, attempt });
        let request = pb::PublishStreamRequest { sequence, topic_id: topic.id.get(), partition, batch: bytes };
        let _ = stream.requests.send(request);
    }

    pub(super) fn answered(&mut self, id: StreamId, sequence: u64) -> Option<(Sent, Route)> {
        let stream = self.open.get_mut(&id)?;
        let sent = stream.outstanding.remove(&sequence)?;
        Some((sent, stream.route.clone()))
    }

    /// Forgets a stream that has ended; returns what nobody will answer any more.
    pub(super) fn remove(&mut self, id: StreamId) -> Option<(Route, Vec<Sent>)> {
        let stream = self.open.remove(&id)?;
        self.ids.retain(|_, open| *open != id);
        Some((stream.route, stream.outstanding.into_values().collect()))
    }
}

async fn run(
    id: StreamId,
    route: Route,
    requests: mpsc::UnboundedReceiver<pb::PublishStreamRequest>,
    events: mpsc::UnboundedSender<StreamEvent>,
) {
    let mut client = PublisherServiceClient::new(route.connection.channel.clone());
    let request = route.request(UnboundedReceiverStream::new(requests));
    let lost = |error, opened| StreamEvent::Lost { stream: id, error, opened };
    let mut responses = match client.publish_stream(request).await {
        Ok(response) => response.into_inner(),
        Err(status) => {
            let _ = events.send(lost(ClientError::from_status(&status), false));
            return;
        }
    };
    let ended = loop {
        match responses.message().await {
            Ok(Some(response)) => {
                if events.send(StreamEvent::Answer { stream: id, response }).is_err() {
                    return;
                }
            }
            Ok(None) => break ClientError::known(Reason::Draining, "the node ended the stream"),
            Err(status) => break ClientError::from_status(&status),
        }
    };
    let _ = events.send(lost(ended, true));
}

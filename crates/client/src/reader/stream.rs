//! One `Read` call to one node, for some partitions of a topic.

use quorate_proto::v1 as pb;
use quorate_proto::v1::reader_service_client::ReaderServiceClient;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::cursor::Phase;
use crate::error::ClientError;
use crate::routing::Route;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StreamId(pub(super) u64);

/// What happened on a stream. `Ended(None)`: the node has sent all that was asked for.
#[derive(Debug)]
pub(super) enum StreamEvent {
    Content(StreamId, pb::read_response::Content),
    Ended(StreamId, Option<ClientError>),
}

/// Dropping it cancels the call.
pub(super) struct ReadStream {
    pub(super) route: Route,
    pub(super) phase: Phase,
    pub(super) partitions: Vec<u32>,
    pub(super) opened_at: Instant,
    _ends_task: DropGuard,
}

impl ReadStream {
    pub(super) fn open(
        id: StreamId,
        route: Route,
        phase: Phase,
        request: pb::ReadRequest,
        events: mpsc::Sender<StreamEvent>,
    ) -> Self {
        let partitions = request.partitions.iter().map(|partition| partition.partition).collect();
        let stop = CancellationToken::new();
        let task = run(id, route.clone(), request, events);
        tokio::spawn(stop.clone().run_until_cancelled_owned(task));
        Self { route, phase, partitions, opened_at: Instant::now(), _ends_task: stop.drop_guard() }
    }
}

async fn run(id: StreamId, route: Route, request: pb::ReadRequest, events: mpsc::Sender<StreamEvent>) {
    let mut client =
        ReaderServiceClient::new(route.connection.channel.clone()).max_decoding_message_size(crate::ANSWER_BYTES_MAX);
    let error = match client.read(route.request(request)).await {
        Ok(response) => {
            let mut responses = response.into_inner();
            loop {
                match responses.message().await {
                    Ok(Some(pb::ReadResponse { content: Some(content) })) => {
                        if events.send(StreamEvent::Content(id, content)).await.is_err() {
                            return;
                        }
                    }
                    // Content of a kind that this client doesn't know, and didn't ask for.
                    Ok(Some(_)) => {}
                    Ok(None) => break None,
                    Err(status) => break Some(ClientError::from_status(&status)),
                }
            }
        }
        Err(status) => Some(ClientError::from_status(&status)),
    };
    let _ = events.send(StreamEvent::Ended(id, error)).await;
}

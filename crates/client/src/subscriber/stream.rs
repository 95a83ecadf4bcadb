//! One `Subscribe` call to one node, for some partitions of a subscription's topic.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use quorate_proto::v1 as pb;
use quorate_proto::v1::subscribe_request::Request;
use quorate_proto::v1::subscriber_service_client::SubscriberServiceClient;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::error::ClientError;
use crate::routing::Route;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StreamId(pub(super) u64);

/// What happened on a stream.
#[derive(Debug)]
pub(super) enum StreamEvent {
    Response(StreamId, pb::subscribe_response::Response),
    Ended(StreamId, Option<ClientError>),
}

/// Dropping it ends the call.
pub(super) struct SubscribeStream {
    pub(super) route: Route,
    pub(super) opened_at: Instant,
    /// As much waits here as there are messages in hand.
    requests: mpsc::UnboundedSender<pb::SubscribeRequest>,
    /// For the deliveries that it brought.
    pub(super) stands: Arc<AtomicBool>,
    _ends_task: DropGuard,
}

impl SubscribeStream {
    pub(super) fn open(
        id: StreamId,
        route: Route,
        open: pb::subscribe_request::Open,
        events: mpsc::Sender<StreamEvent>,
    ) -> Self {
        let (requests, outbound) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let task = run(id, route.clone(), UnboundedReceiverStream::new(outbound), events);
        tokio::spawn(stop.clone().run_until_cancelled_owned(task));
        let stands = Arc::new(AtomicBool::new(true));
        let stream = Self { route, opened_at: Instant::now(), requests, stands, _ends_task: stop.drop_guard() };
        stream.send(Request::Open(open));
        stream
    }

    /// What can't be sent any more is noticed when the stream's end is.
    pub(super) fn send(&self, request: Request) {
        let _ = self.requests.send(pb::SubscribeRequest { request: Some(request) });
    }
}

impl Drop for SubscribeStream {
    fn drop(&mut self) {
        self.stands.store(false, Ordering::Relaxed);
    }
}

async fn run(
    id: StreamId,
    route: Route,
    outbound: UnboundedReceiverStream<pb::SubscribeRequest>,
    events: mpsc::Sender<StreamEvent>,
) {
    let channel = route.connection.channel.clone();
    let mut client = SubscriberServiceClient::new(channel).max_decoding_message_size(crate::ANSWER_BYTES_MAX);
    let error = match client.subscribe(route.request(outbound)).await {
        Ok(response) => {
            let mut responses = response.into_inner();
            loop {
                match responses.message().await {
                    Ok(Some(pb::SubscribeResponse { response: Some(response) })) => {
                        if events.send(StreamEvent::Response(id, response)).await.is_err() {
                            return;
                        }
                    }
                    // Content of a kind that this client doesn't know.
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

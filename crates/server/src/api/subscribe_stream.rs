//! One subscriber's stream: deliveries and answers out, credit and what became of deliveries in.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::stream::{BoxStream, StreamExt};
use quorate_model::{AckId, PartitionId, Reason, SubscriptionInfo};
use quorate_proto::v1;
use quorate_proto::v1::subscribe_request::Request as Wire;
use quorate_proto::v1::subscribe_response::Response as Content;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming};

use super::error::ApiError;
use super::subscriber::{Said, check_count, find, settlement};
use crate::deadline::Deadline;
use crate::dispatch::{self, Answered, Attachments, Credit, Event, Lost, Purse, Say, Session};
use crate::front::{Front, Partition};
use crate::limits::{DISPATCH_ORDERS_AT_ONCE, REQUEST_TIME_MAX, STREAM_ANSWERS, STREAM_STALL};
use crate::router::Routing;

type Answer = Result<v1::SubscribeResponse, ApiError>;

/// Reads the first request and starts serving the stream.
pub(super) async fn serve(
    front: &Arc<Front>,
    request: Request<Streaming<v1::SubscribeRequest>>,
) -> Result<BoxStream<'static, Answer>, ApiError> {
    front.accepting()?;
    let routing = Routing::of(request.metadata());
    let deadline = Deadline::of(request.metadata());
    let mut inbound = request.into_inner();
    let first = deadline.limit(inbound.message()).await;
    let first = first.map_err(|_| ApiError::expired())?.map_err(|status| ApiError::unreadable(&status))?;
    let Some(Wire::Open(open)) = first.and_then(|first| first.request) else {
        return Err(ApiError::invalid(Reason::InvalidArgument, "request", "", "`open` as the first request"));
    };
    let (subscription, partitions) = find(front, &open.subscription, &open.partitions).await?;
    let by_id = partitions.iter().map(|partition| (partition.id, partition.clone())).collect();
    let (session, events) = front.dispatch.session(Purse::new(credit(open.credit.unwrap_or_default())));
    let attached = Attachments::of(front, &subscription, partitions, &session, routing);
    let (answers, outbound) = mpsc::channel(STREAM_ANSWERS);
    let stream = Stream {
        front: Arc::clone(front),
        subscription,
        partitions: by_id,
        session,
        attached,
        elsewhere: JoinSet::new(),
        answers,
    };
    tokio::spawn(stream.run(inbound, events));
    Ok(ReceiverStream::new(outbound).boxed())
}

fn credit(wire: v1::Credit) -> Credit {
    Credit { messages: wire.messages.into(), bytes: wire.bytes }
}

struct Stream {
    front: Arc<Front>,
    subscription: Arc<SubscriptionInfo>,
    partitions: BTreeMap<PartitionId, Partition>,
    session: Session,
    attached: Attachments,
    /// What other nodes are being told.
    elsewhere: JoinSet<Vec<Answered>>,
    answers: mpsc::Sender<Answer>,
}

impl Stream {
    async fn run(mut self, mut inbound: Streaming<v1::SubscribeRequest>, mut events: mpsc::UnboundedReceiver<Event>) {
        let draining = self.front.draining.clone();
        let mut reading = true;
        let ending = loop {
            let sent = tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.pass_on(event, &mut events).await,
                    None => break None,
                },
                request = inbound.message(), if reading => match request {
                    Ok(Some(request)) => match self.hear(request).await {
                        Ok(()) => Ok(()),
                        Err(error) => break Some(error),
                    },
                    // What was said before is still answered; nothing more is delivered once the stream is closed.
                    Ok(None) => {
                        reading = false;
                        Ok(())
                    }
                    Err(status) => break Some(ApiError::unreadable(&status)),
                },
                Some(answered) = self.elsewhere.join_next() => {
                    let answered = answered.unwrap_or_default();
                    self.send(settlements(&answered)).await
                }
                Lost { partition, error } = self.attached.lost() => {
                    if !error.is_about_leadership() {
                        break Some(error);
                    }
                    let ended = v1::PartitionEnded { partition, error: Some(error.clone().into_publish_error()) };
                    let sent = self.send(Content::Ended(ended)).await;
                    if self.attached.is_empty() { break Some(error) } else { sent }
                }
                () = draining.cancelled() => break Some(ApiError::draining()),
            };
            if sent.is_err() {
                return;
            }
            if !reading && self.elsewhere.is_empty() {
                break None;
            }
        };
        if let Some(error) = ending {
            // A client that is gone doesn't need to hear why.
            let _ = self.answers.send_timeout(Err(error), STREAM_STALL).await;
        }
    }

    /// Sends an event, and with it the answers that came at the same time.
    async fn pass_on(&mut self, event: Event, events: &mut mpsc::UnboundedReceiver<Event>) -> Result<(), ()> {
        let (mut deliveries, mut answered) = (Vec::new(), Vec::new());
        let mut next = Some(event);
        while let Some(event) = next.take() {
            match event {
                Event::Delivered(more) => deliveries.extend(more),
                Event::Answered(one) => answered.push(one),
                Event::Waiting | Event::Idle => {}
            }
            if deliveries.len() + answered.len() < DISPATCH_ORDERS_AT_ONCE {
                next = events.try_recv().ok();
            }
        }
        if !answered.is_empty() {
            self.send(settlements(&answered)).await?;
        }
        if !deliveries.is_empty() {
            self.send(Content::Deliveries(v1::Deliveries { deliveries })).await?;
        }
        Ok(())
    }

    /// A client that doesn't read what it has granted credit for is given up after a while.
    async fn send(&self, content: Content) -> Result<(), ()> {
        let response = v1::SubscribeResponse { response: Some(content) };
        self.answers.send_timeout(Ok(response), STREAM_STALL).await.map_err(drop)
    }

    async fn hear(&mut self, request: v1::SubscribeRequest) -> Result<(), ApiError> {
        let said = match request.request {
            Some(Wire::Credit(more)) => {
                self.session.purse.put(credit(more));
                return Ok(());
            }
            Some(Wire::Ack(ack)) => Said::Ack(ack),
            Some(Wire::Nack(nack)) => Said::Nack(nack),
            Some(Wire::Extend(extend)) => Said::Extend(extend),
            Some(Wire::Open(_)) | None => {
                let expected = "credit, ack, nack or extend after the first request";
                return Err(ApiError::invalid(Reason::InvalidArgument, "request", "", expected));
            }
        };
        let (say, ack_ids) = said.check()?;
        check_count(&ack_ids)?;
        let (mut by_partition, mut invalid) = (BTreeMap::<PartitionId, Vec<AckId>>::new(), Vec::new());
        for ack_id in ack_ids {
            match AckId::parse(&ack_id) {
                Ok(id) if id.subscription == self.subscription.id => {
                    by_partition.entry(id.partition).or_default().push(id)
                }
                _ => {
                    let (action, outcome) = (say.action().into(), v1::Outcome::Invalid.into());
                    invalid.push(v1::Settlement { ack_id, action, outcome });
                }
            }
        }
        if !invalid.is_empty() {
            // Whether the client still reads shows with the next event.
            let _ = self.send(Content::Settlements(v1::Settlements { settlements: invalid })).await;
        }
        for (partition, deliveries) in by_partition {
            self.say(partition, &say, deliveries).await;
        }
        Ok(())
    }

    /// Tells the actor of this node, or has the node that leads told.
    async fn say(&mut self, partition: PartitionId, say: &Say, deliveries: Vec<AckId>) {
        if let Some(partition) = self.partitions.get(&partition)
            && dispatch::say_here(&self.front, &self.subscription, partition, say, &deliveries, &self.session).await
        {
            return;
        }
        let (front, subscription, say) = (Arc::clone(&self.front), Arc::clone(&self.subscription), say.clone());
        let deadline = Deadline::after(REQUEST_TIME_MAX);
        self.elsewhere.spawn(async move { dispatch::say(&front, &subscription, &say, deliveries, deadline).await });
    }
}

fn settlements(answered: &[Answered]) -> Content {
    Content::Settlements(v1::Settlements { settlements: answered.iter().map(settlement).collect() })
}

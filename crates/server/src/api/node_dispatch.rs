//! `NodeService`'s part in dispatching: this node leads the partition, and the subscriber is at another one.

use std::sync::Arc;

use futures::stream::{BoxStream, StreamExt};
use quorate_model::{AckId, GroupId, SubscriptionId, SubscriptionInfo, TopicId};
use quorate_proto::internal::dispatch_request::Request as Wire;
use quorate_proto::internal::dispatch_response::Response as Content;
use quorate_proto::internal::settle_request;
use quorate_proto::{internal as wire, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::error::ApiError;
use super::node_service::NodeQuestions;
use super::subscriber::{Said, settlement};
use crate::deadline::Deadline;
use crate::dispatch::{Answers, Credit, Event, Handle, Order, Purse};
use crate::front::Partition;
use crate::limits::{REQUEST_TIME_MAX, STREAM_ANSWERS, STREAM_STALL};

type Answer = Result<wire::DispatchResponse, ApiError>;

impl NodeQuestions {
    /// Delivers to a subscriber of another node.
    pub(super) async fn open_dispatch(
        &self,
        mut inbound: Streaming<wire::DispatchRequest>,
    ) -> Result<BoxStream<'static, Answer>, ApiError> {
        let first = Deadline::after(REQUEST_TIME_MAX).limit(inbound.message()).await;
        let first = first.map_err(|_| ApiError::expired())?.map_err(|status| ApiError::unreadable(&status))?;
        let Some(Wire::Open(open)) = first.and_then(|first| first.request) else {
            return Err(ApiError::internal("a node asked for deliveries without saying of what"));
        };
        let handle = self.actor(open.group_id, open.topic_id, open.partition, open.subscription_id).await?;
        let (session, events) = self.front().dispatch.session(Purse::on_demand());
        handle.send(Order::Join(session.clone())).await;
        let (answers, outbound) = mpsc::channel(STREAM_ANSWERS);
        let lent = Lent { handle, id: session.id, purse: session.purse.clone(), answers };
        drop(session);
        tokio::spawn(lent.run(inbound, events));
        Ok(ReceiverStream::new(outbound).boxed())
    }

    /// Takes what a subscriber of another node says.
    pub(super) async fn settle_here(&self, request: wire::SettleRequest) -> Result<wire::SettleResponse, ApiError> {
        let handle = self.actor(request.group_id, request.topic_id, request.partition, request.subscription_id).await?;
        let said = match request.say {
            Some(settle_request::Say::Ack(ack)) => Said::Ack(ack),
            Some(settle_request::Say::Nack(nack)) => Said::Nack(nack),
            Some(settle_request::Say::Extend(extend)) => Said::Extend(extend),
            None => return Err(ApiError::internal("a node said nothing of deliveries")),
        };
        let (say, ack_ids) = said.check()?;
        let deliveries = ack_ids.iter().map(|ack_id| AckId::parse(ack_id));
        let deliveries =
            deliveries.collect::<Result<Vec<AckId>, _>>().map_err(|error| ApiError::internal(error.to_string()))?;
        let (answers, mut answered) = mpsc::unbounded_channel();
        handle.send(Order::say(say, &deliveries, &Answers::Alone(answers))).await;
        let mut settlements = Vec::with_capacity(ack_ids.len());
        while let Some(one) = answered.recv().await {
            settlements.push(settlement(&one));
        }
        Ok(wire::SettleResponse { settlements })
    }

    /// The actor of a subscription in a partition that this node leads.
    async fn actor(&self, group: u64, topic: u64, index: u32, subscription: u64) -> Result<Handle, ApiError> {
        let led = self.led(group)?;
        let partition: Partition = self.front().partition(TopicId::new(topic), index).await?;
        if partition.group != GroupId::new(group) {
            return Err(ApiError::internal(format!("partition {} is not group {group}", partition.label())));
        }
        let id = SubscriptionId::new(subscription);
        let found = self.front().map.find(|map| map.subscription_by_id(id).cloned()).await;
        let subscription: Arc<SubscriptionInfo> = found.ok_or_else(|| ApiError::subscription_not_found(&id))?;
        Ok(self.front().dispatch.of(&led, &partition, &subscription))
    }
}

/// A session whose subscriber is at another node, which lends it credit.
struct Lent {
    handle: Handle,
    id: quorate_model::partition::subscription::deliver::SessionId,
    purse: Purse,
    answers: mpsc::Sender<Answer>,
}

impl Lent {
    async fn run(self, mut inbound: Streaming<wire::DispatchRequest>, mut events: mpsc::UnboundedReceiver<Event>) {
        let keeps = loop {
            let sent = tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.pass_on(event).await,
                    None => return self.gone().await,
                },
                request = inbound.message() => match request.map(|request| request.and_then(|it| it.request)) {
                    Ok(Some(Wire::Credit(v1::Credit { messages, bytes }))) => {
                        self.purse.put(Credit { messages: messages.into(), bytes });
                        self.handle.wake();
                        Ok(())
                    }
                    Ok(Some(Wire::Detach(keeps))) => break keeps,
                    Ok(Some(Wire::Open(_)) | None) | Err(_) => break false,
                },
                () = self.handle.ended() => return self.gone().await,
            };
            if sent.is_err() {
                break false;
            }
        };
        self.handle.send(Order::Leave { session: self.id, keeps }).await;
        // What was handed out before the actor heard of it belongs to the subscriber.
        while keeps && let Some(event) = events.recv().await {
            if self.pass_on(event).await.is_err() {
                return;
            }
        }
    }

    async fn pass_on(&self, event: Event) -> Result<(), ()> {
        let content = match event {
            Event::Delivered(deliveries) => Content::Deliveries(v1::Deliveries { deliveries }),
            Event::Waiting => Content::Waiting(true),
            Event::Idle => {
                let Credit { messages, bytes } = self.purse.empty();
                if messages == 0 {
                    return Ok(());
                }
                let messages = u32::try_from(messages).unwrap_or(u32::MAX);
                Content::Unspent(v1::Credit { messages, bytes })
            }
            Event::Answered(_) => return Ok(()),
        };
        let response = wire::DispatchResponse { response: Some(content) };
        self.answers.send_timeout(Ok(response), STREAM_STALL).await.map_err(drop)
    }

    /// The subscriber's node looks for the partition's leader anew.
    async fn gone(&self) {
        let error = ApiError::no_leader("the partition of this stream");
        let _ = self.answers.send_timeout(Err(error), STREAM_STALL).await;
    }
}

//! `SubscriberService`: sessions of subscribers, and what they say about deliveries.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use quorate_model::limits::{ACK_DEADLINE_MS_MAX, ACK_DEADLINE_MS_MIN, RETRY_PAUSE_MS_MAX, RETURN_ERROR_BYTES_MAX};
use quorate_model::partition::subscription::deliver::Return;
use quorate_model::{AckId, OpaqueIdError, Reason, SubscriptionInfo};
use quorate_proto::v1;
use quorate_proto::v1::subscriber_service_server::SubscriberService;
use tokio::time::{Instant, timeout_at};
use tonic::{Request, Response, Status, Streaming};

use super::error::ApiError;
use super::subscribe_stream;
use crate::deadline::Deadline;
use crate::dispatch::{self, Answered, Attachments, Credit, Event, Purse, Say};
use crate::front::{Front, Partition};
use crate::limits::{ACK_IDS_MAX, CREDIT_BYTES_MAX, PULL_FIRST, PULL_GOODBYE, PULL_WAIT_MAX};
use crate::router::Routing;

/// Serves subscribers.
pub(crate) struct Subscribers {
    front: Arc<Front>,
}

impl Subscribers {
    pub(crate) fn new(front: Arc<Front>) -> Self {
        Self { front }
    }

    async fn pull_messages(&self, request: v1::PullRequest, routing: Routing) -> Result<v1::PullResponse, ApiError> {
        self.front.accepting()?;
        let most = u64::from(request.max_messages);
        if most == 0 || most > ACK_IDS_MAX as u64 {
            let expected = format!("1 to {ACK_IDS_MAX}");
            return Err(ApiError::invalid(Reason::InvalidArgument, "max_messages", &most, &expected));
        }
        let wait = duration(request.wait, "wait", Duration::ZERO..=PULL_WAIT_MAX)?.unwrap_or_default();
        let (subscription, partitions) = find(&self.front, &request.subscription, &request.partitions).await?;
        let purse = Purse::new(Credit { messages: most, bytes: CREDIT_BYTES_MAX });
        let (session, mut events) = self.front.dispatch.session(purse);
        let mut attached = Attachments::of(&self.front, &subscription, partitions, &session, routing);
        drop(session);

        let mut deliveries = Vec::new();
        let mut until = Instant::now() + wait.max(PULL_FIRST);
        while (deliveries.len() as u64) < most {
            tokio::select! {
                event = timeout_at(until, events.recv()) => match event {
                    Ok(Some(Event::Delivered(more))) => {
                        deliveries.extend(more);
                        // What else is ready comes at once; whatever isn't can wait for the next call.
                        until = until.min(Instant::now() + PULL_FIRST);
                    }
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => break,
                },
                // The others may have something.
                lost = attached.lost() => if attached.is_empty() && deliveries.is_empty() {
                    return Err(lost.error);
                },
            }
        }
        attached.detach();
        // What was on its way already belongs to the caller too.
        let goodbye = Instant::now() + PULL_GOODBYE;
        while let Ok(Some(event)) = timeout_at(goodbye, events.recv()).await {
            if let Event::Delivered(more) = event {
                deliveries.extend(more);
            }
        }
        Ok(v1::PullResponse { deliveries })
    }

    /// Says it of all deliveries and waits until it is certain what became of them.
    async fn settle(
        &self,
        subscription: &str,
        say: Say,
        ack_ids: Vec<String>,
        deadline: Deadline,
    ) -> Result<Vec<v1::Settlement>, ApiError> {
        self.front.accepting()?;
        check_count(&ack_ids)?;
        let subscription = self.front.subscription(subscription).await?;
        let parsed: Vec<Result<AckId, OpaqueIdError>> = ack_ids.iter().map(|text| AckId::parse(text)).collect();
        let mine = |id: &AckId| id.subscription == subscription.id;
        let deliveries = parsed.iter().flatten().filter(|id| mine(id)).copied().collect();
        let answered = dispatch::say(&self.front, &subscription, &say, deliveries, deadline).await;
        let outcomes: BTreeMap<String, v1::Outcome> =
            answered.iter().map(|answered| (answered.delivery.to_string(), answered.outcome)).collect();
        Ok(ack_ids
            .into_iter()
            .zip(parsed)
            .map(|(ack_id, parsed)| {
                let invalid = !parsed.is_ok_and(|id| mine(&id));
                let missing = if invalid { v1::Outcome::Invalid } else { v1::Outcome::Unknown };
                let outcome = outcomes.get(&ack_id).copied().unwrap_or(missing);
                v1::Settlement { ack_id, action: say.action().into(), outcome: outcome.into() }
            })
            .collect())
    }
}

/// The subscription of that name, and the partitions asked for; none: all of its topic.
pub(super) async fn find(
    front: &Front,
    name: &str,
    indices: &[u32],
) -> Result<(Arc<SubscriptionInfo>, Vec<Partition>), ApiError> {
    let subscription = front.subscription(name).await?;
    let map = front.map.current();
    let topic = map.topic_by_id(subscription.topic).ok_or_else(|| ApiError::subscription_not_found(&name))?;
    let partitions = match indices {
        [] => Partition::all(topic)?,
        indices => indices.iter().map(|index| Partition::of(topic, *index)).collect::<Result<_, _>>()?,
    };
    Ok((subscription, partitions))
}

/// What an acknowledgement, a return or an extension says.
pub(super) enum Said {
    Ack(v1::Ack),
    Nack(v1::Nack),
    Extend(v1::Extend),
}

impl Said {
    /// What is said, and of which deliveries.
    pub(super) fn check(self) -> Result<(Say, Vec<String>), ApiError> {
        match self {
            Self::Ack(ack) => Ok((Say::Ack, ack.ack_ids)),
            Self::Nack(nack) if nack.untouched => Ok((Say::Nack(Return::Untouched), nack.ack_ids)),
            Self::Nack(nack) => {
                let bytes = nack.error.len();
                if bytes > RETURN_ERROR_BYTES_MAX {
                    let expected = format!("at most {RETURN_ERROR_BYTES_MAX} bytes");
                    return Err(ApiError::invalid(Reason::InvalidArgument, "nack.error", &bytes, &expected));
                }
                let bounds = Duration::ZERO..=Duration::from_millis(RETRY_PAUSE_MS_MAX);
                let pause_ms = duration(nack.pause, "nack.pause", bounds)?.map(millis);
                Ok((Say::Nack(Return::Failed { pause_ms, error: nack.error }), nack.ack_ids))
            }
            Self::Extend(extend) => {
                let bounds = Duration::from_millis(ACK_DEADLINE_MS_MIN)..=Duration::from_millis(ACK_DEADLINE_MS_MAX);
                let field = "extend.ack_deadline";
                let deadline = duration(extend.ack_deadline, field, bounds)?;
                let missing = || ApiError::invalid(Reason::InvalidArgument, field, "", "a duration from 1 s to 12 h");
                Ok((Say::Extend { for_ms: millis(deadline.ok_or_else(missing)?) }, extend.ack_ids))
            }
        }
    }
}

/// A duration within bounds, if there is one.
fn duration(
    wire: Option<prost_types::Duration>,
    field: &str,
    bounds: std::ops::RangeInclusive<Duration>,
) -> Result<Option<Duration>, ApiError> {
    let Some(wire) = wire else { return Ok(None) };
    let value = format!("{} s {} ns", wire.seconds, wire.nanos);
    let parsed = Duration::try_from(wire).ok().filter(|duration| bounds.contains(duration));
    let expected = format!("a duration from {:?} to {:?}", bounds.start(), bounds.end());
    parsed.map(Some).ok_or_else(|| ApiError::invalid(Reason::InvalidArgument, field, &value, &expected))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn check_count(ack_ids: &[String]) -> Result<(), ApiError> {
    if ack_ids.is_empty() || ack_ids.len() > ACK_IDS_MAX {
        let expected = format!("1 to {ACK_IDS_MAX} of them");
        return Err(ApiError::invalid(Reason::InvalidArgument, "ack_ids", &ack_ids.len(), &expected));
    }
    Ok(())
}

/// What became of deliveries, for whoever said something about them.
pub(super) fn settlement(answered: &Answered) -> v1::Settlement {
    let Answered { delivery, action, outcome } = *answered;
    v1::Settlement { ack_id: delivery.to_string(), action: action.into(), outcome: outcome.into() }
}

#[tonic::async_trait]
impl SubscriberService for Subscribers {
    type SubscribeStream = BoxStream<'static, Result<v1::SubscribeResponse, Status>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<v1::SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let opened = subscribe_stream::serve(&self.front, request).await;
        self.front.metrics.streaming("Subscribe", opened)
    }

    async fn pull(&self, request: Request<v1::PullRequest>) -> Result<Response<v1::PullResponse>, Status> {
        let routing = Routing::of(request.metadata());
        let pulling = self.pull_messages(request.into_inner(), routing);
        self.front.metrics.unary("Pull", pulling).await
    }

    async fn acknowledge(
        &self,
        request: Request<v1::AcknowledgeRequest>,
    ) -> Result<Response<v1::AcknowledgeResponse>, Status> {
        let deadline = Deadline::of(request.metadata());
        let v1::AcknowledgeRequest { subscription, ack_ids } = request.into_inner();
        let settling = async move {
            let settlements = self.settle(&subscription, Say::Ack, ack_ids, deadline).await?;
            Ok(v1::AcknowledgeResponse { settlements })
        };
        self.front.metrics.unary("Acknowledge", settling).await
    }

    async fn modify_ack_deadline(
        &self,
        request: Request<v1::ModifyAckDeadlineRequest>,
    ) -> Result<Response<v1::ModifyAckDeadlineResponse>, Status> {
        let deadline = Deadline::of(request.metadata());
        let v1::ModifyAckDeadlineRequest { subscription, extend } = request.into_inner();
        let settling = async move {
            let (say, ack_ids) = Said::Extend(extend.unwrap_or_default()).check()?;
            let settlements = self.settle(&subscription, say, ack_ids, deadline).await?;
            Ok(v1::ModifyAckDeadlineResponse { settlements })
        };
        self.front.metrics.unary("ModifyAckDeadline", settling).await
    }

    async fn nack(&self, request: Request<v1::NackRequest>) -> Result<Response<v1::NackResponse>, Status> {
        let deadline = Deadline::of(request.metadata());
        let v1::NackRequest { subscription, nack } = request.into_inner();
        let settling = async move {
            let (say, ack_ids) = Said::Nack(nack.unwrap_or_default()).check()?;
            let settlements = self.settle(&subscription, say, ack_ids, deadline).await?;
            Ok(v1::NackResponse { settlements })
        };
        self.front.metrics.unary("Nack", settling).await
    }
}

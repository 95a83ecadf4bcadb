//! What nodes say of deliveries, and what it means to the application.

use std::sync::Arc;

use quorate_model::{MessageId, Reason};
use quorate_proto::v1 as pb;
use quorate_proto::v1::subscriber_service_client::SubscriberServiceClient;
use tokio::time::Instant;

use super::Settled;
use crate::call::call;
use crate::error::{Cause, ClientError};
use crate::message::ReceivedMessage;
use crate::retry::Backoff;
use crate::routing::Router;

/// Acknowledges through any node, again until the outcome is known.
pub(super) async fn acknowledge(router: &Router, subscription: String, ack_id: String) -> Result<Settled, ClientError> {
    let mut backoff = Backoff::new(router.retry());
    let until = Instant::now() + router.retry().total;
    loop {
        let request = pb::AcknowledgeRequest { subscription: subscription.clone(), ack_ids: vec![ack_id.clone()] };
        let answered = call(router, "Acknowledge", |channel| {
            let request = request.clone();
            Box::pin(async move { SubscriberServiceClient::new(channel).acknowledge(request).await })
        });
        let settlements = answered.await.into_result()?.settlements;
        let outcome = settlements.first().map_or(pb::Outcome::Unspecified, pb::Settlement::outcome);
        if outcome != pb::Outcome::Unknown || Instant::now() > until {
            return meaning(outcome);
        }
        tokio::time::sleep(backoff.after(&unknown())).await;
    }
}

pub(super) fn meaning(outcome: pb::Outcome) -> Result<Settled, ClientError> {
    match outcome {
        pb::Outcome::Done => Ok(Settled::Done),
        pb::Outcome::AlreadySettled => Ok(Settled::Already),
        pb::Outcome::LeaseLost => Ok(Settled::LeaseLost),
        pb::Outcome::Seeked => Ok(Settled::Seeked),
        pb::Outcome::Unknown => Err(unknown()),
        pb::Outcome::Invalid | pb::Outcome::Unspecified => {
            Err(ClientError::new(Cause::Protocol, "the node doesn't know the delivery that it made"))
        }
    }
}

fn unknown() -> ClientError {
    ClientError::known(Reason::CommitUnknown, "the leader changed before the outcome was certain")
}

/// An error text of at most as many bytes as the broker keeps.
pub(super) fn shortened(mut error: String) -> String {
    let mut end = error.len().min(quorate_model::limits::RETURN_ERROR_BYTES_MAX);
    while !error.is_char_boundary(end) {
        end -= 1;
    }
    error.truncate(end);
    error
}

/// A message as a node sends it by itself, outside a batch.
pub(crate) fn received(topic: &Arc<str>, wire: pb::ReceivedMessage) -> Result<ReceivedMessage, ClientError> {
    let malformed = |what: &str| ClientError::new(Cause::Protocol, format!("a message has a wrong {what}"));
    let message = wire.message.ok_or_else(|| malformed("content"))?;
    let time_ms = |time: prost_types::Timestamp| {
        let seconds = u64::try_from(time.seconds).map_err(|_| malformed("time"))?;
        let millis = u64::try_from(time.nanos / 1_000_000).map_err(|_| malformed("time"))?;
        Ok::<_, ClientError>(seconds.saturating_mul(1_000).saturating_add(millis))
    };
    Ok(ReceivedMessage {
        topic: Arc::clone(topic),
        message_id: MessageId::parse(&wire.message_id).map_err(|_| malformed("id"))?,
        partition: wire.partition,
        offset: wire.offset,
        publish_time_ms: time_ms(wire.publish_time.unwrap_or_default())?,
        ordering_key: message.ordering_key.into(),
        attributes: message.attributes.into_iter().collect(),
        priority: u8::try_from(message.priority).map_err(|_| malformed("priority"))?,
        deliver_at_ms: message.deliver_at.map(time_ms).transpose()?,
        expire_at_ms: message.expire_at.map(time_ms).transpose()?,
        data: message.data,
    })
}

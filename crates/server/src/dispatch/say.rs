//! Brings what a subscriber says about deliveries to the actors of their partitions, and the answers back.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::stream::{self, StreamExt};
use quorate_model::{AckId, Executed, SubscriptionInfo};
use quorate_proto::{internal as wire, v1};
use tokio::sync::mpsc;

use super::session::{Answered, Answers, Session};
use super::{Order, Say};
use crate::api::error::ApiError;
use crate::deadline::Deadline;
use crate::front::{Front, Leader, Partition};
use crate::limits::PEER_QUESTIONS;
use crate::router::{Route, Routing};

/// Says it to the actor of this node, which answers on the session's stream. False: another node leads.
pub(crate) async fn say_here(
    front: &Front,
    subscription: &SubscriptionInfo,
    partition: &Partition,
    say: &Say,
    deliveries: &[AckId],
    session: &Session,
) -> bool {
    let Some(Route::Local(group)) = front.router.route(partition.target(), 0) else { return false };
    let order = Order::say(say.clone(), deliveries, &Answers::Session(session.clone()));
    front.dispatch.of(&group, partition, subscription).send(order).await
}

/// Says it to whoever leads; what became of each delivery, in no order. Without an answer that is unknown.
pub(crate) async fn say(
    front: &Arc<Front>,
    subscription: &Arc<SubscriptionInfo>,
    say: &Say,
    deliveries: Vec<AckId>,
    deadline: Deadline,
) -> Vec<Answered> {
    let mut by_partition: BTreeMap<_, Vec<AckId>> = BTreeMap::new();
    for delivery in deliveries {
        by_partition.entry(delivery.partition).or_default().push(delivery);
    }
    stream::iter(by_partition)
        .map(|(id, deliveries)| async move {
            let action = say.action();
            let all =
                |outcome| deliveries.iter().map(move |delivery| Answered { delivery: *delivery, action, outcome });
            match front.partition(id.topic, id.index).await {
                Ok(partition) => {
                    let asked = ask(front, subscription, &partition, say, &deliveries, deadline).await;
                    asked.unwrap_or_else(|_| all(v1::Outcome::Unknown).collect())
                }
                Err(_) => all(v1::Outcome::Invalid).collect(),
            }
        })
        .buffer_unordered(PEER_QUESTIONS)
        .concat()
        .await
}

async fn ask(
    front: &Arc<Front>,
    subscription: &Arc<SubscriptionInfo>,
    partition: &Partition,
    say: &Say,
    deliveries: &[AckId],
    deadline: Deadline,
) -> Result<Vec<Answered>, ApiError> {
    front
        .ask_leader(partition, Routing::Forward, deadline, Executed::Maybe, |leader| async {
            match leader {
                Leader::Local(group) => {
                    let (answers, mut answered) = mpsc::unbounded_channel();
                    let order = Order::say(say.clone(), deliveries, &Answers::Alone(answers));
                    if !front.dispatch.of(&group, partition, subscription).send(order).await {
                        return Err(ApiError::no_leader(&partition.label()));
                    }
                    let mut all = Vec::with_capacity(deliveries.len());
                    while let Some(one) = answered.recv().await {
                        all.push(one);
                    }
                    Ok(all)
                }
                Leader::Remote(leader, mut client) => {
                    let request = wire::SettleRequest {
                        group_id: partition.group.get(),
                        topic_id: partition.id.topic.get(),
                        partition: partition.id.index,
                        subscription_id: subscription.id.get(),
                        say: Some(to_wire(say, deliveries)),
                    };
                    let response = client.settle(request).await;
                    let response = response.map_err(|status| ApiError::from_peer(leader.node, &status))?;
                    Ok(response.into_inner().settlements.iter().filter_map(from_wire).collect())
                }
            }
        })
        .await
}

fn to_wire(say: &Say, deliveries: &[AckId]) -> wire::settle_request::Say {
    use quorate_model::partition::subscription::deliver::Return;

    let ack_ids = deliveries.iter().map(ToString::to_string).collect();
    let duration = |ms: u64| prost_types::Duration::try_from(std::time::Duration::from_millis(ms)).ok();
    match say {
        Say::Ack => wire::settle_request::Say::Ack(v1::Ack { ack_ids }),
        Say::Nack(Return::Failed { pause_ms, error }) => wire::settle_request::Say::Nack(v1::Nack {
            ack_ids,
            pause: pause_ms.and_then(duration),
            error: error.clone(),
            untouched: false,
        }),
        Say::Nack(Return::Untouched) => {
            wire::settle_request::Say::Nack(v1::Nack { ack_ids, untouched: true, ..v1::Nack::default() })
        }
        Say::Extend { for_ms } => {
            wire::settle_request::Say::Extend(v1::Extend { ack_ids, ack_deadline: duration(*for_ms) })
        }
    }
}

fn from_wire(settlement: &v1::Settlement) -> Option<Answered> {
    let delivery = AckId::parse(&settlement.ack_id).ok()?;
    Some(Answered { delivery, action: settlement.action(), outcome: settlement.outcome() })
}

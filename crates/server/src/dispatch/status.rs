//! Numbers of a subscription in a partition that this node leads. Looks at what is there, and starts nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::time::Duration;

use futures::future::OptionFuture;
use quorate_consensus::RaftGroup;
use quorate_model::partition::subscription::deliver::Gauges;
use quorate_model::partition::subscription::{Snapshot, SubscriptionState};
use quorate_model::{GroupId, Offset, PartitionId, PartitionMachine, SubscriptionId};
use quorate_proto::v1;

use super::Dispatch;
use super::depth::{Counting, Depth};
use super::records::Records;
use crate::api::error::ApiError;
use crate::limits::{DEPTH_PLACES, OLDEST_REMEMBERED};

impl Dispatch {
    /// With what waits by priority, which has to be counted.
    pub(crate) async fn status_in_depth(
        &self,
        group: &RaftGroup,
        partition: PartitionId,
        subscription: SubscriptionId,
        start: Offset,
    ) -> v1::SubscriptionPartitionStatus {
        let status = self.status(group, partition, subscription, start).await;
        let counting = look(group, subscription, start, Counting::of);
        // Whoever looks gets what there is; what failed is in the log, and the group finds out by itself.
        let Some(Ok(depth)) = OptionFuture::from(counting.map(|counting| counting.count(group, DEPTH_PLACES))).await
        else {
            return v1::SubscriptionPartitionStatus { depths_partial: true, ..status };
        };
        let Depth { ready, waiting, is_partial } = depth;
        let of = |counted: &BTreeMap<u8, u64>, priority| counted.get(&priority).copied().unwrap_or(0);
        let priorities: BTreeSet<u8> = ready.keys().chain(waiting.keys()).copied().collect();
        let depths = priorities.into_iter().rev().map(|priority| v1::PriorityDepth {
            priority: priority.into(),
            ready: of(&ready, priority),
            waiting: of(&waiting, priority),
        });
        let all: u64 = ready.values().chain(waiting.values()).sum();
        let backlog_messages = if is_partial { status.backlog_messages } else { all };
        v1::SubscriptionPartitionStatus {
            backlog_messages,
            depths: depths.collect(),
            depths_partial: is_partial,
            ..status
        }
    }

    /// As this replica has applied. `start` is where the subscription begins, if it hasn't begun here.
    pub(crate) async fn status(
        &self,
        group: &RaftGroup,
        partition: PartitionId,
        subscription: SubscriptionId,
        start: Offset,
    ) -> v1::SubscriptionPartitionStatus {
        let now_ms = self.env.wall_clock_ms();
        let standing = look(group, subscription, start, |machine, state| {
            state.standing(machine.log_start()..machine.next_offset(), machine.deleted(), now_ms)
        });
        let standing = standing.unwrap_or_default();
        let gauges = self.gauges(group.id(), subscription).unwrap_or_default();
        let published_ms = match standing.oldest {
            Some(offset) => self.published_ms(group, partition, subscription, offset).await,
            None => None,
        };
        let age = published_ms.map(|ms| Duration::from_millis(now_ms.saturating_sub(ms)));
        let attempts = standing.attempts.into_iter();
        v1::SubscriptionPartitionStatus {
            partition: partition.index,
            backlog_messages: standing.backlog,
            oldest_unacknowledged_age: age.and_then(|age| prost_types::Duration::try_from(age).ok()),
            in_flight_messages: gauges.in_flight as u64,
            delayed_messages: standing.delayed,
            acknowledged_total: standing.tally.acknowledged,
            redelivered_total: standing.tally.returned,
            dead_lettered_total: standing.tally.dead_lettered,
            unavailable: false,
            lost_total: standing.tally.lost,
            dead_letters_waiting: standing.dead_letters_waiting,
            subscribers: u32::try_from(gauges.sessions).unwrap_or(u32::MAX),
            attempts: attempts.map(|(attempts_max, messages)| v1::AttemptsBucket { attempts_max, messages }).collect(),
            depths: Vec::new(),
            depths_partial: false,
        }
    }

    /// Where a subscription stands, with everything that was confirmed before.
    pub(crate) async fn snapshot(
        &self,
        group: &RaftGroup,
        what: &str,
        subscription: SubscriptionId,
        start: Offset,
    ) -> Result<Snapshot, ApiError> {
        group.read_barrier().await.map_err(|error| ApiError::from_barrier(error, what))?;
        look(group, subscription, start, |_, state| state.snapshot()).ok_or_else(ApiError::out_of_turn)
    }

    /// What the actor of a subscription has in hand; `None` if there is no actor.
    fn gauges(&self, group: GroupId, subscription: SubscriptionId) -> Option<Gauges> {
        let actors = self.actors.lock().unwrap_or_else(PoisonError::into_inner);
        let handle = actors.get(&(group, subscription)).filter(|handle| !handle.orders.is_closed())?;
        Some(*handle.gauges.borrow())
    }

    /// When a message was published. The oldest of a backlog stays the same for long, so it is remembered.
    async fn published_ms(
        &self,
        group: &RaftGroup,
        partition: PartitionId,
        subscription: SubscriptionId,
        offset: Offset,
    ) -> Option<u64> {
        let key = (group.id(), subscription);
        let known = self.oldest.lock().unwrap_or_else(PoisonError::into_inner).get(&key).copied();
        if let Some((_, published_ms)) = known.filter(|(of, _)| *of == offset) {
            return Some(published_ms);
        }
        // Retention may have been faster: then the next one who asks is told of another message.
        let record = Records::new(group.clone(), partition, partition.to_string()).record(offset).await.ok()?;
        let mut oldest = self.oldest.lock().unwrap_or_else(PoisonError::into_inner);
        if oldest.len() >= OLDEST_REMEMBERED {
            oldest.clear();
        }
        oldest.insert(key, (offset, record.timestamp_ms));
        Some(record.timestamp_ms)
    }
}

/// A look at a subscription as it stands in a partition, or will where it hasn't begun.
fn look<T>(
    group: &RaftGroup,
    subscription: SubscriptionId,
    start: Offset,
    at: impl FnOnce(&PartitionMachine, &SubscriptionState) -> T,
) -> Option<T> {
    group.look(|machine| match machine.subscriptions().get(subscription) {
        Some(state) => at(machine, state),
        None => at(machine, &SubscriptionState::new(start)),
    })
}

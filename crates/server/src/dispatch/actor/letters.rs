//! Publishes dead letters, one after another, to the topic that the subscription names.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use quorate_consensus::RaftGroup;
use quorate_model::limits::ATTRIBUTES_MAX;
use quorate_model::partition::subscription::{DeadLetter, Outbox};
use quorate_model::sabotage::{Bug, is_planted};
use quorate_model::{
    AppendRejected, Codec, DeliveryOptions, PartitionCommand, PartitionId, ProducerStamp, Record, RecordBatchBuilder,
    Reply, SubscriptionId, SubscriptionInfo, TopicState,
};

use super::{Desk, End, confirmed, propose};
use crate::deadline::Deadline;
use crate::front::Partition;
use crate::limits::{DEAD_LETTER_PAUSE, SETTLEMENT_TIME};
use crate::router::{Router, Routing};
use tokio::time::Instant;
use tracing::warn;

impl Desk {
    /// Tells the dispatcher how many dead letters wait. Retention may have removed one before it was certain, so nobody
    /// else can count them.
    pub(super) fn count_dead_letters(&mut self) {
        let subscription = self.subscription;
        let waiting =
            self.group.look(|machine| Some(machine.subscriptions().get(subscription)?.outbox().len())).flatten();
        self.dispatcher.set_dead_letters(waiting.unwrap_or_default());
    }

    /// Begins to publish the first dead letter that waits.
    pub(super) async fn publish_dead_letters(&mut self) -> Result<(), End> {
        if self.letter.is_some() || self.letters_at.is_none_or(|at| at > Instant::now()) {
            return Ok(());
        }
        self.letters_at = None;
        let subscription = self.subscription;
        let first = self.group.look(|machine| {
            let outbox = machine.subscriptions().get(subscription)?.outbox();
            outbox.letters().next().map(|(number, letter)| (number, letter.clone()))
        });
        let Some((number, letter)) = first.flatten() else { return Ok(()) };
        let map = Arc::clone(&self.map.borrow());
        let info = map.subscription_by_id(subscription).ok_or(End::Deleted)?;
        // Without a policy there is nowhere to go; a change of the map wakes.
        let topic = info.dead_letter.as_ref().and_then(|policy| map.topic_by_id(policy.topic));
        let Some(topic) = topic else { return Ok(()) };
        let append = if letter.offset < self.progress.borrow().log_start {
            let (partition, offset) = (self.partition.label(), letter.offset);
            warn!(partition, %subscription, %offset, "retention removed a dead letter before it was published");
            None
        } else if self.group.is_deleted(letter.offset) {
            None
        } else {
            let record = self.records.record(letter.offset).await.map_err(End::Read)?;
            Some(append(topic, &self.partition, info, (number, &letter), record)?)
        };
        let (group, router) = (self.group.clone(), self.router.clone());
        self.letter = Some(Letter { group, router, append, subscription, number }.send().boxed());
        Ok(())
    }

    /// When to look for the next dead letter.
    pub(super) fn letter_sent(&mut self, sent: Result<(), End>) -> Result<Instant, End> {
        match sent {
            Ok(()) => Ok(Instant::now()),
            Err(End::Letter(why)) => {
                let (partition, subscription) = (self.partition.label(), self.subscription);
                warn!(partition, %subscription, why, "a dead letter has to wait");
                Ok(Instant::now() + DEAD_LETTER_PAUSE)
            }
            Err(end) => Err(end),
        }
    }
}

/// A letter on its way.
struct Letter {
    group: RaftGroup,
    router: Router,
    /// Where it goes, and the command that appends it there; `None` if it isn't there any more.
    append: Option<(Partition, Bytes)>,
    subscription: SubscriptionId,
    number: u32,
}

impl Letter {
    /// Publishes it and notes that it is. Repeating either does no harm, whoever does it.
    async fn send(self) -> Result<(), End> {
        if let Some((partition, command)) = self.append {
            let deadline = Deadline::after(SETTLEMENT_TIME);
            let sent = self.router.execute(partition.target(), command, Routing::Forward, deadline).await;
            match sent {
                // A later letter is there: this one was before it.
                Ok(Reply::Partition(Ok(_) | Err(AppendRejected::Fenced { .. }))) => {}
                Ok(other) => return Err(End::Letter(format!("{}: {other:?}", partition.label()))),
                Err(error) => return Err(End::Letter(format!("{}: {error:?}", partition.label()))),
            }
        }
        let (subscription, next) = (self.subscription, self.number + 1);
        confirmed(propose(self.group, PartitionCommand::DeadLettersSent { subscription, next }).await?)
    }
}

/// The command that appends a letter to the partition where all letters of this subscription and partition go.
fn append(
    topic: &TopicState,
    source: &Partition,
    subscription: &SubscriptionInfo,
    (number, letter): (u32, &DeadLetter),
    record: Record,
) -> Result<(Partition, Bytes), End> {
    let broken = |error: &dyn std::fmt::Display| End::Letter(error.to_string());
    let producer = Outbox::producer(subscription.id, source.id);
    let index = producer.get() % u64::from(topic.partition_count().max(1));
    let index = u32::try_from(index).map_err(|error| broken(&error))?;
    let partition = Partition::of(topic, index).map_err(|error| End::Letter(error.message().to_owned()))?;
    let stamp = ProducerStamp { id: producer, epoch: number, base_sequence: 0 };
    let id = PartitionId::new(topic.id, index);
    let stamp = Some(stamp).filter(|_| !is_planted(Bug::DeadLetterTwice));
    let mut batch = RecordBatchBuilder::new(id, Codec::None, stamp);
    let time_ms = letter.returned_ms;
    batch.push(with_provenance(record, source, subscription, letter)).map_err(|error| broken(&error))?;
    let batch = batch.build().map_err(|error| broken(&error))?.bytes().clone();
    Ok((partition, PartitionCommand::Append { time_ms, batch }.encode()))
}

/// The message with what became of it, in attributes that begin with `quorate.`. Those that a message has no room for
/// are left out, the last of them first.
fn with_provenance(
    mut record: Record,
    source: &Partition,
    subscription: &SubscriptionInfo,
    letter: &DeadLetter,
) -> Record {
    const PREFIX: &str = "quorate.";
    // Its time has come, and its end with the subscription that gave it up.
    record.options = DeliveryOptions { priority: record.options.priority, ..DeliveryOptions::default() };
    let DeadLetter { offset, attempts, first_delivered_ms, returned_ms, error } = letter;
    record.attributes.retain(|(name, _)| !name.starts_with(PREFIX));
    let provenance = [
        ("source_topic", source.topic.to_string()),
        ("source_partition", source.id.index.to_string()),
        ("source_offset", offset.to_string()),
        ("subscription", subscription.name.to_string()),
        ("attempts", attempts.to_string()),
        ("last_error", error.clone()),
        ("first_delivered_ms", first_delivered_ms.to_string()),
        ("last_returned_ms", returned_ms.to_string()),
    ];
    let room = ATTRIBUTES_MAX - record.attributes.len();
    record.attributes.extend(provenance.into_iter().take(room).map(|(name, value)| (format!("{PREFIX}{name}"), value)));
    record.attributes.sort();
    record
}

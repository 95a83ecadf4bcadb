//! Ack ids: opaque to subscribers, and enough for the broker to tell one delivery from any other, also after its leader
//! is gone.

use std::fmt;

use crate::ids::{Offset, PartitionId, SubscriptionId, TopicId};
use crate::opaque::{self, OpaqueIdError};
use crate::partition::subscription::deliver::LeaseId;
use crate::partition::subscription::{Lane, Place, Position};

const WHAT: &str = "ack_id";

/// One delivery of one message to one subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckId {
    /// The partition in which the message stands.
    pub partition: PartitionId,
    /// The subscription.
    pub subscription: SubscriptionId,
    /// Of the subscription, when the message was delivered.
    pub generation: u32,
    /// Of the leader who delivered it.
    pub term: u64,
    /// The delivery, among those of that leader.
    pub lease: LeaseId,
    /// The message.
    pub position: Position,
}

impl AckId {
    /// Reads an id. Of all texts, only the one that `Display` writes is a delivery's id.
    pub fn parse(text: &str) -> Result<AckId, OpaqueIdError> {
        let [topic, partition, subscription, generation, term, lease, lane, due_ms, offset] =
            opaque::parse(WHAT, text)?;
        let malformed = |_| OpaqueIdError::malformed(WHAT);
        let lane = u8::try_from(lane).ok().and_then(Lane::from_byte).ok_or_else(|| OpaqueIdError::malformed(WHAT))?;
        Ok(AckId {
            partition: PartitionId::new(TopicId::new(topic), u32::try_from(partition).map_err(malformed)?),
            subscription: SubscriptionId::new(subscription),
            generation: u32::try_from(generation).map_err(malformed)?,
            term,
            lease: LeaseId(lease),
            position: Position { lane, place: Place { due_ms, offset: Offset::new(offset) } },
        })
    }
}

impl fmt::Display for AckId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { lane, place } = self.position;
        f.pad(&opaque::format([
            self.partition.topic.get(),
            self.partition.index.into(),
            self.subscription.get(),
            self.generation.into(),
            self.term,
            self.lease.0,
            u64::from(lane.to_byte()),
            place.due_ms,
            place.offset.get(),
        ]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::PRIORITY_MAX;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    proptest! {
        #[test]
        fn an_id_is_read_back(
            (topic, index, subscription) in any::<(u64, u32, u64)>(),
            (generation, term, lease) in any::<(u32, u64, u64)>(),
            (priority, delayed, due_ms, offset) in (0..=PRIORITY_MAX, any::<bool>(), any::<u64>(), any::<u64>()),
        ) {
            let id = AckId {
                partition: PartitionId::new(TopicId::new(topic), index),
                subscription: SubscriptionId::new(subscription),
                generation,
                term,
                lease: LeaseId(lease),
                position: Position {
                    lane: Lane { priority, delayed },
                    place: Place { due_ms, offset: Offset::new(offset) },
                },
            };
            prop_assert_eq!(AckId::parse(&id.to_string()), Ok(id));
        }
    }

    #[test]
    fn a_message_id_is_no_ack_id() {
        let text = crate::MessageId::new(PartitionId::new(TopicId::new(1), 0), Offset::new(7)).to_string();
        assert_eq!(AckId::parse(&text), Err(OpaqueIdError::Malformed { what: "ack_id" }));
    }
}

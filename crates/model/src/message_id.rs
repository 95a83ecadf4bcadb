//! Message ids: opaque to users, unique in the cluster for all time, and enough for the broker to find
//! the message again.
//!
//! An id is topic id, partition and offset, written as [`crate::opaque`] says.

use std::fmt;
use std::str::FromStr;

use crate::ids::{Offset, PartitionId, TopicId};
use crate::opaque::{self, OpaqueIdError};

/// Where a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId {
    /// The topic.
    pub topic: TopicId,
    /// The partition's index in it.
    pub partition: u32,
    /// The message's offset.
    pub offset: Offset,
}

impl MessageId {
    /// The id of the message at an offset of a partition.
    pub fn new(partition: PartitionId, offset: Offset) -> Self {
        Self { topic: partition.topic, partition: partition.index, offset }
    }

    /// The partition in which the message stands.
    pub fn partition_id(&self) -> PartitionId {
        PartitionId::new(self.topic, self.partition)
    }

    /// Reads an id. Of all texts, only the one that `Display` writes is a message's id.
    pub fn parse(text: &str) -> Result<MessageId, OpaqueIdError> {
        let [topic, partition, offset] = opaque::parse("message_id", text)?;
        Ok(MessageId {
            topic: TopicId::new(topic),
            partition: u32::try_from(partition).map_err(|_| OpaqueIdError::malformed("message_id"))?,
            offset: Offset::new(offset),
        })
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&opaque::format([self.topic.get(), self.partition.into(), self.offset.get()]))
    }
}

impl FromStr for MessageId {
    type Err = OpaqueIdError;

    fn from_str(text: &str) -> Result<Self, OpaqueIdError> {
        MessageId::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::MessageId;
    use crate::ids::{Offset, TopicId};
    use crate::opaque::OpaqueIdError;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    fn id(topic: u64, partition: u32, offset: u64) -> MessageId {
        MessageId { topic: TopicId::new(topic), partition, offset: Offset::new(offset) }
    }

    #[test]
    fn ids_look_the_same_for_all_time() {
        let ids = [id(1, 0, 0), id(1, 5, 12_345), id(u64::MAX, u32::MAX, u64::MAX)];
        insta::assert_snapshot!(ids.map(|id| id.to_string()).join("
"), @r"
        0400010
        042vjr6c
        zzzzzzzzzzzzzzr1zzzzzzrfzzzzzzzzzzzzzzr194
        ");
    }

    #[test]
    fn a_typing_error_is_noticed() {
        let text = id(7, 3, 1_000_000).to_string();
        assert_eq!(MessageId::parse(""), Err(OpaqueIdError::Length { what: "message_id", characters: 0, limit: 50 }));
        assert_eq!(
            MessageId::parse("0u"),
            Err(OpaqueIdError::Character { what: "message_id", character: 'u', position: 1 })
        );
        assert!(MessageId::parse(&text[1..]).is_err());
        assert!(MessageId::parse(&text.to_uppercase()).is_err());
    }

    proptest! {
        #[test]
        fn an_id_is_read_back(topic in any::<u64>(), partition in any::<u32>(), offset in any::<u64>()) {
            let id = id(topic, partition, offset);
            prop_assert_eq!(MessageId::parse(&id.to_string()), Ok(id));
        }

        #[test]
        fn no_other_text_is_an_id(text in "[0-9a-z]{1,20}|.{0,8}") {
            if let Ok(id) = MessageId::parse(&text) {
                prop_assert_eq!(id.to_string(), text);
            } else {
                prop_assert!(true);
            }
        }
    }
}

//! Message ids: opaque to users, unique in the cluster for all time, and enough for the broker to find
//! the message again.
//!
//! An id is topic id, partition and offset as varints, then one byte of their checksum, all in Crockford's
//! base32 in lower case: short, safe in URLs and shells, and a typing error is noticed.

use std::fmt;
use std::str::FromStr;

use crc_fast::crc32_iscsi;

use crate::ids::{Offset, PartitionId, TopicId};
use crate::reason::Reason;
use crate::varint;

/// Crockford's alphabet: no i, l, o and u, which are mistaken for others.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Three varints and the checksum, in characters of five bits.
const CHARACTERS_MAX: usize = (3 * varint::BYTES_MAX + 1) * 8 / 5 + 1;

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
    pub fn parse(text: &str) -> Result<MessageId, MessageIdError> {
        if text.is_empty() || text.len() > CHARACTERS_MAX {
            return Err(MessageIdError::Length { characters: text.len() });
        }
        let bytes = decode_base32(text)?;
        let (&check, mut place) = bytes.split_last().ok_or(MessageIdError::Malformed)?;
        if check != checksum(place) {
            return Err(MessageIdError::Checksum);
        }
        let mut number = || varint::take(&mut place).ok_or(MessageIdError::Malformed);
        let (topic, partition, offset) = (number()?, number()?, number()?);
        if !place.is_empty() {
            return Err(MessageIdError::Malformed);
        }
        Ok(MessageId {
            topic: TopicId::new(topic),
            partition: u32::try_from(partition).map_err(|_| MessageIdError::Malformed)?,
            offset: Offset::new(offset),
        })
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::with_capacity(3 * varint::BYTES_MAX + 1);
        varint::put(&mut bytes, self.topic.get());
        varint::put(&mut bytes, u64::from(self.partition));
        varint::put(&mut bytes, self.offset.get());
        bytes.push(checksum(&bytes));
        f.pad(&encode_base32(&bytes))
    }
}

impl FromStr for MessageId {
    type Err = MessageIdError;

    fn from_str(text: &str) -> Result<Self, MessageIdError> {
        MessageId::parse(text)
    }
}

fn checksum(place: &[u8]) -> u8 {
    crc32_iscsi(place).to_le_bytes()[0]
}

fn encode_base32(bytes: &[u8]) -> String {
    let mut text = String::new();
    let (mut held, mut bits) = (0u32, 0);
    for &byte in bytes {
        held = held << 8 | u32::from(byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(digit(held >> bits));
        }
    }
    if bits > 0 {
        text.push(digit(held << (5 - bits)));
    }
    text
}

fn digit(value: u32) -> char {
    char::from(ALPHABET[(value & 31) as usize])
}

fn decode_base32(text: &str) -> Result<Vec<u8>, MessageIdError> {
    let mut bytes = Vec::with_capacity(text.len() * 5 / 8);
    let (mut held, mut bits) = (0u32, 0);
    for (position, character) in text.char_indices() {
        let value = (0u32..)
            .zip(ALPHABET)
            .find_map(|(value, &digit)| (char::from(digit) == character).then_some(value))
            .ok_or(MessageIdError::Character { character, position })?;
        held = held << 5 | value;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits & 0xff) as u8);
        }
    }
    // What is left must be the zeros that fill up the last character, and no character too many.
    if bits >= 5 || held & ((1 << bits) - 1) != 0 {
        return Err(MessageIdError::Malformed);
    }
    Ok(bytes)
}

/// Why a text isn't a message id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageIdError {
    /// Empty or far too long.
    #[error("message id has {characters} characters; it needs 1 to {CHARACTERS_MAX}")]
    Length {
        /// Length given.
        characters: usize,
    },
    /// A character outside the alphabet.
    #[error("message id holds {character:?} at byte {position}; allowed are 0-9 and a-z without i l o u")]
    Character {
        /// The offending character.
        character: char,
        /// Where it stands.
        position: usize,
    },
    /// The checksum doesn't match, as after a typing error.
    #[error("message id does not match its own checksum; was it copied whole?")]
    Checksum,
    /// It isn't three numbers.
    #[error("message id is malformed; was it copied whole?")]
    Malformed,
}

impl MessageIdError {
    /// The entry of the error table.
    pub fn reason(&self) -> Reason {
        Reason::InvalidMessageId
    }

    /// Facts for a program.
    pub fn metadata(&self) -> Vec<(&'static str, String)> {
        vec![("field", "message_id".to_owned())]
    }
}

#[cfg(test)]
mod tests {
    use super::{CHARACTERS_MAX, MessageId, MessageIdError};
    use crate::ids::{Offset, TopicId};
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
        assert!(ids[2].to_string().len() <= CHARACTERS_MAX);
    }

    #[test]
    fn a_typing_error_is_noticed() {
        let text = id(7, 3, 1_000_000).to_string();
        assert_eq!(MessageId::parse(""), Err(MessageIdError::Length { characters: 0 }));
        assert_eq!(MessageId::parse("0u"), Err(MessageIdError::Character { character: 'u', position: 1 }));
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

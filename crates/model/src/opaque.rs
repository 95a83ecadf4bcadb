//! Texts that mean something to the broker and nothing to anybody else.
//!
//! Each is a few numbers as varints, then one byte of their checksum, all in Crockford's base32 in lower case: short, safe
//! in URLs and shells, and a typing error is noticed.

use crc_fast::crc32_iscsi;

use crate::reason::Reason;
use crate::varint;

/// Crockford's alphabet: no i, l, o and u, which are mistaken for others.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Longest text for so many numbers: their varints and the checksum, in characters of five bits.
const fn characters_max(numbers: usize) -> usize {
    (numbers * varint::BYTES_MAX + 1) * 8 / 5 + 1
}

/// The text for some numbers.
pub(crate) fn format<const N: usize>(numbers: [u64; N]) -> String {
    let mut bytes = Vec::with_capacity(N * varint::BYTES_MAX + 1);
    numbers.into_iter().for_each(|number| varint::put(&mut bytes, number));
    bytes.push(checksum(&bytes));
    encode_base32(&bytes)
}

/// The numbers of a text; `what` names it in errors. Of all texts, only the one that [`format`] writes is read.
pub(crate) fn parse<const N: usize>(what: &'static str, text: &str) -> Result<[u64; N], OpaqueIdError> {
    let limit = characters_max(N);
    if text.is_empty() || text.len() > limit {
        return Err(OpaqueIdError::Length { what, characters: text.len(), limit });
    }
    let bytes = decode_base32(what, text)?;
    let (&check, mut rest) = bytes.split_last().ok_or(OpaqueIdError::malformed(what))?;
    if check != checksum(rest) {
        return Err(OpaqueIdError::Checksum { what });
    }
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = varint::take(&mut rest).ok_or(OpaqueIdError::malformed(what))?;
    }
    if rest.is_empty() { Ok(numbers) } else { Err(OpaqueIdError::malformed(what)) }
}

fn checksum(numbers: &[u8]) -> u8 {
    crc32_iscsi(numbers).to_le_bytes()[0]
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

fn decode_base32(what: &'static str, text: &str) -> Result<Vec<u8>, OpaqueIdError> {
    let mut bytes = Vec::with_capacity(text.len() * 5 / 8);
    let (mut held, mut bits) = (0u32, 0);
    for (position, character) in text.char_indices() {
        let value = (0u32..)
            .zip(ALPHABET)
            .find_map(|(value, &digit)| (char::from(digit) == character).then_some(value))
            .ok_or(OpaqueIdError::Character { what, character, position })?;
        held = held << 5 | value;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits & 0xff) as u8);
        }
    }
    // What is left must be the zeros that fill up the last character, and no character too many.
    if bits >= 5 || held & ((1 << bits) - 1) != 0 {
        return Err(OpaqueIdError::malformed(what));
    }
    Ok(bytes)
}

/// Why a text isn't an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpaqueIdError {
    /// Empty or far too long.
    #[error("{what} has {characters} characters; it needs 1 to {limit}")]
    Length {
        /// Which id.
        what: &'static str,
        /// Length given.
        characters: usize,
        /// Length allowed.
        limit: usize,
    },
    /// A character outside the alphabet.
    #[error("{what} holds {character:?} at byte {position}; allowed are 0-9 and a-z without i l o u")]
    Character {
        /// Which id.
        what: &'static str,
        /// The offending character.
        character: char,
        /// Where it stands.
        position: usize,
    },
    /// The checksum doesn't match, as after a typing error.
    #[error("{what} does not match its own checksum; was it copied whole?")]
    Checksum {
        /// Which id.
        what: &'static str,
    },
    /// It isn't as many numbers as it should be, or one of them can't be.
    #[error("{what} is malformed; was it copied whole?")]
    Malformed {
        /// Which id.
        what: &'static str,
    },
}

impl OpaqueIdError {
    pub(crate) fn malformed(what: &'static str) -> Self {
        Self::Malformed { what }
    }

    /// The entry of the error table.
    pub fn reason(&self) -> Reason {
        match self.what() {
            "message_id" => Reason::InvalidMessageId,
            _ => Reason::InvalidArgument,
        }
    }

    /// Facts for a program.
    pub fn metadata(&self) -> Vec<(&'static str, String)> {
        vec![("field", self.what().to_owned())]
    }

    fn what(&self) -> &'static str {
        match self {
            Self::Length { what, .. }
            | Self::Character { what, .. }
            | Self::Checksum { what }
            | Self::Malformed { what } => what,
        }
    }
}

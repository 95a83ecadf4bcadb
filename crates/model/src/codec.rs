//! How commands, replies, checkpoints and the cluster map become bytes: a format-version byte, then the
//! value in bincode with a bound on its size.
//!
//! This is the only file that names the encoding, so that it can be replaced here. Record batches never
//! pass through it. Of what clients send, only a subscription's snapshot is decoded with it: they keep what the broker encoded.
//!
//! The encoding numbers fields and enum variants by their place. So the types that pass through here are
//! changed only by a new version byte; the one change without it is a new variant at an enum's end.

use bincode::error::DecodeError;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits::CHECKPOINT_BYTES_MAX;

/// Values up to this size are decoded within [`CLAIM_SMALL`], so that a short malformed one that speaks
/// of a long text can't allocate much.
const SMALL_BYTES: usize = 1 << 20;

// Decoding may claim eight times the encoded size: the shortest encoding of a number is one byte, and
// the longest number has eight.
const CLAIM_SMALL: usize = 8 * SMALL_BYTES;
const CLAIM_LARGE: usize = 8 * CHECKPOINT_BYTES_MAX;

/// `value` behind its version byte.
pub(crate) fn encode<T: Serialize>(version: u8, value: &T) -> Bytes {
    let mut out = vec![version];
    bincode::serde::encode_into_std_write(value, &mut out, bincode::config::standard())
        .expect("the model's types can be encoded, and memory doesn't refuse a write");
    out.into()
}

/// The value behind a version byte that must be `version`; `what` names it in errors.
pub(crate) fn decode<T: DeserializeOwned>(
    what: &'static str,
    version: u8,
    bytes_max: usize,
    bytes: &[u8],
) -> Result<T, CodecError> {
    if bytes.len() > bytes_max {
        return Err(CodecError::TooLarge { what, bytes: bytes.len(), limit: bytes_max });
    }
    let Some((&actual, body)) = bytes.split_first() else {
        return Err(CodecError::Empty { what });
    };
    if actual != version {
        return Err(CodecError::Version { what, actual, known: version });
    }
    let config = bincode::config::standard();
    let decoded = if body.len() <= SMALL_BYTES {
        bincode::serde::decode_from_slice(body, config.with_limit::<CLAIM_SMALL>())
    } else {
        bincode::serde::decode_from_slice(body, config.with_limit::<CLAIM_LARGE>())
    };
    let (value, used) = decoded.map_err(|error| CodecError::Malformed {
        what,
        detail: match error {
            // What the model's own types object to, in their words and without the decoder's wrapping.
            DecodeError::OtherString(detail) => detail,
            other => other.to_string(),
        },
    })?;
    if used < body.len() {
        return Err(CodecError::Trailing { what, extra: body.len() - used });
    }
    Ok(value)
}

/// Why bytes aren't the value they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// No bytes at all.
    #[error("{what} is empty")]
    Empty {
        /// What was to be decoded.
        what: &'static str,
    },
    /// A format that this version doesn't know.
    #[error("{what} has format version {actual}, known is {known}")]
    Version {
        /// What was to be decoded.
        what: &'static str,
        /// The version found.
        actual: u8,
        /// The version known.
        known: u8,
    },
    /// A kind of command that this version doesn't know.
    #[error("{what} has tag {actual}, which is not known")]
    Tag {
        /// What was to be decoded.
        what: &'static str,
        /// The tag found.
        actual: u8,
    },
    /// Fewer bytes than the fixed part needs.
    #[error("{what} is cut short: it needs {need} bytes and has {have}")]
    Truncated {
        /// What was to be decoded.
        what: &'static str,
        /// Bytes needed.
        need: usize,
        /// Bytes present.
        have: usize,
    },
    /// More bytes than the bound.
    #[error("{what} has {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// What was to be decoded.
        what: &'static str,
        /// Size given.
        bytes: usize,
        /// Size allowed.
        limit: usize,
    },
    /// The decoder gave up.
    #[error("{what} is malformed: {detail}")]
    Malformed {
        /// What was to be decoded.
        what: &'static str,
        /// What the decoder said.
        detail: String,
    },
    /// Bytes after the value.
    #[error("{what} is followed by {extra} bytes that do not belong to it")]
    Trailing {
        /// What was decoded.
        what: &'static str,
        /// How many.
        extra: usize,
    },
    /// A sound value that belongs to something else.
    #[error("{what} belongs to {actual}, not to {expected}")]
    Foreign {
        /// What was decoded.
        what: &'static str,
        /// Whose it is.
        actual: String,
        /// Whose it should be.
        expected: String,
    },
}

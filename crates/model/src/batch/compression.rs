//! Payload compression. Reading is bounded by the length that the header announces, which is itself
//! bounded, so that a small hostile batch can't unfold into a large one.

use std::cell::RefCell;

use bytes::Bytes;
use zstd::bulk::Decompressor;

use crate::batch::{BatchError, Codec};

/// Level 1 compresses typical messages nearly as well as the default of 3, at about twice the speed.
const ZSTD_LEVEL: i32 = 1;

thread_local! {
    /// Making one costs more than most batches: a sixth of the processor time of reading small ones.
    static ZSTD: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

fn decompress_zstd(payload: &[u8], out: &mut [u8]) -> std::io::Result<usize> {
    ZSTD.with_borrow_mut(|kept| {
        let decompressor = match kept {
            Some(decompressor) => decompressor,
            None => kept.insert(Decompressor::new()?),
        };
        decompressor.decompress_to_buffer(payload, out)
    })
}

/// The payload as it was before compression.
pub(super) fn decompress(codec: Codec, payload: Bytes, uncompressed_len: u32) -> Result<Bytes, BatchError> {
    let expected = uncompressed_len as usize;
    let failed = |detail: String| BatchError::Decompress { expected: u64::from(uncompressed_len), detail };
    let mut out = match codec {
        Codec::None => return Ok(payload),
        Codec::Lz4 | Codec::Zstd => vec![0u8; expected],
    };
    let written = match codec {
        Codec::None => expected,
        Codec::Lz4 => {
            lz4_flex::block::decompress_into(&payload, &mut out).map_err(|error| failed(error.to_string()))?
        }
        Codec::Zstd => decompress_zstd(&payload, &mut out).map_err(|error| failed(error.to_string()))?,
    };
    if written != expected {
        return Err(failed(format!("it gives {written}")));
    }
    Ok(out.into())
}

/// Compresses what follows the header; `None` if that doesn't make it smaller.
pub(super) fn compress(codec: Codec, payload: &[u8]) -> Result<Option<Vec<u8>>, BatchError> {
    let compressed = match codec {
        Codec::None => return Ok(None),
        Codec::Lz4 => lz4_flex::block::compress(payload),
        Codec::Zstd => zstd::bulk::compress(payload, ZSTD_LEVEL)
            .map_err(|error| BatchError::Compress { detail: error.to_string() })?,
    };
    Ok((compressed.len() < payload.len()).then_some(compressed))
}

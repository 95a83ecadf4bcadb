//! Unsigned LEB128: seven bits a byte, the lowest first, the high bit set on all but the last byte.
//!
//! Only the shortest form is read, so that a number has exactly one encoding and equal records are
//! equal bytes.

/// Longest encoding of a `u64`.
pub(crate) const BYTES_MAX: usize = 10;

/// Appends `value`.
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

/// Bytes that [`put`] would append.
pub(crate) const fn len(value: u64) -> usize {
    let bits = (u64::BITS - value.leading_zeros()) as usize;
    if bits == 0 { 1 } else { bits.div_ceil(7) }
}

/// Reads one number from the front of `input` and moves past it; `None` if `input` ends too early, the
/// number doesn't fit a `u64`, or it isn't in its shortest form.
pub(crate) fn take(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for (at, &byte) in input.iter().take(BYTES_MAX).enumerate() {
        let bits = u64::from(byte & 0x7f);
        let shift = 7 * at;
        if bits << shift >> shift != bits {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            let shortest = byte != 0 || at == 0;
            *input = &input[at + 1..];
            return shortest.then_some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{BYTES_MAX, len, put, take};
    use proptest::prelude::{any, prop_assert_eq, proptest};

    fn encoded(value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, value);
        out
    }

    #[test]
    fn known_encodings() {
        assert_eq!(encoded(0), [0]);
        assert_eq!(encoded(127), [0x7f]);
        assert_eq!(encoded(300), [0xac, 0x02]);
        assert_eq!(encoded(u64::MAX).len(), BYTES_MAX);
    }

    #[test]
    fn long_forms_overflow_and_truncation_are_refused() {
        let mut overflow = [0xffu8; 10];
        overflow[9] = 0x02;
        for mut input in [&[0x80, 0x00][..], &[0x80], &[], &overflow, &[0xff; 11]] {
            assert_eq!(take(&mut input), None, "{input:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_put_is_taken(value in any::<u64>(), shift in 0u32..64, tail in any::<Vec<u8>>()) {
            let value = value >> shift;
            let mut bytes = encoded(value);
            prop_assert_eq!(bytes.len(), len(value));
            bytes.extend(&tail);
            let mut input = &bytes[..];
            prop_assert_eq!(take(&mut input), Some(value));
            prop_assert_eq!(input, &tail[..]);
        }

        #[test]
        fn what_is_taken_is_the_only_encoding(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let mut input = &bytes[..];
            if let Some(value) = take(&mut input) {
                let used = bytes.len() - input.len();
                prop_assert_eq!(encoded(value), &bytes[..used]);
            }
        }
    }
}

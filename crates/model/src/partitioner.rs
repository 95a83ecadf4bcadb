//! Which partition a message with an ordering key goes to.

use xxhash_rust::xxh3::xxh3_64;

/// The partition of an ordering key: `XXH3-64(key, seed 0) mod partitions`.
///
/// Every SDK in every language must compute the same number, or one key's messages would spread over
/// partitions and lose their order; so this function never changes.
///
/// # Panics
/// When there are no partitions. A topic always has one.
pub fn partition_for_key(key: &[u8], partitions: u32) -> u32 {
    assert!(partitions > 0, "a topic has at least one partition");
    let index = xxh3_64(key) % u64::from(partitions);
    u32::try_from(index).expect("a remainder is less than its divisor")
}

#[cfg(test)]
mod tests {
    use super::partition_for_key;

    #[test]
    fn placement_of_keys_is_fixed_for_all_time() {
        // These numbers are a contract with SDKs in other languages.
        let placed = ["", "a", "customer-42", "größe"].map(|k| partition_for_key(k.as_bytes(), 1_000));
        assert_eq!(placed, [138, 719, 433, 244]);
    }

    #[test]
    fn keys_spread_over_all_partitions() {
        let mut counts = [0u32; 6];
        for key in 0..6_000u32 {
            counts[partition_for_key(&key.to_le_bytes(), 6) as usize] += 1;
        }
        assert!(counts.iter().all(|&c| (850..1_150).contains(&c)), "{counts:?}");
    }
}

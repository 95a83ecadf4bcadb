//! The batch decoder on arbitrary bytes: it never panics, never unfolds more than it announced, and what
//! it can read has no other encoding.
//!
//! `cargo +nightly fuzz run batch_decode` in `crates/model`.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use quorate_model::limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX};
use quorate_model::{Codec, PartitionId, RecordBatch, RecordBatchBuilder, TopicId};

const HERE: PartitionId = PartitionId::new(TopicId::new(1), 0);

fuzz_target!(|input: &[u8]| {
    let bytes = Bytes::copy_from_slice(input);
    let _ = RecordBatch::decode(bytes.clone(), HERE);

    // A fuzzer rarely guesses a checksum, so the records are read without it.
    let Ok(batch) = RecordBatch::trusted(bytes) else {
        return;
    };
    let records = batch.records();
    assert_eq!(records.is_ok(), batch.check_records(u64::MAX).is_ok());
    let Ok(records) = records else {
        return;
    };
    assert!(records.len() <= BATCH_RECORDS_MAX);
    let data: usize = records.iter().map(|record| record.data.len()).sum();
    assert!(data <= BATCH_BYTES_MAX);

    if batch.header().codec == Codec::None {
        let mut again = RecordBatchBuilder::new(HERE, Codec::None, batch.header().producer);
        for record in records {
            // The builder leaves room for the longest deltas, so a batch at the very bound may not fit.
            if again.push(record).is_err() {
                return;
            }
        }
        let again = again.build().expect("records that were read can be written");
        assert_eq!(again.bytes()[..8], batch.bytes()[..8]);
        assert_eq!(again.bytes()[12..], batch.bytes()[12..]);
    }
});

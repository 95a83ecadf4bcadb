//! The record batch as a format: what it looks like, that it is read back, and that no damage passes.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use bytes::Bytes;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use quorate_model::batch::HEADER_BYTES;
use quorate_model::limits::{
    ATTRIBUTE_KEY_BYTES_MAX, ATTRIBUTE_VALUE_BYTES_MAX, ATTRIBUTES_MAX, BATCH_BYTES_MAX, BATCH_RECORDS_MAX,
    MESSAGE_BYTES_CAP, ORDERING_KEY_BYTES_MAX,
};
use quorate_model::{
    BatchError, Codec, DeliveryOptions, PartitionId, ProducerId, ProducerStamp, Record, RecordBatch,
    RecordBatchBuilder, RecordError, TopicId,
};

const HERE: PartitionId = PartitionId::new(TopicId::new(3), 1);

fn attribute(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

fn data(data: impl Into<Bytes>) -> Record {
    Record::new(0, Bytes::new(), [], data)
}

fn build(codec: Codec, producer: Option<ProducerStamp>, records: &[Record]) -> RecordBatch {
    let mut builder = RecordBatchBuilder::new(HERE, codec, producer);
    for record in records {
        builder.push(record.clone()).unwrap();
    }
    builder.build().unwrap()
}

/// The batch with some bytes changed and its checksum made to match again, as a faulty maker would send it.
fn forged(batch: &RecordBatch, change: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut bytes = batch.bytes().to_vec();
    change(&mut bytes);
    let length = bytes.len() as u32;
    bytes[0..4].copy_from_slice(&length.to_le_bytes());
    let mut covered = Vec::new();
    covered.extend(HERE.topic.get().to_le_bytes());
    covered.extend(HERE.index.to_le_bytes());
    covered.extend(&bytes[0..8]);
    covered.extend(&bytes[12..]);
    let crc = crc_fast::crc32_iscsi(&covered);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    bytes.into()
}

fn golden_records() -> Vec<Record> {
    vec![
        Record::new(1_000_300, "k", [attribute("b", "2"), attribute("a", "1")], "hello"),
        Record::new(1_000_000, Bytes::new(), [], "world"),
    ]
}

fn golden_stamp() -> ProducerStamp {
    ProducerStamp { id: ProducerId::new(0x0102_0304_0506_0708), epoch: 9, base_sequence: 10 }
}

#[test]
fn a_batch_looks_the_same_for_all_time() {
    let batch = build(Codec::None, Some(golden_stamp()), &golden_records());
    #[rustfmt::skip]
    let expected = [
        86, 0, 0, 0,                                    // length
        1, 0, 0, 0,                                     // version, codec, flags
        0, 0, 0, 0,                                     // crc, filled in below
        2, 0, 0, 0,                                     // count
        0x40, 0x42, 0x0f, 0, 0, 0, 0, 0,                // base timestamp 1,000,000
        0x6c, 0x43, 0x0f, 0, 0, 0, 0, 0,                // max timestamp 1,000,300
        8, 7, 6, 5, 4, 3, 2, 1,                         // producer
        9, 0, 0, 0,                                     // epoch
        10, 0, 0, 0, 0, 0, 0, 0,                        // base sequence
        30, 0, 0, 0,                                    // uncompressed payload length
        0, 0xac, 0x02,                                  // record 0: offset delta, timestamp delta 300
        1, b'k',                                        //   ordering key
        2, 1, b'a', 1, b'1', 1, b'b', 1, b'2',          //   attributes, sorted
        5, b'h', b'e', b'l', b'l', b'o',                //   data
        1, 0, 0, 0,                                     // record 1: deltas, no key, no attributes
        5, b'w', b'o', b'r', b'l', b'd',
    ];
    let mut actual = batch.bytes().to_vec();
    let crc = u32::from_le_bytes(actual[8..12].try_into().unwrap());
    actual[8..12].fill(0);
    assert_eq!(actual, expected);
    assert_eq!(crc, 0x5798_7cc3);
    assert_eq!(crc, batch.header().crc);
}

#[test]
fn options_stand_before_the_data_of_every_record_if_one_has_some() {
    let options = DeliveryOptions { priority: 9, deliver_at_ms: 300, expire_at_ms: 301 };
    let records = [Record { options, ..data("a") }, data("b")];
    let batch = build(Codec::None, None, &records);
    assert_eq!(batch.bytes()[6..8], [3, 0]);
    let payload = [0, 0, 0, 0, 9, 0xac, 0x02, 0xad, 0x02, 1, b'a', 1, 0, 0, 0, 0, 0, 0, 1, b'b'];
    assert_eq!(batch.bytes()[HEADER_BYTES..], payload);
    assert_eq!(batch.records().unwrap(), records);

    let only_expiry = DeliveryOptions { expire_at_ms: 1, ..DeliveryOptions::default() };
    let batch = build(Codec::None, None, &[Record { options: only_expiry, ..data("a") }]);
    assert_eq!(batch.bytes()[6..8], [1, 0]);
    let wrong = forged(&batch, |bytes| bytes[6] = 3);
    let refused = RecordBatch::decode(wrong, HERE).unwrap().records().unwrap_err();
    assert_eq!(refused.to_string(), "batch has the flags 0x0003 and its records give 0x0001");
}

#[test]
fn options_out_of_bounds_are_refused() {
    let refused = |priority, deliver_at_ms, expire_at_ms| {
        let options = DeliveryOptions { priority, deliver_at_ms, expire_at_ms };
        Record { options, ..data("a") }.validate(10).unwrap_err().to_string()
    };
    let late = 253_402_300_800_000;
    insta::assert_snapshot!(
        [refused(10, 0, 0), refused(0, late, 0), refused(0, 0, late), refused(0, 5, 5)].join("\n"),
        @r"
        priority is 10, the limit is 9
        deliver_at is 253402300800000 ms after 1970, the limit is 253402300799999
        expire_at is 253402300800000 ms after 1970, the limit is 253402300799999
        expire_at (5 ms after 1970) is not after deliver_at (5 ms)
        "
    );
}

#[test]
fn the_checksum_is_crc_32c() {
    // The check value of the Castagnoli polynomial in every catalogue of checksums.
    assert_eq!(crc_fast::crc32_iscsi(b"123456789"), 0xe306_9283);
    // And `forged`, which computes the batch's checksum from the documentation, agrees with the builder.
    let batch = build(Codec::None, Some(golden_stamp()), &golden_records());
    assert_eq!(forged(&batch, |_| ()), batch.bytes());
}

#[test]
fn compressed_batches_written_once_are_read_for_all_time() {
    let records: Vec<Record> = (0..3).map(|_| data("quorate ".repeat(8))).collect();
    for (codec, written) in [
        (
            Codec::Lz4,
            "5a000000010100006bd5521203000000000000000000000000000000000000000000000000000000000000000000000000000000cf000000df000000004071756f72617465200800251f014500311f0245002b606f7261746520",
        ),
        (
            Codec::Zstd,
            "5c0000000102000087df0f1303000000000000000000000000000000000000000000000000000000000000000000000000000000cf00000028b52ffd20cfdd000078000000004071756f72617465200102030001a80412d0ab3bcb17",
        ),
    ] {
        let bytes = Bytes::from(from_hex(written));
        let batch = RecordBatch::decode(bytes.clone(), HERE)
            .unwrap_or_else(|error| panic!("{error}: {}", to_hex(build(codec, None, &records).bytes())));
        assert_eq!(batch.header().codec, codec);
        assert_eq!(batch.records().unwrap(), records);
    }
}

fn from_hex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digit).collect()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_batch_belongs_to_one_partition() {
    let batch = build(Codec::None, None, &golden_records());
    for elsewhere in [PartitionId::new(HERE.topic, 2), PartitionId::new(TopicId::new(4), HERE.index)] {
        let error = RecordBatch::decode(batch.bytes().clone(), elsewhere).unwrap_err();
        assert!(matches!(error, BatchError::Crc { .. }), "{error}");
    }
}

#[test]
fn every_single_bit_flip_is_noticed() {
    let batch = build(Codec::None, Some(golden_stamp()), &golden_records());
    for bit in 0..batch.len_bytes() * 8 {
        let mut bytes = batch.bytes().to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(RecordBatch::decode(bytes.into(), HERE).is_err(), "bit {bit}");
    }
}

#[test]
fn a_batch_cut_short_or_with_a_tail_is_refused() {
    let batch = build(Codec::None, None, &golden_records());
    let whole = batch.bytes();
    for end in 0..whole.len() {
        let error = RecordBatch::decode(whole.slice(..end), HERE).unwrap_err();
        assert!(matches!(error, BatchError::Truncated { .. }), "{end}: {error}");
    }
    let mut longer = whole.to_vec();
    longer.push(0);
    assert_eq!(
        RecordBatch::decode(longer.into(), HERE),
        Err(BatchError::Trailing { need: whole.len() as u64, extra: 1 })
    );
}

#[test]
fn the_header_is_checked_field_by_field() {
    let batch = build(Codec::None, None, &golden_records());
    let refused = |at: usize, with: &[u8]| {
        let bytes = forged(&batch, |bytes| bytes[at..at + with.len()].copy_from_slice(with));
        RecordBatch::decode(bytes, HERE).unwrap_err().to_string()
    };
    insta::assert_snapshot!(
        [
            refused(4, &[2]),
            refused(5, &[3]),
            refused(6, &[4]),
            refused(6, &[2]),
            refused(12, &0u32.to_le_bytes()),
            refused(12, &10_001u32.to_le_bytes()),
            refused(16, &u64::MAX.to_le_bytes()),
            refused(40, &[1]),
            refused(32, &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]),
            refused(52, &[0]),
            refused(52, &u32::MAX.to_le_bytes()),
        ]
        .join("\n"),
        @r"
        batch has format version 2, known is 1
        batch has codec 3, known are 0 (none), 1 (lz4) and 2 (zstd)
        batch has the flags 0x0004, known are 0 (none), 1 (options) and 3 (options and lanes)
        batch has the flags 0x0002, known are 0 (none), 1 (options) and 3 (options and lanes)
        batch has no records; it needs 1 to 10000
        batch has 10001 records, the limit is 10000
        batch has base timestamp 18446744073709551615 ms after its greatest timestamp 1000300 ms
        batch has producer epoch 1 and sequence 0 without a producer id
        batch has base sequence 18446744073709551615 and 2 records, which overflows
        batch payload does not decompress to the announced 0 bytes: it is not compressed and has 30
        batch has 4294967295 bytes, the limit is 17825792
        "
    );
}

#[test]
fn records_that_contradict_the_header_are_refused() {
    let batch = build(Codec::None, None, &golden_records());
    let payload = HEADER_BYTES;
    let refused = |change: fn(&mut Vec<u8>, usize)| {
        let bytes = forged(&batch, |bytes| {
            change(bytes, payload);
            let uncompressed = (bytes.len() - payload) as u32;
            bytes[52..56].copy_from_slice(&uncompressed.to_le_bytes());
        });
        let batch = RecordBatch::decode(bytes, HERE).unwrap();
        assert_eq!(batch.check_records(u64::MAX), batch.records().map(|_| ()));
        batch.records().unwrap_err().to_string()
    };
    insta::assert_snapshot!(
        [
            refused(|bytes, at| bytes[at] = 1),
            refused(|bytes, at| bytes[at + 1] = 0xad),
            refused(|bytes, at| bytes[at + 4] = 0xff),
            refused(|bytes, at| bytes[at + 5] = 101),
            refused(|bytes, at| bytes[at + 7] = b'z'),
            refused(|bytes, at| bytes[at + 7] = b'b'),
            refused(|bytes, at| bytes[at + 7] = 0xff),
            refused(|bytes, at| bytes[at + 14] = 100),
            refused(|bytes, _| bytes.push(0)),
            refused(|bytes, _| bytes.truncate(bytes.len() - 1)),
            refused(|bytes, _| bytes[12] = 3),
            refused(|bytes, _| bytes[12] = 1),
        ]
        .join("\n"),
        @r#"
        record 0 of the batch has offset delta 1
        the batch's timestamps do not span 1000000 to 1000300 ms as its header says
        record 0 of the batch: ordering_key is not UTF-8
        record 0 of the batch: attributes has 101 entries, the limit is 100
        record 0 of the batch: attributes are not sorted by key at "b"
        record 0 of the batch: attributes holds the key "b" twice
        record 0 of the batch: attributes is malformed or cut short
        record 0 of the batch: data is malformed or cut short
        batch payload has 1 bytes after its last record
        record 1 of the batch: data is malformed or cut short
        record 2 of the batch: offset_delta is malformed or cut short
        batch payload has 10 bytes after its last record
        "#
    );
}

#[test]
fn a_small_batch_cannot_unfold_into_a_large_one() {
    // Two megabytes of zeros compress to a few hundred bytes; the header then says it were less, or more.
    let batch = build(Codec::Zstd, None, &[data(vec![0; 2 << 20])]);
    assert!(batch.len_bytes() < 1_000);
    let true_length = batch.header().uncompressed_len;
    for codec in [Codec::Lz4, Codec::Zstd] {
        let batch = build(codec, None, &[data(vec![0; 2 << 20])]);
        for said in [0, 1, 1_000, true_length - 1, true_length + 1, BATCH_BYTES_MAX as u32] {
            let bytes = forged(&batch, |bytes| bytes[52..56].copy_from_slice(&said.to_le_bytes()));
            let error = RecordBatch::decode(bytes, HERE).unwrap().records().unwrap_err();
            assert!(matches!(error, BatchError::Decompress { .. }), "{codec:?} {said}: {error}");
        }
    }
}

#[test]
fn what_compression_does_not_make_smaller_is_stored_as_it_is() {
    for codec in [Codec::Lz4, Codec::Zstd] {
        let batch = build(codec, None, &[data("short")]);
        assert_eq!(batch.header().codec, Codec::None);
        assert_eq!(batch, build(Codec::None, None, &[data("short")]));
    }
}

#[test]
fn reading_an_uncompressed_batch_copies_nothing() {
    let batch = build(Codec::None, None, &golden_records());
    let stored = batch.bytes().as_ptr_range();
    for record in batch.records().unwrap() {
        assert!(stored.contains(&record.data.as_ptr()));
    }
}

#[test]
fn records_are_accepted_at_each_bound_and_refused_one_past_it() {
    let mut builder = RecordBatchBuilder::new(HERE, Codec::None, None);
    let many = |count: usize| (0..count).map(|n| (format!("{n:03}"), String::new()));
    let key = |len: usize| Record::new(0, "k".repeat(len), [], "");
    let name = |len: usize| Record::new(0, "", [("a".repeat(len), String::new())], "");
    let value = |len: usize| Record::new(0, "", [("a".to_owned(), "v".repeat(len))], "");

    for accepted in [
        Record::new(0, "", many(ATTRIBUTES_MAX), ""),
        key(ORDERING_KEY_BYTES_MAX),
        name(ATTRIBUTE_KEY_BYTES_MAX),
        value(ATTRIBUTE_VALUE_BYTES_MAX),
    ] {
        builder.push(accepted).unwrap();
    }
    let refused = [
        Record::new(0, "", many(ATTRIBUTES_MAX + 1), ""),
        key(ORDERING_KEY_BYTES_MAX + 1),
        name(ATTRIBUTE_KEY_BYTES_MAX + 1),
        value(ATTRIBUTE_VALUE_BYTES_MAX + 1),
        name(0),
        Record::new(0, &b"\xff"[..], [], ""),
        Record::new(0, "", [attribute("a", "1"), attribute("a", "2")], ""),
        data(vec![0; MESSAGE_BYTES_CAP as usize + 1]),
    ]
    .map(|record| builder.push(record).unwrap_err().to_string());
    insta::assert_snapshot!(refused.join("\n"), @r#"
        record 4 of the batch: attributes has 101 entries, the limit is 100
        record 4 of the batch: ordering_key has 1025 bytes, the limit is 1024
        record 4 of the batch: attributes has a key of 257 bytes, the limit is 256
        record 4 of the batch: attributes["a"] has 1025 bytes, the limit is 1024
        record 4 of the batch: attributes has an empty key; a key needs 1 to 256 bytes
        record 4 of the batch: ordering_key is not UTF-8
        record 4 of the batch: attributes holds the key "a" twice
        record 4 of the batch: data has 16777217 bytes, the limit is 16777216
        "#);
    assert_eq!(builder.len(), 4, "a refused record leaves the batch as it was");
}

#[test]
fn the_largest_message_fits_a_batch_with_the_largest_everything() {
    let attributes = (0..ATTRIBUTES_MAX).map(|n| {
        let key = format!("{n:0>width$}", width = ATTRIBUTE_KEY_BYTES_MAX);
        (key, "v".repeat(ATTRIBUTE_VALUE_BYTES_MAX))
    });
    let key = "k".repeat(ORDERING_KEY_BYTES_MAX);
    let largest = Record::new(u64::MAX, key, attributes, vec![7; MESSAGE_BYTES_CAP as usize]);
    let batch = build(Codec::Lz4, None, std::slice::from_ref(&largest));
    let batch = RecordBatch::decode(batch.bytes().clone(), HERE).unwrap();
    assert_eq!(batch.records().unwrap(), std::slice::from_ref(&largest));

    // A second one does not fit, and the topic's own limit is held against each message.
    let mut builder = RecordBatchBuilder::new(HERE, Codec::Lz4, None);
    assert!(builder.has_room(&largest));
    builder.push(largest.clone()).unwrap();
    assert!(!builder.has_room(&largest));
    assert!(matches!(builder.push(largest), Err(BatchError::TooLarge { .. })));
    assert_eq!(
        batch.check_records(1_000),
        Err(BatchError::Record {
            index: 0,
            error: RecordError::DataTooLarge { bytes: MESSAGE_BYTES_CAP, limit: 1_000 },
        })
    );
}

#[test]
fn a_batch_has_one_to_ten_thousand_records() {
    let empty = RecordBatchBuilder::new(HERE, Codec::None, None);
    assert!(empty.is_empty());
    assert_eq!(empty.build(), Err(BatchError::Empty));

    let mut builder = RecordBatchBuilder::new(HERE, Codec::Lz4, None);
    for n in 0..BATCH_RECORDS_MAX {
        builder.push(data(n.to_le_bytes().to_vec())).unwrap();
    }
    assert!(!builder.has_room(&data("")));
    assert_eq!(builder.push(data("")), Err(BatchError::TooManyRecords { count: BATCH_RECORDS_MAX as u64 + 1 }));
    let batch = builder.build().unwrap();
    assert_eq!(batch.records().unwrap().len(), BATCH_RECORDS_MAX);
}

#[test]
fn a_stamp_needs_a_producer() {
    let stamp = |id, base_sequence| ProducerStamp { id: ProducerId::new(id), epoch: 0, base_sequence };
    let build = |stamp| {
        let mut builder = RecordBatchBuilder::new(HERE, Codec::None, Some(stamp));
        builder.push(data("x")).unwrap();
        builder.build()
    };
    assert_eq!(build(stamp(0, 0)), Err(BatchError::ProducerZero));
    assert_eq!(build(stamp(1, u64::MAX)), Err(BatchError::SequenceOverflow { base_sequence: u64::MAX, count: 1 }));
    assert!(build(stamp(1, u64::MAX - 1)).is_ok());
}

fn any_record() -> impl Strategy<Value = Record> {
    let attributes = proptest::collection::btree_map("[a-z]{1,4}", "\\PC{0,6}", 0..4);
    let payload = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..60),
        (any::<u8>(), 0usize..3_000).prop_map(|(byte, len)| vec![byte; len]),
    ];
    (any::<u64>(), 0u32..64, "\\PC{0,6}", attributes, any_options(), payload).prop_map(
        |(time, shift, key, attributes, options, payload)| {
            let record = Record::new(time >> shift, key, attributes, payload);
            Record { options, ..record }
        },
    )
}

fn any_options() -> impl Strategy<Value = DeliveryOptions> {
    let some = (0..=9u8, 0..1_000_000u64, 0..1_000_000u64).prop_map(|(priority, deliver_at_ms, more)| {
        let expire_at_ms = if more.is_multiple_of(2) { 0 } else { deliver_at_ms + more };
        DeliveryOptions { priority, deliver_at_ms, expire_at_ms }
    });
    prop_oneof![Just(DeliveryOptions::default()), some]
}

fn any_stamp() -> impl Strategy<Value = Option<ProducerStamp>> {
    proptest::option::of(
        (1..=u64::MAX, any::<u32>(), 0..=u64::MAX - 100).prop_map(|(id, epoch, base_sequence)| ProducerStamp {
            id: ProducerId::new(id),
            epoch,
            base_sequence,
        }),
    )
}

proptest! {
    #[test]
    fn what_is_built_is_read_back(
        records in proptest::collection::vec(any_record(), 1..20),
        codec in prop_oneof![Just(Codec::None), Just(Codec::Lz4), Just(Codec::Zstd)],
        stamp in any_stamp(),
    ) {
        let mut builder = RecordBatchBuilder::new(HERE, codec, stamp);
        for record in &records {
            builder.push(record.clone()).unwrap();
        }
        let estimate = builder.bytes_estimate();
        let built = builder.build().unwrap();
        prop_assert!(built.len_bytes() <= estimate);

        let read = RecordBatch::decode(built.bytes().clone(), HERE).unwrap();
        prop_assert_eq!(&read, &built);
        let header = read.header();
        prop_assert_eq!(header.producer, stamp);
        prop_assert_eq!(header.count as usize, records.len());
        prop_assert_eq!(Some(header.base_timestamp_ms), records.iter().map(|r| r.timestamp_ms).min());
        prop_assert_eq!(Some(header.max_timestamp_ms), records.iter().map(|r| r.timestamp_ms).max());
        prop_assert_eq!(read.check_records(MESSAGE_BYTES_CAP), Ok(()));
        prop_assert_eq!(read.records().unwrap(), records);
    }
}

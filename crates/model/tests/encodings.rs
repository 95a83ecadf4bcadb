//! Bytes that stand in logs and checkpoints, written down once. If one of these tests fails, stored data
//! would no longer be read: give the new form a new version or tag, and keep reading the old one.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_model::{
    AppendRejected, Appended, ClusterMap, Codec, CodecError, Command, DeadLetterPolicy, DeletionRejected,
    DeliveryOptions, IndexSegment, Machine, MachineKind, MetaCommand, MetaRejected, NewSubscription, NodeId, Offset,
    PartitionCommand, PartitionId, ProducerId, ProducerStamp, Record, RecordBatchBuilder, Reply, Retention,
    RetryPolicy, SubscriptionChange, SubscriptionId, SubscriptionName, SubscriptionRejected, TopicId, TopicName,
};

const HERE: PartitionId = PartitionId::new(TopicId::new(1), 2);

fn hex(bytes: &[u8]) -> String {
    let lines: Vec<String> =
        bytes.chunks(32).map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect()).collect();
    lines.join("\n")
}

fn name(name: &str) -> TopicName {
    TopicName::parse(name).unwrap()
}

fn meta_commands() -> Vec<MetaCommand> {
    vec![
        MetaCommand::RegisterNode {
            node: NodeId::new(3),
            client_address: "a:1".to_owned(),
            peer_address: "b:2".to_owned(),
            store_id: 0x0102_0304_0506_0708,
        },
        MetaCommand::CreateTopic {
            time_ms: 1_700_000_000_000,
            request_id: "r".to_owned(),
            name: name("books"),
            partitions: 6,
            replication_factor: Some(3),
            retention: Retention::default(),
            max_message_bytes: 1 << 20,
            labels: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
        },
        MetaCommand::UpdateTopic {
            request_id: "u".to_owned(),
            name: name("books"),
            etag: Some(5),
            retention: Some(Retention { age_ms: None, bytes: Some(1), messages: Some(2) }),
            max_message_bytes: None,
            labels: Some(BTreeMap::new()),
        },
        MetaCommand::DeleteTopic { request_id: "d".to_owned(), name: name("books") },
        MetaCommand::CreateSubscription(subscription()),
        MetaCommand::UpdateSubscription(SubscriptionChange {
            request_id: "u".to_owned(),
            name: subscription_name(),
            etag: Some(5),
            ack_deadline_ms: None,
            retry: Some(RetryPolicy::Linear { first_ms: 1, step_ms: 2, maximum_ms: 3 }),
            dead_letter: Some(None),
            filter: Some("size > 9".to_owned()),
            labels: None,
        }),
        MetaCommand::DeleteSubscription { request_id: "d".to_owned(), name: subscription_name() },
    ]
}

fn subscription_name() -> SubscriptionName {
    SubscriptionName::parse("billing").unwrap()
}

fn subscription() -> NewSubscription {
    NewSubscription {
        time_ms: 1_700_000_000_000,
        request_id: "r".to_owned(),
        name: subscription_name(),
        topic: TopicId::new(2),
        start: vec![Offset::new(300)],
        ack_deadline_ms: 30_000,
        retry: RetryPolicy::default(),
        dead_letter: Some(DeadLetterPolicy { topic: TopicId::new(3), max_attempts: 5 }),
        ordered: true,
        filter: "size < 9".to_owned(),
        labels: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
    }
}

fn append(producer: u64) -> PartitionCommand {
    append_with(producer, DeliveryOptions::default())
}

fn append_with(producer: u64, options: DeliveryOptions) -> PartitionCommand {
    let stamp = ProducerStamp { id: ProducerId::new(producer), epoch: 1, base_sequence: 0 };
    let mut batch = RecordBatchBuilder::new(HERE, Codec::None, Some(stamp));
    batch.push(Record { options, ..Record::new(50, "", [], "x") }).unwrap();
    PartitionCommand::Append { time_ms: 0x0102_0304_0506_0708, batch: batch.build().unwrap().bytes().clone() }
}

#[test]
fn an_append_is_a_tag_a_time_and_the_batch_as_it_is() {
    let PartitionCommand::Append { batch, .. } = append(7) else { panic!("not an append") };
    let mut expected = vec![1, 8, 7, 6, 5, 4, 3, 2, 1];
    expected.extend(&batch);
    let encoded = append(7).encode();
    assert_eq!(encoded, expected);
    assert_eq!(Command::decode(&encoded), Ok(Command::Partition(append(7))));
    // The decoded batch is a slice of the entry, not a copy.
    let Ok(PartitionCommand::Append { batch, .. }) = PartitionCommand::decode(&encoded) else {
        panic!("not an append")
    };
    assert_eq!(batch.as_ptr(), encoded[9..].as_ptr());
}

#[test]
fn the_commands_of_retention_and_release_look_the_same_for_all_time() {
    let trim = PartitionCommand::TrimTo { offset: Offset::new(0x0102) };
    let release = PartitionCommand::Release { time_ms: 0x0102 };
    for (command, golden) in [
        (trim, &[2, 2, 1, 0, 0, 0, 0, 0, 0][..]),
        (PartitionCommand::Mark, &[3]),
        (release, &[9, 2, 1, 0, 0, 0, 0, 0, 0]),
    ] {
        assert_eq!(command.encode(), golden);
        assert_eq!(PartitionCommand::decode(&command.encode()), Ok(command));
        let longer = Bytes::from([golden, &[0]].concat());
        assert!(matches!(PartitionCommand::decode(&longer), Err(CodecError::Trailing { extra: 1, .. })));
    }
}

#[test]
fn the_commands_of_subscriptions_look_the_same_for_all_time() {
    let subscription = SubscriptionId::new(7);
    let (start, to) = (Offset::new(0x0102), Offset::new(0x0304));
    let commands = [
        PartitionCommand::BeginSubscription { subscription, start },
        PartitionCommand::EndSubscription { subscription },
        PartitionCommand::DeadLettersSent { subscription, next: 5 },
        PartitionCommand::Seek { subscription, request: 0x0506, to },
    ];
    let encoded = commands.map(|command| {
        let bytes = command.encode();
        assert_eq!(Command::decode(&bytes), Ok(Command::Partition(command)));
        let longer = Bytes::from([&bytes[..], &[0]].concat());
        assert!(matches!(PartitionCommand::decode(&longer), Err(CodecError::Trailing { extra: 1, .. })));
        let shorter = bytes.slice(..bytes.len() - 1);
        assert!(matches!(PartitionCommand::decode(&shorter), Err(CodecError::Truncated { .. })));
        hex(&bytes)
    });
    insta::assert_snapshot!(encoded.join("\n"), @r"
        0407000000000000000201000000000000
        050700000000000000
        0707000000000000000500000000000000
        08070000000000000006050000000000000403000000000000
        ");
}

#[test]
fn deletions_and_restores_look_the_same_for_all_time() {
    let range = |start, end| Offset::new(start)..Offset::new(end);
    let mut partition = Machine::new(MachineKind::Partition(HERE));
    let subscription = SubscriptionId::new(7);
    partition.apply(0, &PartitionCommand::BeginSubscription { subscription, start: Offset::new(300) }.encode());
    let snapshot = partition.as_partition().unwrap().subscriptions().get(subscription).unwrap().snapshot();
    let commands = [
        PartitionCommand::Delete { ranges: vec![range(1, 2), range(5, 300)] },
        PartitionCommand::Restore { subscription, request: 0x0506, snapshot },
    ];
    let encoded = commands.map(|command| {
        let bytes = command.encode();
        assert_eq!(Command::decode(&bytes), Ok(Command::Partition(command)));
        let longer = Bytes::from([&bytes[..], &[0]].concat());
        assert!(matches!(PartitionCommand::decode(&longer), Err(CodecError::Trailing { extra: 1, .. })));
        hex(&bytes)
    });
    insta::assert_snapshot!(encoded.join("\n"), @r"
        0a02010205fb2c01
        0b07fb0605fb2c0101000001000000fb2c01
        ");
}

#[test]
fn a_subscription_in_a_checkpoint_looks_the_same_for_all_time() {
    let mut partition = Machine::new(MachineKind::Partition(HERE));
    partition.apply(0, &append(7).encode());
    let subscription = SubscriptionId::new(7);
    partition.apply(1, &PartitionCommand::BeginSubscription { subscription, start: Offset::ZERO }.encode());
    partition.apply(2, &PartitionCommand::Seek { subscription, request: 300, to: Offset::new(1) }.encode());
    insta::assert_snapshot!(hex(&partition.checkpoint()), @r"
        0401020102013e0000010301323e0107010100010001fc77cebf3f0001000700
        0001fd0807060504030201fd080706050403020101070201fb2c010101000001
        00000001000000000000000001000000000000
        ");
}

#[test]
fn metadata_commands_look_the_same_for_all_time() {
    let commands = meta_commands();
    let encoded: Vec<Bytes> = commands.iter().map(MetaCommand::encode).collect();
    for (bytes, command) in encoded.iter().zip(commands) {
        assert_eq!(Command::decode(bytes), Ok(Command::Meta(command)));
    }
    let text: Vec<String> = encoded.iter().map(|bytes| hex(bytes)).collect();
    insta::assert_snapshot!(text.join("\n\n"), @r"
        81000303613a3103623a32fd0807060504030201

        8101fd0068e5cf8b010000017205626f6f6b7306010301fc00840c240000fc00
        00100001016b0176

        8102017505626f6f6b730105010001010102000100

        8103016405626f6f6b73

        8104fd0068e5cf8b01000001720762696c6c696e670201fb2c01fb307503fbe8
        03fcc027090014010305010873697a65203c203901016b0176

        810501750762696c6c696e6701050001020102030100010873697a65203e2039
        00

        810601640762696c6c696e67
        ");
}

#[test]
fn checkpoints_look_the_same_for_all_time() {
    let mut partition = Machine::new(MachineKind::Partition(HERE));
    partition.skip(0);
    partition.apply(1, &append(7).encode());
    partition.apply(2, &append(8).encode());
    partition.apply(3, &PartitionCommand::Mark.encode());
    partition.apply(4, &append(9).encode());
    partition.apply(5, &PartitionCommand::Mark.encode());
    partition.apply(6, &PartitionCommand::TrimTo { offset: Offset::new(2) }.encode());
    partition.apply(7, &append(10).encode());
    partition.apply(8, &PartitionCommand::Release { time_ms: 700 }.encode());
    partition.apply(9, &append_with(11, DeliveryOptions { priority: 9, ..Default::default() }).encode());
    partition.apply(10, &append_with(12, DeliveryOptions { deliver_at_ms: 5, ..Default::default() }).encode());
    insta::assert_snapshot!(hex(&partition.checkpoint()), @r"
        040102010a06fb7a0106031a050632c00607010101010001fc77cebf3f000801
        0102010001fc000145fa0109010104010001fc0940feef020a010107010001fc
        128333d1030b010109010001fc35b935f3040c01010a010001fc7fe1672b0506
        010702080409070a090b0a0c0103027cfd080706050403020100010503bafd08
        070605040302010001fd0807060504030201fd08070605040302010000fbbc02
        0200010609000500000200
        ");

    let mut meta = Machine::new(MachineKind::Meta);
    for (node, address) in [(1, "a"), (2, "b")] {
        let register = MetaCommand::RegisterNode {
            node: NodeId::new(node),
            client_address: address.to_owned(),
            peer_address: address.to_owned(),
            store_id: node,
        };
        meta.apply(0, &register.encode());
    }
    for (topic, partitions) in [("gone", 2), ("books", 1), ("dead", 1)] {
        let create = MetaCommand::CreateTopic {
            time_ms: 9,
            request_id: String::new(),
            name: name(topic),
            partitions,
            replication_factor: Some(2),
            retention: Retention::default(),
            max_message_bytes: 1,
            labels: BTreeMap::new(),
        };
        meta.apply(0, &create.encode());
    }
    meta.apply(0, &MetaCommand::DeleteTopic { request_id: "d".to_owned(), name: name("gone") }.encode());
    meta.apply(0, &MetaCommand::CreateSubscription(subscription()).encode());
    insta::assert_snapshot!(hex(&meta.checkpoint()), @r"
        0307020101610161010201620162020205626f6f6b730205626f6f6b73010302
        fc0400010002fc05000100010201fc00840c2400000100040904646561640304
        64656164010402fc0600010001fc07000100020201fc00840c24000001000509
        010103010204676f6e65016401010204676f6e650164010762696c6c696e6701
        0762696c6c696e670201fb2c01fb307503fbe803fcc027090014010305010873
        697a65203c203901016b017607fd0068e5cf8b01000001000762696c6c696e67
        01720101000762696c6c696e670172020405fc08000100
        ");
    insta::assert_snapshot!(hex(&meta.as_meta().unwrap().cluster_map().encode()), @r"
        0307020101610161010201620162020205626f6f6b730205626f6f6b73010302
        fc0400010002fc05000100010201fc00840c2400000100040904646561640304
        64656164010402fc0600010001fc07000100020201fc00840c24000001000509
        010762696c6c696e67010762696c6c696e670201fb2c01fb307503fbe803fcc0
        27090014010305010873697a65203c203901016b017607fd0068e5cf8b010000
        01010302
        ");
}

#[test]
fn replies_look_the_same_for_all_time() {
    let replies = [
        Reply::Partition(Ok(Appended { base_offset: Offset::new(300), count: 2, duplicate: true })),
        Reply::Partition(Err(AppendRejected::SequenceGap { producer: ProducerId::new(7), expected: 5, actual: 9 })),
        Reply::Meta(Err(MetaRejected::TopicNotFound { name: name("books") })),
        Reply::Refused("why".to_owned()),
        Reply::LogStart(Offset::new(300)),
        Reply::Meta(Err(SubscriptionRejected::NotFound { name: subscription_name() }.into())),
        Reply::Seeked(Offset::new(300)),
        Reply::Released(700),
        Reply::Deleted(Ok(3)),
        Reply::Deleted(Err(DeletionRejected::TooScattered)),
    ];
    let encoded = replies.map(|reply| {
        let bytes = reply.encode();
        assert_eq!(Reply::decode(&bytes), Ok(reply));
        hex(&bytes)
    });
    insta::assert_snapshot!(encoded.join("\n"), @r"
        020000fb2c010201
        02000102070509
        0201010105626f6f6b73
        020203776879
        0203fb2c01
        02010114010762696c6c696e67
        0205fb2c01
        0206fbbc02
        02070003
        02070100
        ");
}

#[test]
fn an_index_row_looks_the_same_for_all_time() {
    let row = IndexSegment {
        first_index: 1,
        base_offset: Offset::new(2),
        accepted: 0b101,
        entries: 3,
        end_offset: Offset::new(4),
        max_timestamp_ms: 5,
        bytes: 6,
    };
    let bytes = row.encode();
    assert_eq!(IndexSegment::decode(&bytes), Ok(row));
    insta::assert_snapshot!(hex(&bytes), @r"
        0101000000000000000200000000000000050000000000000003000000040000
        000000000005000000000000000600000000000000
        ");
    assert_eq!(row.accepted_indices().collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn what_cannot_be_read_is_named() {
    let decode = |bytes: &'static [u8]| Command::decode(&bytes.into()).unwrap_err();
    let mut longer = meta_commands()[3].encode().to_vec();
    longer.push(0);
    let errors: [CodecError; 9] = [
        decode(b""),
        decode(b"\x01\x02"),
        decode(b"\x02"),
        decode(b"\x7f"),
        decode(b"\x80\x00"),
        decode(b"\x81\x09"),
        decode(b"\x81\x03\x00\x05_name"),
        MetaCommand::decode(&longer.into()).unwrap_err(),
        MetaCommand::decode(&vec![128; (1 << 20) + 1].into()).unwrap_err(),
    ];
    insta::assert_snapshot!(errors.map(|error| error.to_string()).join("\n"), @r#"
        partition command is empty
        partition command is cut short: it needs 9 bytes and has 2
        partition command is cut short: it needs 9 bytes and has 1
        partition command has tag 127, which is not known
        metadata command has format version 128, known is 129
        metadata command is malformed: invalid value: integer `9`, expected variant index 0 <= i < 7
        metadata command is malformed: topic name "_name" begins with '_', which is reserved for the system
        metadata command is followed by 1 bytes that do not belong to it
        metadata command has 1048577 bytes, the limit is 1048576
        "#);
    assert!(IndexSegment::decode(&[]).is_err());
    assert!(IndexSegment::decode(&[2; 53]).is_err());
    assert!(IndexSegment::decode(&[1; 52]).is_err());
    assert!(IndexSegment::decode(&[1; 54]).is_err());
    assert!(ClusterMap::decode(&Bytes::from_static(b"\x01")).is_err());
}

#[test]
fn a_short_text_that_speaks_of_a_long_one_allocates_nothing() {
    // A delete whose topic name claims to have 2^60 bytes.
    let hostile = Bytes::from_static(b"\x81\x03\xfd\x00\x00\x00\x00\x00\x00\x00\x10");
    assert!(matches!(MetaCommand::decode(&hostile), Err(CodecError::Malformed { .. })));
}

#[test]
fn a_partition_with_all_its_producers_fits_a_checkpoint() {
    let mut machine = Machine::new(MachineKind::Partition(HERE));
    for (index, producer) in (0u64..).zip(1..=10_000) {
        // Large ids and offsets, so that their encodings are long.
        machine.apply(index, &append(u64::MAX - producer).encode());
    }
    let checkpoint = machine.checkpoint();
    assert_eq!(Machine::restore(machine.kind(), &checkpoint).as_ref(), Ok(&machine));
}

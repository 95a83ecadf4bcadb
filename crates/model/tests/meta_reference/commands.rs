//! Commands to try: few names and ids, so that they meet.

use std::collections::BTreeMap;

use proptest::prelude::{Strategy, prop_oneof};
use quorate_model::{
    DeadLetterPolicy, MetaCommand, NewSubscription, NodeId, Offset, Retention, RetryPolicy, SubscriptionChange,
    SubscriptionName, TopicId, TopicName,
};

pub(crate) fn register(node: u64, address: u64, store_id: u64) -> MetaCommand {
    MetaCommand::RegisterNode {
        node: NodeId::new(node),
        client_address: format!("node-{node}-{address}:50051"),
        peer_address: format!("node-{node}:50052"),
        store_id,
    }
}

pub(crate) fn create(name: &str, request_id: &str, partitions: u32, replication_factor: Option<u32>) -> MetaCommand {
    MetaCommand::CreateTopic {
        time_ms: 77,
        request_id: request_id.to_owned(),
        name: TopicName::parse(name).unwrap(),
        partitions,
        replication_factor,
        retention: Retention::default(),
        max_message_bytes: 1_000,
        labels: BTreeMap::new(),
    }
}

pub(crate) fn subscribe(name: &str, topic: TopicId, start: Vec<Offset>) -> NewSubscription {
    NewSubscription {
        time_ms: 88,
        request_id: String::new(),
        name: SubscriptionName::parse(name).unwrap(),
        topic,
        start,
        ack_deadline_ms: 30_000,
        retry: RetryPolicy::default(),
        dead_letter: None,
        ordered: false,
        filter: String::new(),
        labels: BTreeMap::new(),
    }
}

fn any_subscription_command() -> impl Strategy<Value = MetaCommand> {
    let name = || (0u8..4).prop_map(|n| SubscriptionName::parse(&format!("subscription-{n}")).unwrap());
    let request = || (0u8..3).prop_map(|n| ["", "r1", "r2"][usize::from(n)].to_owned());
    let ack_deadline = || (0u64..10).prop_map(|n| if n == 0 { 999 } else { 1_000 * (1 + n % 2) });
    let dead_letter = || {
        let policy = (1u64..6, 0u32..8).prop_map(|(topic, max_attempts)| {
            let topic = TopicId::new(topic);
            DeadLetterPolicy { topic, max_attempts }
        });
        proptest::option::of(policy)
    };
    prop_oneof![
        4 => (name(), request(), 1u64..6, 0u64..8, ack_deadline(), dead_letter()).prop_map(
            |(name, request_id, topic, starts, ack_deadline_ms, dead_letter)| {
                let start = (0..starts).map(Offset::new).collect();
                let new = subscribe(name.as_str(), TopicId::new(topic), start);
                MetaCommand::CreateSubscription(NewSubscription { request_id, ack_deadline_ms, dead_letter, ..new })
            }
        ),
        3 => (
            name(),
            request(),
            proptest::option::of(0u64..20),
            proptest::option::of(ack_deadline()),
            proptest::option::of(dead_letter())
        )
            .prop_map(|(name, request_id, etag, ack_deadline_ms, dead_letter)| {
                let (retry, filter, labels) = (None, None, None);
                let change =
                    SubscriptionChange { request_id, name, etag, ack_deadline_ms, retry, dead_letter, filter, labels };
                MetaCommand::UpdateSubscription(change)
            }),
        2 => (name(), request()).prop_map(|(name, request_id)| MetaCommand::DeleteSubscription { request_id, name }),
    ]
}

pub(crate) fn any_command() -> impl Strategy<Value = MetaCommand> {
    let name = || (0u8..4).prop_map(|n| format!("topic-{n}"));
    let request = || (0u8..3).prop_map(|n| ["", "r1", "r2"][usize::from(n)]);
    prop_oneof![
        3 => (1u64..7, 0u64..2, 0u64..10)
            .prop_map(|(node, address, store)| register(node, address, u64::from(store == 0))),
        4 => (name(), request(), 0u32..12, proptest::option::of(0u32..5))
            .prop_map(|(name, request, partitions, factor)| create(&name, request, partitions, factor)),
        3 => (name(), request(), proptest::option::of(0u64..12), proptest::option::of(0u64..3)).prop_map(
            |(name, request, etag, max_message_bytes)| MetaCommand::UpdateTopic {
                request_id: request.to_owned(),
                name: TopicName::parse(&name).unwrap(),
                etag,
                retention: None,
                max_message_bytes,
                labels: None,
            }
        ),
        2 => (name(), request()).prop_map(|(name, request)| MetaCommand::DeleteTopic {
            request_id: request.to_owned(),
            name: TopicName::parse(&name).unwrap(),
        }),
        8 => any_subscription_command(),
    ]
}

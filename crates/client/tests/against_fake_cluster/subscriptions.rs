//! Owners of subscriptions against a cluster in memory: what is asked again is the same request.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use crate::fake_cluster::{FakeCluster, Fault, TOPIC};
use quorate_client::{DeadLetterPolicy, Executed, Reason, RetryPolicy, Start, SubscriptionSpec, SubscriptionUpdate};
use quorate_proto::v1::position::Position;

#[tokio::test(start_paused = true)]
async fn a_create_without_an_answer_is_repeated_as_the_same_request() {
    let cluster = FakeCluster::start(3, 1);
    let subscriptions = cluster.client(&[1, 2, 3]).subscriptions();
    cluster.fail_next(&[Fault::Refuse(Reason::NoLeader), Fault::Silence]);
    let spec = SubscriptionSpec {
        start: Some(Start::Last(7)),
        retry_policy: Some(RetryPolicy::Fixed { pause: Duration::from_secs(5) }),
        dead_letter_policy: Some(DeadLetterPolicy { topic: "dead".to_owned(), max_delivery_attempts: None }),
        ..SubscriptionSpec::named("billing", TOPIC)
    };
    let created = subscriptions.create(spec.clone()).await.unwrap();
    assert_eq!((created.name.as_str(), created.topic.as_str()), ("billing", TOPIC));
    assert_eq!((created.retry_policy, created.dead_letter_policy), (spec.retry_policy, spec.dead_letter_policy));
    let asked = cluster.subscribed();
    assert_eq!(asked.len(), 3);
    assert!(!asked[0].request_id.is_empty() && asked.iter().all(|request| *request == asked[0]), "{asked:?}");
    assert_eq!(asked[0].start.and_then(|start| start.position), Some(Position::Last(7)));

    // Another create is another request.
    subscriptions.create(SubscriptionSpec::named("search", TOPIC)).await.unwrap();
    assert_ne!(cluster.subscribed()[3].request_id, asked[0].request_id);
}

#[tokio::test(start_paused = true)]
async fn what_the_broker_refuses_is_not_asked_again() {
    let cluster = FakeCluster::start(1, 1);
    let subscriptions = cluster.client(&[1]).subscriptions();
    cluster.fail_next(&[Fault::Refuse(Reason::SubscriptionExists)]);
    let refused = subscriptions.create(SubscriptionSpec::named("billing", TOPIC)).await.unwrap_err();
    assert!(refused.is(Reason::SubscriptionExists));
    assert_eq!((refused.executed(), cluster.subscribed().len()), (Executed::No, 1));
    let missing = subscriptions.get("search").await.unwrap_err();
    assert!(missing.is(Reason::SubscriptionNotFound));
    assert_eq!(missing.metadata()["subscription"], "search");
}

#[tokio::test(start_paused = true)]
async fn a_list_has_all_its_pages_and_an_update_names_what_it_changes() {
    let cluster = FakeCluster::start(1, 1);
    let subscriptions = cluster.client(&[1]).subscriptions();
    for (number, topic) in [TOPIC, "films", TOPIC, TOPIC, "films"].into_iter().enumerate() {
        subscriptions.create(SubscriptionSpec::named(format!("s{number}"), topic)).await.unwrap();
    }
    let names = |listed: Vec<quorate_client::Subscription>| -> Vec<String> {
        listed.into_iter().map(|subscription| subscription.name).collect()
    };
    assert_eq!(names(subscriptions.list().await.unwrap()), ["s0", "s1", "s2", "s3", "s4"]);
    assert_eq!(names(subscriptions.list_of(TOPIC).await.unwrap()), ["s0", "s2", "s3"]);

    let update = SubscriptionUpdate {
        ack_deadline: Some(Duration::from_secs(1)),
        dead_letter_policy: Some(None),
        filter: Some(String::new()),
        ..SubscriptionUpdate::default()
    };
    let changed = subscriptions.update("s0", update).await.unwrap();
    assert!(changed.labels.into_keys().eq(["ack_deadline", "dead_letter_policy", "filter"]));
    subscriptions.delete("s0").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_seek_that_moved_only_a_part_is_repeated_as_the_same_request() {
    let cluster = FakeCluster::start(1, 1);
    let subscriptions = cluster.client(&[1]).subscriptions();
    cluster.fail_next(&[Fault::Refuse(Reason::NoLeader), Fault::Refuse(Reason::CommitUnknown)]);
    let to = BTreeMap::from([(2, Start::Offset(7))]);
    assert_eq!(subscriptions.seek_partitions("billing", &to).await.unwrap(), BTreeMap::from([(2, 7)]));
    let asked = cluster.seeks();
    assert_eq!(asked.len(), 3);
    assert!(!asked[0].request_id.is_empty() && asked.iter().all(|request| *request == asked[0]), "{asked:?}");

    subscriptions.seek("billing", Start::Earliest).await.unwrap();
    let asked = cluster.seeks();
    assert_ne!(asked[3].request_id, asked[0].request_id);
    assert_eq!(asked[3].position.and_then(|position| position.position), Some(Position::Earliest(Default::default())));
}

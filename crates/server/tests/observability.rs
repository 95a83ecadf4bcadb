//! What an operator sees: health, reflection, metrics, probes.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod nodes;

use nodes::{Cluster, create, get, publish};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_probes_are_served_where_an_address_is_given() {
    let mut cluster = Cluster::prepare(1);
    let node = cluster.try_start(1, &["listen.metrics=127.0.0.1:0"]).await.unwrap();
    let metrics = node.addresses().metrics.clone().unwrap();
    cluster.nodes.insert(1, node);
    let address = cluster.place(1).client;
    nodes::ready(&address).await;
    create(&address, "books", 2).await;
    publish(&address, "books", None, &["a"]).await;

    assert!(get(&metrics, "/livez").await.starts_with("HTTP/1.1 200"));
    assert!(get(&metrics, "/readyz").await.starts_with("HTTP/1.1 200"));
    let text = get(&metrics, "/metrics").await;
    for expected in [
        "quorate_requests_total{code=\"Ok\",rpc=\"Publish\"} 1\n",
        "quorate_request_seconds_count{rpc=\"CreateTopic\"} 1\n",
        "quorate_raft_replicas{role=\"leader\"} 3\n",
        "quorate_raft_replicas{role=\"follower\"} 0\n",
        "quorate_append_seconds_count 1\n",
        "quorate_wal_sync_seconds_count ",
        "quorate_wal_batch_writes_count ",
        "quorate_in_flight_bytes 0\n",
        "quorate_rocksdb{property=",
        "process_resident_memory_bytes ",
    ] {
        assert!(text.contains(expected), "{expected} is missing in\n{text}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_reflection_answer() {
    let cluster = Cluster::start(1).await;
    let channel = nodes::channel(&cluster.place(1).client).await;
    for service in ["", "quorate.ready"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = HealthClient::new(channel.clone()).check(request).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
    }

    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = ServerReflectionClient::new(channel)
        .server_reflection_info(tokio_stream::iter([request]))
        .await
        .unwrap()
        .into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) = answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("a list of services expected");
    };
    let names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    for name in ["PublisherService", "ReaderService", "TopicService", "SubscriptionService", "ClusterService"] {
        assert!(names.contains(&format!("quorate.v1.{name}")), "{names:?}");
    }
    assert!(!names.iter().any(|name| name.contains("internal")), "{names:?}");
    cluster.stop().await;
}

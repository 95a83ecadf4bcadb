//! Every bound of the front door, at it and one past it: what is refused says which bound it was, and what is within
//! goes on.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod nodes;

use std::io;

use nodes::{Cluster, PATIENCE, channel, clusters, create, publish, read_from, refusal, texts};
use quorate_proto::v1;
use quorate_proto::v1::cluster_service_client::ClusterServiceClient;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

fn check(status: &Status, limit_name: &str, limit: &str) {
    let (code, reason, facts) = refusal(status);
    assert_eq!((code, reason.as_str()), (Code::ResourceExhausted, "OVERLOADED"), "{status:?}");
    assert_eq!((facts["limit_name"].as_str(), facts["limit"].as_str()), (limit_name, limit));
    assert_eq!(facts["executed"], "no");
    let details = tonic_types::StatusExt::get_error_details(status);
    assert!(details.retry_info().is_some_and(|info| info.retry_delay.is_some()), "{status:?}");
}

async fn watch(channel: &Channel) -> Result<Streaming<v1::WatchClusterResponse>, Status> {
    let request = v1::WatchClusterRequest {};
    ClusterServiceClient::new(channel.clone()).watch_cluster(request).await.map(tonic::Response::into_inner)
}

/// Watches again and again while there is no room: what was given back is noticed a moment later.
async fn watch_patiently(channel: &Channel) -> Streaming<v1::WatchClusterResponse> {
    let attempts = async {
        loop {
            match watch(channel).await {
                Ok(stream) => return stream,
                Err(status) => assert_eq!(refusal(&status).1, "OVERLOADED"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, attempts).await.expect("there is room again")
}

/// A connection from another address of this machine.
async fn connect_from(source: &str, address: &str) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(format!("{source}:0").parse().unwrap())?;
    socket.connect(address.parse().unwrap()).await
}

/// Whether the node keeps the connection; it says nothing before it was spoken to.
async fn is_refused(connection: &mut TcpStream) -> bool {
    let mut byte = [0; 1];
    let read = connection.read(&mut byte);
    match tokio::time::timeout(std::time::Duration::from_millis(300), read).await {
        Ok(ended) => !matches!(ended, Ok(1)),
        Err(_) => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_a_connection() {
    let cluster = Cluster::start_one_with(&["limits.streams_per_connection=3"]).await;
    let address = cluster.place(1).client;
    let greedy = channel(&address).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(watch(&greedy).await.unwrap());
    }
    check(&watch(&greedy).await.unwrap_err(), "limits.streams_per_connection", "3");
    // Another connection has its own.
    assert!(watch(&channel(&address).await).await.is_ok());
    // And the streams within the bound go on.
    for stream in &mut open {
        assert!(stream.message().await.unwrap().is_some());
    }
    open.pop();
    let _again = watch_patiently(&greedy).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_the_node() {
    let cluster = Cluster::start_one_with(&["limits.requests=3"]).await;
    let address = cluster.place(1).client;
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(watch_patiently(&channel(&address).await).await);
    }
    let late = channel(&address).await;
    check(&watch(&late).await.unwrap_err(), "limits.requests", "3");
    // A node that is full still says that it lives.
    let request = HealthCheckRequest { service: "quorate.ready".to_owned() };
    assert!(HealthClient::new(late.clone()).check(request).await.is_ok());
    open.pop();
    let _again = watch_patiently(&late).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_an_address() {
    let cluster = Cluster::start_one_with(&["limits.connections_per_address=2"]).await;
    let address = cluster.place(1).client;
    let mut inside =
        [connect_from("127.0.0.9", &address).await.unwrap(), connect_from("127.0.0.9", &address).await.unwrap()];
    for connection in &mut inside {
        assert!(!is_refused(connection).await);
    }
    assert!(is_refused(&mut connect_from("127.0.0.9", &address).await.unwrap()).await);
    assert!(!is_refused(&mut connect_from("127.0.0.8", &address).await.unwrap()).await);
    drop(inside);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_the_node() {
    let cluster = Cluster::start_one_with(&["limits.connections=3"]).await;
    let address = cluster.place(1).client;
    let client = channel(&address).await;
    // The channel of the start may still be closing: connections are counted until they are gone.
    let mut outcomes = Vec::new();
    let mut kept = Vec::new();
    for host in 10..14 {
        let mut connection = connect_from(&format!("127.0.0.{host}"), &address).await.unwrap();
        outcomes.push(is_refused(&mut connection).await);
        kept.push(connection);
    }
    assert!(outcomes[2..].iter().all(|refused| *refused), "{outcomes:?}");
    assert!(watch(&client).await.is_ok(), "who is inside is served");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_the_node() {
    let cluster = Cluster::start_one_with(&["limits.readers=3"]).await;
    let address = cluster.place(1).client;
    create(&address, "books", 3).await;
    create(&address, "films", 1).await;
    publish(&address, "films", None, &["a"]).await;
    // Three partitions are three readers, in however many streams.
    let request = v1::ReadRequest { topic: "books".to_owned(), ..Default::default() };
    let reading = nodes::reader(&address).await.read(request).await.unwrap();
    check(&read_from(&address, "films", None).await.unwrap_err(), "limits.readers", "3");
    // Writers aren't readers.
    publish(&address, "films", None, &["b"]).await;
    drop(reading);
    let attempts = async {
        loop {
            match read_from(&address, "films", None).await {
                Ok(read) => return read,
                Err(status) => check(&status, "limits.readers", "3"),
            }
        }
    };
    let read = tokio::time::timeout(PATIENCE, attempts).await.expect("there is room again");
    assert_eq!(texts(&read), ["a", "b"]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_of_the_nodes() {
    let cluster = Cluster::start_one_with(&["limits.partitions_per_node=4"]).await;
    let address = cluster.place(1).client;
    create(&address, "books", 3).await;
    let topic = |partitions| {
        let topic = v1::Topic { name: "films".to_owned(), partitions: Some(partitions), ..Default::default() };
        v1::CreateTopicRequest { topic: Some(topic), request_id: String::new() }
    };
    let mut topics = nodes::topics(&address).await;
    let (code, reason, facts) = refusal(&topics.create_topic(topic(2)).await.unwrap_err());
    assert_eq!((code, reason.as_str()), (Code::InvalidArgument, "TOO_MANY_PARTITIONS"));
    assert_eq!((facts["limit_name"].as_str(), facts["limit"].as_str()), ("limits.partitions_per_node", "4"));
    topics.create_topic(topic(1)).await.unwrap();
    // A create that was answered before is answered again.
    assert_eq!(refusal(&topics.create_topic(topic(1)).await.unwrap_err()).1, "TOPIC_EXISTS");
    let map = clusters(&address).await.get_cluster(v1::GetClusterRequest {}).await.unwrap().into_inner();
    assert_eq!(map.cluster.unwrap().topics.len(), 2);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_in_flight() {
    // The least that may be set: one batch of the largest size.
    let bytes = 18 << 20;
    let in_flight = format!("limits.in_flight_bytes={bytes}");
    let cluster = Cluster::start_one_with(&[&in_flight, "limits.receive_bytes=1073741824"]).await;
    let address = cluster.place(1).client;
    let topic = v1::Topic { max_message_bytes: 16 << 20, ..create(&address, "books", 1).await };
    let update_mask = Some(prost_types::FieldMask { paths: vec!["max_message_bytes".to_owned()] });
    let update = v1::UpdateTopicRequest { topic: Some(topic), update_mask, ..Default::default() };
    nodes::topics(&address).await.update_topic(update).await.unwrap();
    let message = v1::Message { data: vec![7; 10 << 20].into(), ..Default::default() };
    let request = v1::PublishRequest { topic: "books".to_owned(), partition: None, messages: vec![message] };
    // Ten at once are more than fit: each is taken or refused with its reason, none waits or is lost.
    let sends = (0..10).map(|_| {
        let (request, address) = (request.clone(), address.clone());
        async move { nodes::publisher(&address).await.publish(request).await.unwrap().into_inner() }
    });
    let mut taken = 0;
    for response in futures::future::join_all(sends).await {
        match nodes::published(response.results.into_iter().next().unwrap()) {
            Ok(_) => taken += 1,
            Err(error) => {
                assert_eq!((error.reason.as_str(), error.metadata["executed"].as_str()), ("OVERLOADED", "no"));
                assert!(
                    ["limits.in_flight_bytes", "limits.queued_bytes"].contains(&error.metadata["limit_name"].as_str())
                );
                assert!(error.retry_after_ms.is_some());
            }
        }
    }
    assert!(taken > 0);
    assert_eq!(read_from(&address, "books", None).await.unwrap().len(), taken);
    cluster.stop().await;
}

//! Clients that mean harm, or are merely broken: each is held to its bounds, and a good client is served meanwhile.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod nodes;

use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use nodes::{Cluster, PATIENCE, create, publish, read_from};
use tokio::net::{TcpSocket, TcpStream};

const PUBLISH_STREAM: &str = "/quorate.v1.PublisherService/PublishStream";
const PUBLISH: &str = "/quorate.v1.PublisherService/Publish";
const READ: &str = "/quorate.v1.ReaderService/Read";

/// Attackers come from another address than good clients.
async fn connect(address: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.66:0".parse().unwrap()).unwrap();
    socket.connect(address.parse().unwrap()).await.unwrap()
}

/// An HTTP/2 connection of our own; the task ends with how the connection ended.
async fn http2(address: &str) -> (SendRequest<Bytes>, tokio::task::JoinHandle<Result<(), h2::Error>>) {
    let mut builder = h2::client::Builder::new();
    builder.initial_max_send_streams(20_000).max_concurrent_reset_streams(20_000);
    let (client, connection) = builder.handshake(connect(address).await).await.unwrap();
    (client, tokio::spawn(connection))
}

fn request(address: &str, path: &str) -> Request<()> {
    Request::post(format!("http://{address}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap()
}

/// A gRPC message's flag and length, with as much of the message as was sent.
fn message(length: u32, sent: &[u8]) -> Bytes {
    [&[0][..], &length.to_be_bytes(), sent].concat().into()
}

/// Publishes and reads like anybody.
async fn a_good_client_is_served(address: &str, text: &str) {
    let served = async {
        publish(address, "books", None, &[text]).await;
        let read = read_from(address, "books", None).await.unwrap();
        assert_eq!(nodes::texts(&read).last().map(String::as_str), Some(text));
    };
    tokio::time::timeout(PATIENCE, served).await.expect("a good client is served");
}

async fn node(settings: &[&str]) -> (Cluster, String) {
    let cluster = Cluster::start_one_with(settings).await;
    let address = cluster.place(1).client;
    create(&address, "books", 1).await;
    (cluster, address)
}

/// The outcome of a request as gRPC tells it: in the trailers, or in the headers if there is no answer.
fn grpc_status(headers: &HeaderMap) -> Option<&str> {
    headers.get("grpc-status").and_then(|status| status.to_str().ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_of_four_gigabytes_is_refused_before_any_of_it_comes() {
    let (cluster, address) = node(&[]).await;
    let (mut client, _connection) = http2(&address).await;
    let (response, mut body) = client.send_request(request(&address, PUBLISH), false).unwrap();
    body.send_data(message(u32::MAX, b"x"), false).unwrap();
    let response = tokio::time::timeout(PATIENCE, response).await.unwrap().unwrap();
    // OUT_OF_RANGE, as tonic says of a message beyond the bound.
    assert_eq!(grpc_status(response.headers()), Some("11"), "{response:?}");
    a_good_client_is_served(&address, "after").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_without_a_body_hold_up_nobody() {
    let (cluster, address) = node(&["limits.streams_per_connection=100"]).await;
    let mut connections = Vec::new();
    let mut silent = Vec::new();
    for _ in 0..5 {
        let (mut client, connection) = http2(&address).await;
        for path in [PUBLISH, PUBLISH_STREAM].into_iter().cycle().take(100) {
            client = client.ready().await.unwrap();
            silent.push(client.send_request(request(&address, path), false).unwrap());
        }
        connections.push((client, connection));
    }
    a_good_client_is_served(&address, "meanwhile").await;
    // A part of a message each, which never becomes whole.
    for (_, body) in &mut silent {
        body.send_data(message(1 << 20, &[7; 1_000]), false).unwrap();
    }
    a_good_client_is_served(&address, "still").await;
    assert!(connections.iter().all(|(_, connection)| !connection.is_finished()));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_never_become_whole_are_bounded_in_sum() {
    // The least that may be set: one message of the largest size.
    let (cluster, address) = node(&["limits.receive_bytes=22020096"]).await;
    let (mut client, _connection) = http2(&address).await;
    let mut bodies = Vec::new();
    let mut refused = 0;
    for _ in 0..30 {
        client = client.ready().await.unwrap();
        let (mut response, mut body) = client.send_request(request(&address, PUBLISH), false).unwrap();
        body.reserve_capacity(1 << 20);
        body.send_data(message(19 << 20, &vec![7; 1 << 20]), false).unwrap();
        // Refused at once, or never answered because the rest is missing.
        match tokio::time::timeout(Duration::from_millis(200), &mut response).await {
            Ok(answer) => {
                assert_eq!(grpc_status(answer.unwrap().headers()), Some("8"), "RESOURCE_EXHAUSTED");
                refused += 1;
            }
            Err(_) => bodies.push((response, body)),
        }
    }
    assert!((1..=21).contains(&bodies.len()) && refused >= 9, "{} wait, {refused} were refused", bodies.len());
    // Small messages come whole: they need no room.
    a_good_client_is_served(&address, "meanwhile").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_streams_on_one_connection() {
    let (cluster, address) = node(&[]).await;
    let (mut client, _connection) = http2(&address).await;
    let mut open = Vec::new();
    for _ in 0..10_000 {
        // Without asking whether the node would like one more.
        match client.send_request(request(&address, PUBLISH_STREAM), false) {
            Ok(stream) => open.push(stream),
            Err(_) => match tokio::time::timeout(Duration::from_millis(100), client.ready()).await {
                Ok(Ok(ready)) => client = ready,
                _ => break,
            },
        }
    }
    a_good_client_is_served(&address, "meanwhile").await;
    // Those beyond the bound were told why, or reset, or are still waiting in the client.
    let answers = open.iter_mut().filter_map(|(response, _)| response.now_or_never()).filter_map(Result::ok);
    let outcomes: Vec<Option<String>> =
        answers.map(|answer| grpc_status(answer.headers()).map(str::to_owned)).collect();
    let served = outcomes.iter().filter(|status| status.is_none()).count();
    let refused = outcomes.iter().filter(|status| status.as_deref() == Some("8")).count();
    assert!(served <= 128 && refused > 0, "{served} streams are served, {refused} were refused");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_resets_ends_its_connection() {
    let (cluster, address) = node(&[]).await;
    let (mut client, connection) = http2(&address).await;
    let flood = async {
        loop {
            client = match client.ready().await {
                Ok(client) => client,
                Err(_) => return,
            };
            match client.send_request(request(&address, PUBLISH_STREAM), false) {
                Ok((_, mut body)) => body.send_reset(h2::Reason::CANCEL),
                Err(_) => return,
            }
        }
    };
    tokio::time::timeout(PATIENCE, flood).await.expect("the flood is ended");
    let ended = tokio::time::timeout(PATIENCE, connection).await.unwrap().unwrap().unwrap_err();
    // The node says why, if the flood lets it.
    assert!(ended.is_io() || ended.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM), "{ended:?}");
    a_good_client_is_served(&address, "after").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_idle_connections() {
    let (cluster, address) = node(&["limits.connections_per_address=200"]).await;
    let mut idle = Vec::new();
    for _ in 0..1_000 {
        idle.push(connect(&address).await);
    }
    a_good_client_is_served(&address, "meanwhile").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_never_take_their_answers() {
    let (cluster, address) = node(&["limits.read_ahead_bytes=4194304"]).await;
    let large = "x".repeat(1 << 20);
    for _ in 0..8 {
        publish(&address, "books", None, &[&large]).await;
    }
    let read = quorate_proto::v1::ReadRequest { topic: "books".to_owned(), as_batches: true, ..Default::default() };
    let read = prost::Message::encode_to_vec(&read);
    let mut stuck = Vec::new();
    for _ in 0..4 {
        let (mut client, connection) = http2(&address).await;
        for _ in 0..16 {
            client = client.ready().await.unwrap();
            let (response, mut body) = client.send_request(request(&address, READ), false).unwrap();
            body.send_data(message(read.len() as u32, &read), true).unwrap();
            // The headers come, and then nobody makes room for what follows.
            stuck.push(tokio::time::timeout(PATIENCE, response).await.unwrap().unwrap());
        }
        stuck.shrink_to_fit();
        tokio::spawn(async move {
            let _client = client;
            connection.await
        });
    }
    a_good_client_is_served(&address, "meanwhile").await;
    cluster.stop().await;
}

//! The services, and the two listeners that serve them: one for clients, one for other nodes. What is served on
//! one is never served on the other.

mod append;
mod cluster;
pub(crate) mod convert;
pub(crate) mod error;
mod messages;
mod node_dispatch;
mod node_service;
mod paging;
mod positions;
mod publish_stream;
mod publisher;
mod reader;
mod subscribe_stream;
mod subscriber;
mod subscription;
mod test_filter;
mod topic;

use std::sync::Arc;

use quorate_consensus::{Listener, RaftGroups};
use quorate_proto::FILE_DESCRIPTOR_SET;
use quorate_proto::internal::node_service_server::NodeServiceServer;
use quorate_proto::v1::cluster_service_server::ClusterServiceServer;
use quorate_proto::v1::message_service_server::MessageServiceServer;
use quorate_proto::v1::publisher_service_server::PublisherServiceServer;
use quorate_proto::v1::reader_service_server::ReaderServiceServer;
use quorate_proto::v1::subscriber_service_server::SubscriberServiceServer;
use quorate_proto::v1::subscription_service_server::SubscriptionServiceServer;
use quorate_proto::v1::topic_service_server::TopicServiceServer;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic_health::pb::health_server::{Health, HealthServer};

use crate::config::LimitsConfig;
use crate::connections::{ConnectionLimits, guarded};
use crate::front::Front;
use crate::limits::{
    ADMIN_MESSAGE_BYTES, CLIENT_KEEPALIVE_INTERVAL, CLIENT_KEEPALIVE_TIMEOUT, CONNECTION_AGE, CONNECTION_GRACE,
    CONNECTION_IDLE, CONNECTION_WINDOW_BYTES, HEADER_LIST_BYTES, LOCAL_RESETS_MAX, PEER_CONNECTIONS,
    PEER_KEEPALIVE_INTERVAL, PEER_KEEPALIVE_TIMEOUT, PEER_MESSAGE_BYTES, PEER_STREAMS, PENDING_RESETS_MAX,
    PUBLISH_MESSAGE_BYTES, SENT_MESSAGE_BYTES, STREAM_WINDOW_BYTES, STREAMS_TO_REFUSE, SUBSCRIPTION_MESSAGE_BYTES,
};
use crate::requests::RequestBounds;

/// Why a listener isn't served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error("the service descriptions can't be read: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error(transparent)]
    Transport(#[from] tonic::transport::Error),
}

/// When a listener ends.
#[derive(Clone)]
pub(crate) struct Ending {
    /// No new connections, no new requests; those under way are finished.
    pub(crate) draining: CancellationToken,
    /// Nothing any more.
    pub(crate) stopping: CancellationToken,
}

/// Serves clients until told to end. tonic's defaults bound almost nothing; every
/// bound here is one that a client can't argue with.
pub(crate) async fn serve_clients(
    front: Arc<Front>,
    listener: Listener,
    limits: LimitsConfig,
    health: HealthServer<impl Health>,
    ending: Ending,
) -> Result<(), ServeError> {
    let metrics = Arc::clone(&front.metrics);
    let publisher = PublisherServiceServer::new(publisher::Publisher::new(Arc::clone(&front)))
        .max_decoding_message_size(PUBLISH_MESSAGE_BYTES)
        .max_encoding_message_size(SENT_MESSAGE_BYTES);
    let reader = ReaderServiceServer::new(reader::Reader::new(Arc::clone(&front)))
        .max_decoding_message_size(ADMIN_MESSAGE_BYTES)
        .max_encoding_message_size(SENT_MESSAGE_BYTES);
    let subscribers = SubscriberServiceServer::new(subscriber::Subscribers::new(Arc::clone(&front)))
        .max_decoding_message_size(ADMIN_MESSAGE_BYTES)
        .max_encoding_message_size(SENT_MESSAGE_BYTES);
    let topics = TopicServiceServer::new(topic::Topics::new(Arc::clone(&front)))
        .max_decoding_message_size(ADMIN_MESSAGE_BYTES)
        .max_encoding_message_size(SENT_MESSAGE_BYTES);
    let subscriptions = SubscriptionServiceServer::new(subscription::Subscriptions::new(Arc::clone(&front)))
        .max_decoding_message_size(SUBSCRIPTION_MESSAGE_BYTES)
        .max_encoding_message_size(SENT_MESSAGE_BYTES);
    let messages = MessageServiceServer::new(messages::Messages::new(Arc::clone(&front)))
        .max_decoding_message_size(ADMIN_MESSAGE_BYTES)
        .max_encoding_message_size(SENT_MESSAGE_BYTES);
    let clusters = ClusterServiceServer::new(cluster::Clusters::new(front))
        .max_decoding_message_size(ADMIN_MESSAGE_BYTES)
        .max_encoding_message_size(SENT_MESSAGE_BYTES);
    let connections = ConnectionLimits {
        total: limits.connections,
        per_address: limits.connections_per_address,
        idle: Some(CONNECTION_IDLE),
        // tonic asks first, and has a time of grace of its own; but with that it would no longer ask.
        age: Some(CONNECTION_AGE + CONNECTION_GRACE),
    };
    let refused = Arc::clone(&metrics);
    let refused = move |setting: &'static str| refused.refused(setting);
    Server::builder()
        .layer(RequestBounds::new(limits, metrics))
        .max_concurrent_streams(limits.streams_per_connection.saturating_add(STREAMS_TO_REFUSE))
        .http2_keepalive_interval(Some(CLIENT_KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(CLIENT_KEEPALIVE_TIMEOUT))
        .http2_max_header_list_size(HEADER_LIST_BYTES)
        .http2_max_local_error_reset_streams(Some(LOCAL_RESETS_MAX))
        .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS_MAX))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_connection_age(CONNECTION_AGE)
        .add_service(publisher)
        .add_service(reader)
        .add_service(subscribers)
        .add_service(topics)
        .add_service(messages)
        .add_service(subscriptions)
        .add_service(clusters)
        .add_service(health.max_decoding_message_size(ADMIN_MESSAGE_BYTES))
        .add_service(descriptions().build_v1()?)
        .add_service(descriptions().build_v1alpha()?)
        .serve_with_incoming_shutdown(
            guarded(listener, connections, ending.stopping, refused),
            ending.draining.cancelled_owned(),
        )
        .await?;
    Ok(())
}

/// Serves other nodes until `stopping`.
pub(crate) async fn serve_peers(
    front: Arc<Front>,
    listener: Listener,
    groups: RaftGroups,
    stopping: CancellationToken,
) -> Result<(), ServeError> {
    let questions = NodeServiceServer::new(node_service::NodeQuestions::new(front))
        .max_decoding_message_size(ADMIN_MESSAGE_BYTES)
        .max_encoding_message_size(PEER_MESSAGE_BYTES);
    // Nodes of a cluster on one machine share an address, and keep their connections for ever.
    let connections =
        ConnectionLimits { total: PEER_CONNECTIONS, per_address: PEER_CONNECTIONS, idle: None, age: None };
    Server::builder()
        .max_concurrent_streams(PEER_STREAMS)
        .http2_keepalive_interval(Some(PEER_KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(PEER_KEEPALIVE_TIMEOUT))
        .http2_max_header_list_size(HEADER_LIST_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .add_service(groups.raft_service())
        .add_service(questions)
        .serve_with_incoming_shutdown(
            guarded(listener, connections, stopping.clone(), |_| {}),
            stopping.cancelled_owned(),
        )
        .await?;
    Ok(())
}

fn descriptions() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

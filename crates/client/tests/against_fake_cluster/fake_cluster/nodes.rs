//! The services of the nodes.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;

use futures::{Stream, StreamExt as _};
use quorate_client::Reason;
use quorate_proto::v1 as pb;
use quorate_proto::v1::cluster_service_server::{ClusterService, ClusterServiceServer};
use quorate_proto::v1::publisher_service_server::{PublisherService, PublisherServiceServer};
use quorate_proto::v1::reader_service_server::{ReaderService, ReaderServiceServer};
use quorate_proto::v1::subscription_service_server::SubscriptionServiceServer;
use quorate_proto::v1::topic_service_server::{TopicService, TopicServiceServer};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream, WatchStream};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{FakeCluster, Fault, TOPIC, TOPIC_ID, address, publish_error};

#[derive(Clone)]
pub(super) struct Node {
    pub(super) id: u64,
    pub(super) cluster: FakeCluster,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

pub(super) fn serve(id: u64, cluster: FakeCluster, visitors: mpsc::UnboundedReceiver<DuplexStream>) {
    let node = Node { id, cluster };
    let incoming = UnboundedReceiverStream::new(visitors).map(Ok::<_, std::io::Error>);
    let server = tonic::transport::Server::builder()
        .add_service(ClusterServiceServer::new(node.clone()))
        .add_service(PublisherServiceServer::new(node.clone()))
        .add_service(ReaderServiceServer::new(node.clone()))
        .add_service(SubscriptionServiceServer::new(node.clone()))
        .add_service(TopicServiceServer::new(node))
        .serve_with_incoming(incoming);
    tokio::spawn(server);
}

fn is_direct<T>(request: &Request<T>) -> bool {
    request.metadata().get("quorate-routing").is_some_and(|value| value == "direct")
}

pub(super) fn status(reason: Reason, metadata: BTreeMap<String, String>) -> Status {
    let metadata: HashMap<String, String> = metadata.into_iter().collect();
    let details = ErrorDetails::with_error_info(reason.as_str(), "quorate", metadata);
    Status::with_error_details(Code::from_i32(reason.code()), reason.summary(), details)
}

impl Node {
    /// Whether this node may serve the partition, by itself or by forwarding; else why not.
    fn admit(&self, partition: u32, direct: bool) -> Result<(), (Reason, BTreeMap<String, String>)> {
        let state = self.cluster.state();
        let (leader, term) = {
            let partition = &state.partitions[partition as usize];
            (partition.leader, partition.term)
        };
        if leader == self.id {
            return Ok(());
        }
        if direct && leader != 0 {
            let facts = [
                ("leader_node_id", leader.to_string()),
                ("address", address(leader)),
                ("term", term.to_string()),
                ("partition", partition.to_string()),
            ];
            let facts = facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            return Err((Reason::NotLeader, facts));
        }
        if !state.up.contains(&leader) {
            return Err((Reason::NoLeader, BTreeMap::new()));
        }
        Ok(())
    }

    /// `None`: no answer.
    fn append(&self, request: &pb::PublishStreamRequest, direct: bool) -> Option<pb::PublishStreamResponse> {
        use pb::publish_stream_response::Outcome;
        let answer = |outcome| Some(pb::PublishStreamResponse { sequence: request.sequence, outcome: Some(outcome) });
        if let Err((reason, facts)) = self.admit(request.partition, direct) {
            return answer(Outcome::Error(publish_error(reason, facts)));
        }
        let mut state = self.cluster.state();
        if direct {
            state.served.direct += 1;
        } else {
            state.served.forwarded += 1;
        }
        let fault = state.faults.pop_front();
        if let Some(Fault::Refuse(reason)) = fault {
            return answer(Outcome::Error(publish_error(reason, BTreeMap::new())));
        }
        let outcome = state.partitions[request.partition as usize].append(&request.batch);
        match fault {
            Some(Fault::LoseAnswer) => {
                let broken = state.connections.insert(self.id, tokio_util::sync::CancellationToken::new());
                broken.unwrap().cancel();
                None
            }
            Some(Fault::Silence) => None,
            _ => answer(outcome),
        }
    }

    async fn read(
        self,
        request: pb::ReadRequest,
        direct: bool,
        answers: mpsc::Sender<Result<pb::ReadResponse, Status>>,
    ) {
        use pb::read_response::{Batch, Content, EndOfPartition};
        let mut changes = self.cluster.0.changes.subscribe();
        let send = async |content| answers.send(Ok(pb::ReadResponse { content: Some(content) })).await.is_ok();
        self.cluster.state().served.reads += 1;
        let local = request.consistency() == pb::Consistency::Local;
        if local {
            self.cluster.state().local_reads.push(self.id);
        }
        let mut next = BTreeMap::new();
        let mut end = BTreeMap::new();
        for asked in &request.partitions {
            let log_end = self.cluster.state().partitions[asked.partition as usize].end;
            next.insert(asked.partition, first_offset(asked.start, log_end));
            end.insert(asked.partition, log_end);
        }
        loop {
            for (partition, next) in &mut next {
                if let Err((reason, facts)) = self.admit(*partition, direct)
                    && !local
                {
                    let _ = answers.send(Err(status(reason, facts))).await;
                    return;
                }
                loop {
                    let batch = {
                        let state = self.cluster.state();
                        let log = &state.partitions[*partition as usize].log;
                        let at = log.partition_point(|(base, _)| base <= next);
                        // The batch that holds the offset, or the one that begins with it.
                        let holding =
                            at.checked_sub(1).map(|before| (log[before].clone(), log.get(at).map(|(base, _)| *base)));
                        let log_end = state.partitions[*partition as usize].end;
                        holding
                            .filter(|_| *next < log_end)
                            .map(|(batch, following)| (batch, following.unwrap_or(log_end)))
                    };
                    let Some(((base_offset, batch), following)) = batch else { break };
                    *next = following;
                    if !send(Content::Batch(Batch { topic_id: TOPIC_ID, partition: *partition, base_offset, batch }))
                        .await
                    {
                        return;
                    }
                }
            }
            if request.stop_at_end {
                for (partition, end_offset) in end {
                    let _ = send(Content::End(EndOfPartition { partition, end_offset })).await;
                }
                return;
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = answers.closed() => return,
            }
        }
    }
}

fn first_offset(position: Option<pb::Position>, log_end: u64) -> u64 {
    use pb::position::Position;
    match position.and_then(|position| position.position) {
        Some(Position::Offset(offset)) => offset,
        Some(Position::Latest(_)) => log_end,
        _ => 0,
    }
}

#[tonic::async_trait]
impl ClusterService for Node {
    type WatchClusterStream = Answers<pb::WatchClusterResponse>;

    async fn get_cluster(&self, _: Request<pb::GetClusterRequest>) -> Result<Response<pb::GetClusterResponse>, Status> {
        Ok(Response::new(pb::GetClusterResponse { cluster: Some(self.cluster.map(self.id)) }))
    }

    async fn watch_cluster(
        &self,
        _: Request<pb::WatchClusterRequest>,
    ) -> Result<Response<Self::WatchClusterStream>, Status> {
        let node = self.clone();
        let maps = WatchStream::new(self.cluster.0.changes.subscribe());
        let maps = maps.map(move |_| Ok(pb::WatchClusterResponse { cluster: Some(node.cluster.map(node.id)) }));
        Ok(Response::new(Box::pin(maps)))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderResponse>, Status> {
        let request = request.into_inner();
        self.cluster.elect(request.partition as usize, request.target_node_id);
        Ok(Response::new(pb::TransferLeaderResponse { leader_node_id: request.target_node_id }))
    }
}

#[tonic::async_trait]
impl PublisherService for Node {
    type PublishStreamStream = Answers<pb::PublishStreamResponse>;

    async fn publish(&self, _: Request<pb::PublishRequest>) -> Result<Response<pb::PublishResponse>, Status> {
        Err(Status::unimplemented("the client publishes by streams"))
    }

    async fn publish_stream(
        &self,
        request: Request<Streaming<pb::PublishStreamRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        let (node, direct) = (self.clone(), is_direct(&request));
        let answers = request.into_inner().filter_map(move |request| {
            let answer = request.map(|request| node.append(&request, direct)).transpose();
            // New records are news to readers.
            node.cluster.0.changes.send_modify(|changes| *changes += 1);
            std::future::ready(answer)
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

#[tonic::async_trait]
impl ReaderService for Node {
    type ReadStream = Answers<pb::ReadResponse>;

    async fn read(&self, request: Request<pb::ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let (answers, receiver) = mpsc::channel(1);
        let direct = is_direct(&request);
        tokio::spawn(self.clone().read(request.into_inner(), direct, answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

#[tonic::async_trait]
impl TopicService for Node {
    async fn get_topic(&self, request: Request<pb::GetTopicRequest>) -> Result<Response<pb::GetTopicResponse>, Status> {
        let name = request.into_inner().name;
        if name != TOPIC {
            return Err(status(Reason::TopicNotFound, BTreeMap::from([("topic".to_owned(), name)])));
        }
        let topic = pb::Topic { name, topic_id: TOPIC_ID, ..pb::Topic::default() };
        Ok(Response::new(pb::GetTopicResponse { topic: Some(topic) }))
    }

    async fn create_topic(
        &self,
        _: Request<pb::CreateTopicRequest>,
    ) -> Result<Response<pb::CreateTopicResponse>, Status> {
        Err(Status::unimplemented("not part of the play"))
    }

    async fn list_topics(&self, _: Request<pb::ListTopicsRequest>) -> Result<Response<pb::ListTopicsResponse>, Status> {
        Err(Status::unimplemented("not part of the play"))
    }

    async fn update_topic(
        &self,
        _: Request<pb::UpdateTopicRequest>,
    ) -> Result<Response<pb::UpdateTopicResponse>, Status> {
        Err(Status::unimplemented("not part of the play"))
    }

    async fn delete_topic(
        &self,
        _: Request<pb::DeleteTopicRequest>,
    ) -> Result<Response<pb::DeleteTopicResponse>, Status> {
        Err(Status::unimplemented("not part of the play"))
    }
}

//! A subscriber's stream, by hand.

use std::collections::{BTreeMap, BTreeSet};

use quorate_proto::v1;
use quorate_proto::v1::subscribe_request::{Open, Request};
use quorate_proto::v1::subscribe_response::Response;
use quorate_proto::v1::subscriber_service_client::SubscriberServiceClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use super::PATIENCE;

pub async fn subscribers(address: &str) -> SubscriberServiceClient<Channel> {
    SubscriberServiceClient::new(super::channel(address).await)
}

/// A subscriber's stream.
pub struct Stream {
    requests: mpsc::Sender<v1::SubscribeRequest>,
    responses: Streaming<v1::SubscribeResponse>,
    /// What became of acknowledgements, by ack id.
    pub settled: BTreeMap<String, v1::Outcome>,
}

impl Stream {
    pub async fn open(address: &str, subscription: &str, messages: u32) -> Self {
        let (requests, receiver) = mpsc::channel(100);
        let credit = Some(v1::Credit { messages, bytes: 1 << 30 });
        let open = Open { subscription: subscription.to_owned(), partitions: vec![], credit };
        requests.send(v1::SubscribeRequest { request: Some(Request::Open(open)) }).await.unwrap();
        let responses = subscribers(address).await.subscribe(ReceiverStream::new(receiver)).await.unwrap();
        Self { requests, responses: responses.into_inner(), settled: BTreeMap::new() }
    }

    pub async fn say(&self, request: Request) {
        self.requests.send(v1::SubscribeRequest { request: Some(request) }).await.unwrap();
    }

    /// The next deliveries; notes what became of acknowledgements meanwhile.
    pub async fn deliveries(&mut self) -> Vec<v1::Delivery> {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.responses.message()).await.expect("something comes");
            match next.unwrap().expect("the stream goes on").response.unwrap() {
                Response::Deliveries(deliveries) => return deliveries.deliveries,
                Response::Settlements(settlements) => {
                    for settlement in settlements.settlements {
                        self.settled.insert(settlement.ack_id.clone(), settlement.outcome());
                    }
                }
                Response::Ended(ended) => panic!("a forwarded stream keeps its partitions: {ended:?}"),
            }
        }
    }

    pub async fn at_least(&mut self, count: usize) -> Vec<v1::Delivery> {
        let mut all = Vec::new();
        while all.len() < count {
            all.extend(self.deliveries().await);
        }
        all
    }
}

pub fn ids(deliveries: &[v1::Delivery]) -> Vec<String> {
    deliveries.iter().map(|delivery| delivery.ack_id.clone()).collect()
}

pub fn texts(deliveries: &[v1::Delivery]) -> BTreeSet<String> {
    let messages: Vec<_> = deliveries.iter().map(|delivery| delivery.message.clone().unwrap()).collect();
    super::texts(&messages).into_iter().collect()
}

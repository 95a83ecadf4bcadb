//! A node says where it is, at every start, until the metadata group has taken it down.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use quorate_model::{ClusterMap, GroupId, MetaCommand, MetaRejected, MetaReply, NodeId, Reason, Reply};
use quorate_proto::internal::RegisterRequest;
use tracing::{debug, info};

use crate::api::error::{ApiError, reason_of};
use crate::deadline::Deadline;
use crate::front::Front;
use crate::limits::{PEER_QUESTION_TIME, REQUEST_TIME_MAX, RETRY_PAUSE};
use crate::map::{ask_voter, jittered};
use crate::node::NodeFailure;
use crate::peers::Traffic;
use crate::router::Routing;

/// What the cluster shall know of the node.
#[derive(Clone)]
pub(crate) struct Registrant {
    pub(crate) id: NodeId,
    pub(crate) client_address: String,
    pub(crate) peer_address: String,
    pub(crate) store_id: u64,
}

/// Registers the node; returns the version of the map that shows it. Repeats itself while there is no leader or no
/// answer: registering twice is registering once.
///
/// # Errors
/// What the cluster says if it doesn't want the node, such as that its disk is another one than before.
pub(crate) async fn register(front: Arc<Front>, node: Registrant) -> Result<u64, NodeFailure> {
    let mut pause = RETRY_PAUSE.start;
    loop {
        let attempt = if front.router.groups().get(GroupId::METADATA).is_some() {
            propose(&front, node.clone()).await
        } else {
            ask_voters(&front, &node).await
        };
        match attempt {
            Ok(version) => {
                info!("node registered");
                return Ok(version);
            }
            Err(error) if is_final(error.reason()) => return Err(NodeFailure::new(error.reason(), error.message())),
            Err(error) => debug!(reason = %error.reason(), "not registered yet; trying again"),
        }
        // Other nodes don't talk consensus with a disk that they don't know, so that a node whose disk was replaced
        // would wait for ever; their maps tell it why.
        if let Some(rejected) = rejected_elsewhere(&front, &node).await {
            return Err(NodeFailure::new(rejected.reason(), rejected.to_string()));
        }
        tokio::time::sleep(jittered(pause)).await;
        pause = (pause * 2).min(RETRY_PAUSE.end);
    }
}

/// Proposes a registration to the metadata group, wherever it is led.
pub(crate) async fn propose(front: &Front, node: Registrant) -> Result<u64, ApiError> {
    let Registrant { id, client_address, peer_address, store_id } = node;
    let command = MetaCommand::RegisterNode { node: id, client_address, peer_address, store_id }.encode();
    let deadline = Deadline::after(REQUEST_TIME_MAX);
    let executed = front.router.execute(front.metadata(), command, Routing::Forward, deadline).await;
    match executed.map_err(|error| front.route_error(error, "the metadata group", Routing::Forward))? {
        Reply::Meta(Ok(MetaReply::NodeRegistered { version })) => Ok(version),
        Reply::Meta(Err(rejected)) => Err(rejected.into()),
        other => Err(ApiError::internal(format!("registration was answered with {other:?}"))),
    }
}

/// Registers through any voter that answers.
async fn ask_voters(front: &Front, node: &Registrant) -> Result<u64, ApiError> {
    let mut last = ApiError::no_leader("the metadata group");
    for voter in &front.metadata_replicas {
        let Some(mut client) = front.peers.client(voter.node, Traffic::Questions) else { continue };
        let request = RegisterRequest {
            cluster: front.cluster.clone(),
            node_id: node.id.get(),
            client_address: node.client_address.clone(),
            peer_address: node.peer_address.clone(),
            store_id: node.store_id,
        };
        match client.register(request).await {
            Ok(registered) => return Ok(registered.into_inner().version),
            Err(status) => {
                last = ApiError::from_peer(voter.node, &status);
                if reason_of(&status).is_some_and(is_final) {
                    break;
                }
            }
        }
    }
    Err(last)
}

/// Whether trying again can't help.
fn is_final(reason: Reason) -> bool {
    use Reason::{ClusterMismatch, InvalidArgument, StoreMismatch, TooManyNodes};
    matches!(reason, ClusterMismatch | InvalidArgument | StoreMismatch | TooManyNodes)
}

/// What the other voters' maps have against the node.
async fn rejected_elsewhere(front: &Front, node: &Registrant) -> Option<MetaRejected> {
    let others = front.metadata_replicas.iter().filter(|replica| replica.node != node.id);
    let mut questions: FuturesUnordered<_> =
        others.map(|replica| tokio::time::timeout(PEER_QUESTION_TIME, ask_voter(replica.node, &front.peers))).collect();
    while let Some(answer) = questions.next().await {
        if let Ok(Some(map)) = answer
            && let Some(rejected) = store_mismatch(&map, node)
        {
            return Some(rejected);
        }
    }
    None
}

fn store_mismatch(map: &ClusterMap, node: &Registrant) -> Option<MetaRejected> {
    let registered = map.nodes.get(&node.id)?.store_id;
    (registered != node.store_id).then_some(MetaRejected::StoreMismatch {
        node: node.id,
        registered,
        presented: node.store_id,
    })
}

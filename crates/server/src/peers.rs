//! Channels to the other nodes' `NodeService`. Consensus keeps its own connections.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use quorate_consensus::Env;
use quorate_consensus::env::{ChannelSettings, channel};
use quorate_model::{ClusterMap, NodeId};
use quorate_proto::internal::node_service_client::NodeServiceClient;
use tonic::transport::Channel;

use crate::config::Voter;
use crate::limits::{PEER_MESSAGE_BYTES, SENT_MESSAGE_BYTES};

/// A client of another node's `NodeService`.
pub(crate) type PeerClient = NodeServiceClient<Channel>;

/// What goes over a connection of its own, so that records which a reader is slow to take don't fill the window of
/// answers that everybody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Traffic {
    Questions,
    Records,
}

/// Lazily connecting channels, two per node.
#[derive(Clone)]
pub(crate) struct Peers {
    env: Arc<dyn Env>,
    /// Voters stay where the configuration says (`reconcile::peers` says why).
    voters: Arc<[NodeId]>,
    known: Arc<Mutex<BTreeMap<NodeId, Known>>>,
}

struct Known {
    address: String,
    channels: BTreeMap<Traffic, Channel>,
}

impl Peers {
    /// Knows the voters; the others become known with the cluster map.
    pub(crate) fn new(env: Arc<dyn Env>, voters: &[Voter]) -> Self {
        let known = voters
            .iter()
            .map(|voter| (voter.node, Known { address: voter.peer_address.clone(), channels: BTreeMap::new() }))
            .collect();
        let voters = voters.iter().map(|voter| voter.node).collect();
        Self { env, voters, known: Arc::new(Mutex::new(known)) }
    }

    /// Takes over the addresses of a cluster map, voters' excepted. A channel lives on while its address does.
    pub(crate) fn learn(&self, map: &ClusterMap) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for (node, info) in &map.nodes {
            let is_new = known.get(node).is_none_or(|peer| peer.address != info.peer_address);
            if is_new && !self.voters.contains(node) {
                known.insert(*node, Known { address: info.peer_address.clone(), channels: BTreeMap::new() });
            }
        }
    }

    /// A client of another node's service; `None` if no usable address is known.
    pub(crate) fn client(&self, node: NodeId, traffic: Traffic) -> Option<PeerClient> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let peer = known.get_mut(&node)?;
        let channel = match peer.channels.entry(traffic) {
            Entry::Occupied(there) => there.get().clone(),
            Entry::Vacant(empty) => {
                empty.insert(channel(&self.env, &peer.address, ChannelSettings::default()).ok()?).clone()
            }
        };
        Some(
            NodeServiceClient::new(channel)
                .max_decoding_message_size(PEER_MESSAGE_BYTES)
                .max_encoding_message_size(SENT_MESSAGE_BYTES),
        )
    }
}

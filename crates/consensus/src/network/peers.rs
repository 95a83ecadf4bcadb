//! The links to every peer.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate_model::NodeId;
use quorate_model::sabotage::{Bug, is_planted};
use tokio::task::AbortHandle;

use super::link::Link;
use super::{Class, Identity};
use crate::detection::sentinel::Sentinel;
use crate::env::{ChannelSettings, Env, channel};
use crate::groups::Peer;

/// Longest wait for an answer to a dial that only asks whether somebody listens.
const DIAL_TIMEOUT: Duration = Duration::from_millis(200);
/// Pauses before such dials: a process that is being killed may lose its connections a moment before its listener.
const DIAL_PAUSES_MS: [u64; 4] = [0, 2, 8, 32];

/// Cheap to clone; all clones share the links.
#[derive(Clone)]
pub(crate) struct Peers {
    shared: Arc<Shared>,
}

struct Shared {
    me: Identity,
    env: Arc<dyn Env>,
    runtime: tokio::runtime::Handle,
    sentinel: Sentinel,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    known: BTreeMap<u64, Known>,
    /// Links outlive the knowledge of a peer, because openraft's clients hold them.
    links: BTreeMap<(u64, Class), Link>,
}

struct Known {
    peer: Peer,
    tasks: Vec<AbortHandle>,
}

impl Drop for Known {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Peers {
    pub(crate) fn new(me: Identity, env: Arc<dyn Env>, runtime: tokio::runtime::Handle, sentinel: Sentinel) -> Self {
        Self { shared: Arc::new(Shared { me, env, runtime, sentinel, state: Mutex::default() }) }
    }

    pub(crate) fn sentinel(&self) -> &Sentinel {
        &self.shared.sentinel
    }

    /// The other nodes.
    pub(crate) fn nodes(&self) -> Vec<u64> {
        self.lock().known.keys().copied().collect()
    }

    pub(crate) fn me(&self) -> &Identity {
        &self.shared.me
    }

    /// Replaces the set of peers. Connections to addresses that didn't change stay as they are.
    pub(crate) fn set(&self, peers: BTreeMap<NodeId, Peer>) {
        let mut state = self.lock();
        state.known.retain(|node, _| peers.contains_key(&NodeId::new(*node)));
        for (node, peer) in peers {
            let node = node.get();
            if node == self.shared.me.node {
                continue;
            }
            // What answers there now may turn out to be another disk than the one that is registered.
            let impostor = state.answers_with_another_disk(node, peer.store_id);
            match state.known.get_mut(&node) {
                Some(known) if known.peer.address == peer.address && !impostor => known.peer = peer,
                _ => {
                    let tasks = self.connect(&mut state, node, &peer.address);
                    state.known.insert(node, Known { peer, tasks });
                }
            }
        }
        self.shared.sentinel.set_peers(&state.known.keys().copied().collect());
    }

    fn connect(&self, state: &mut State, node: u64, address: &str) -> Vec<AbortHandle> {
        let mut tasks = Vec::new();
        for class in Class::ALL {
            match channel(&self.shared.env, address, ChannelSettings::default()) {
                Ok(channel) => {
                    let run = state.link(node, class).run(class, self.clone(), channel, address.to_owned());
                    tasks.push(self.shared.runtime.spawn(run).abort_handle());
                }
                Err(error) => tracing::warn!(node, address, %error, "peer address is not usable"),
            }
        }
        tasks
    }

    /// The link to a node; down while the node isn't a peer.
    pub(crate) fn link(&self, node: u64, class: Class) -> Link {
        self.lock().link(node, class)
    }

    pub(crate) fn is_reachable(&self, node: NodeId) -> bool {
        let node = node.get();
        node == self.shared.me.node || (self.link(node, Class::Control).is_up() && !self.shared.sentinel.suspects(node))
    }

    /// Why a greeting isn't acceptable, if it isn't.
    pub(crate) fn objection(&self, greeting: &Identity) -> Option<String> {
        let me = &self.shared.me;
        if greeting.cluster != me.cluster {
            return Some(format!("this is cluster {}, you belong to {}", me.cluster, greeting.cluster));
        }
        match self.lock().known.get(&greeting.node) {
            None => Some(format!("node {} is not a member of the cluster", greeting.node)),
            Some(_) if is_planted(Bug::WipedDiskWelcome) => None,
            Some(entry) if entry.peer.store_id.is_some_and(|store| store != greeting.store_id) => Some(format!(
                "node {} is registered with another disk: its replicas must not vote again under their old ids",
                greeting.node
            )),
            Some(_) => None,
        }
    }

    pub(crate) fn wall_clock_ms(&self) -> u64 {
        self.shared.env.wall_clock_ms()
    }

    /// Whether nobody listens at `address`: the machine is up, and the process isn't.
    pub(crate) async fn is_refused(&self, address: &str) -> bool {
        for pause in DIAL_PAUSES_MS {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let dialled = tokio::time::timeout(DIAL_TIMEOUT, self.shared.env.connect(address)).await;
            if matches!(dialled, Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused) {
                return true;
            }
        }
        false
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn link(&mut self, node: u64, class: Class) -> Link {
        self.links.entry((node, class)).or_insert_with(|| Link::new(node)).clone()
    }

    fn answers_with_another_disk(&self, node: u64, registered: Option<u64>) -> bool {
        let links = Class::ALL.into_iter().filter_map(|class| self.links.get(&(node, class)));
        registered.is_some_and(|store| links.filter_map(Link::peer).any(|peer| peer.store_id != store))
    }
}

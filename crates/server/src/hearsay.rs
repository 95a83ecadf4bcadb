//! What the other nodes say of the groups that they lead, for those groups that have no replica here. Of a group that
//! has one, the replica knows best.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use quorate_model::{GroupId, NodeId, ReplicaId};
use quorate_proto::internal::{WatchLeadersRequest, WatchLeadersResponse};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::front::Front;
use crate::leaders::KnownLeader;
use crate::limits::RETRY_PAUSE;
use crate::map::jittered;
use crate::peers::Traffic;

/// Listens to every other node of the map, for as long as the node runs.
pub(crate) async fn listen(front: Arc<Front>, tasks: TaskTracker) {
    let mut maps = front.map.watch();
    let mut heard: BTreeMap<NodeId, DropGuard> = BTreeMap::new();
    loop {
        let nodes: BTreeSet<NodeId> = maps.borrow_and_update().nodes.keys().copied().collect();
        heard.retain(|node, _| nodes.contains(node));
        for node in nodes.into_iter().filter(|node| *node != front.node) {
            heard.entry(node).or_insert_with(|| {
                let ending = CancellationToken::new();
                let listening = listen_to(Arc::clone(&front), node);
                tasks.spawn(ending.clone().run_until_cancelled_owned(listening));
                ending.drop_guard()
            });
        }
        if maps.changed().await.is_err() {
            return;
        }
    }
}

/// Listens to one node, again and again.
async fn listen_to(front: Arc<Front>, node: NodeId) {
    let mut pause = RETRY_PAUSE.start;
    loop {
        match front.peers.client(node, Traffic::Questions) {
            Some(mut client) => match client.watch_leaders(WatchLeadersRequest {}).await {
                Ok(responses) => {
                    let mut responses = responses.into_inner();
                    while let Ok(Some(response)) = responses.message().await {
                        pause = RETRY_PAUSE.start;
                        take_over(&front, node, &response);
                    }
                }
                Err(status) => debug!(%node, message = status.message(), "node doesn't say what it leads"),
            },
            // The map that named it may be here before its address was taken over.
            None => debug!(%node, "no usable address yet"),
        }
        // A node that is gone leads nothing that anybody should be sent to.
        take_over(&front, node, &WatchLeadersResponse::default());
        tokio::time::sleep(jittered(pause)).await;
        pause = (pause * 2).min(RETRY_PAUSE.end);
    }
}

fn take_over(front: &Front, node: NodeId, response: &WatchLeadersResponse) {
    let leaders = front.router.leaders();
    let is_here = |group: GroupId| front.router.groups().get(group).is_some();
    let mut led = BTreeSet::new();
    for group in &response.groups {
        let id = GroupId::new(group.group_id);
        led.insert(id);
        if !is_here(id) {
            let leader = KnownLeader { replica: ReplicaId::new(group.replica_id), node, term: group.term };
            leaders.heard(id, leader);
        }
    }
    for group in leaders.led_by(node) {
        if !led.contains(&group) && !is_here(group) {
            leaders.forget(group);
        }
    }
}

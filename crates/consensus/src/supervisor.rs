//! Watches over one group: publishes its leadership, creates it the first time, rebuilds it from disk when
//! its Raft core died. openraft never recovers a core that panicked, and has known panics (openraft #2116);
//! a storage error instead stops the whole process, because a disk that failed once can't be trusted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::Fatal;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::detection::DetectionSettings;
use crate::group::RaftGroup;
use crate::groups::{GroupSpec, OpenGroupError, RaftGroups, initialize_delay};
use crate::types::Member;

/// First wait before a rebuild; doubles up to the longest.
const REBUILD_DELAY_MIN: Duration = Duration::from_millis(50);
const REBUILD_DELAY_MAX: Duration = Duration::from_secs(5);
/// How often the old state machine is asked whether it is gone.
const GONE_POLL: Duration = Duration::from_millis(5);
/// Longest wait for that: it only has to finish what it is applying.
const GONE_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) async fn run(groups: RaftGroups, group: RaftGroup, spec: GroupSpec, mut closing: watch::Receiver<bool>) {
    let mut delay = REBUILD_DELAY_MIN;
    loop {
        let started = Instant::now();
        follow_leadership(&group, &mut closing).await;
        if *closing.borrow() {
            return;
        }
        match group.stop_reason() {
            Some(Fatal::StorageError(error)) => {
                tracing::error!(group = %group.id(), %error, "storage failed");
                return groups.report_failure(format!("group {}: {error}", group.id()));
            }
            reason => tracing::error!(group = %group.id(), ?reason, "group died, rebuilding it from disk"),
        }
        // A group that ran well for a while isn't in a loop of deaths.
        delay = if started.elapsed() > REBUILD_DELAY_MAX { REBUILD_DELAY_MIN } else { delay };
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            _ = closing.changed() => return,
        }
        delay = (delay * 2).min(REBUILD_DELAY_MAX);
        if let Err(error) = rebuild(&groups, &group, &spec).await {
            tracing::error!(group = %group.id(), %error, "group could not be rebuilt");
            return groups.report_failure(error.to_string());
        }
    }
}

/// Publishes leadership changes until the core ends or the group is closed.
async fn follow_leadership(group: &RaftGroup, closing: &mut watch::Receiver<bool>) {
    let mut server = group.raft().server_metrics();
    loop {
        group.refresh_leadership();
        tokio::select! {
            changed = server.changed() => if changed.is_err() { break },
            _ = closing.changed() => break,
        }
    }
    group.refresh_leadership();
}

async fn rebuild(groups: &RaftGroups, group: &RaftGroup, spec: &GroupSpec) -> Result<(), OpenGroupError> {
    // The core is dead; what is left of the old incarnation must be too, before a new one reads the disk.
    let _ = group.raft().shutdown().await;
    if !machine_is_gone(group).await {
        let reason = "the state machine of the dead incarnation does not stop".to_owned();
        return Err(OpenGroupError::State { group: spec.group, reason });
    }
    // Everything that the dead incarnation enqueued is written before the new one reads.
    let written = groups.storage().commit(Vec::new()).await;
    written.map_err(|source| OpenGroupError::Storage { group: spec.group, source })?;
    let running = groups.start(spec, group.published()).await?;
    group.replace_running(running);
    Ok(())
}

/// Waits until the state machine of a stopped group has been dropped: openraft doesn't join its worker, which
/// may still write.
pub(crate) async fn machine_is_gone(group: &RaftGroup) -> bool {
    let deadline = Instant::now() + GONE_TIMEOUT;
    while Arc::strong_count(group.published()) > 1 {
        if Instant::now() > deadline {
            return false;
        }
        tokio::time::sleep(GONE_POLL).await;
    }
    true
}

/// Creates a group that doesn't exist yet. The preferred replica does it at once, the others only if they
/// have waited for it in vain; all of them name the same members, so the first election settles on one log.
pub(crate) async fn initialize(group: RaftGroup, spec: GroupSpec, detection: DetectionSettings) {
    let Some(rank) = spec.members.iter().position(|member| member.id == spec.replica) else { return };
    tokio::time::sleep(initialize_delay(detection, rank)).await;
    if !matches!(group.raft().is_initialized().await, Ok(false)) {
        return;
    }
    let members: BTreeMap<u64, Member> =
        spec.members.iter().map(|member| (member.id.get(), Member { node: member.node.get() })).collect();
    if let Err(error) = group.raft().initialize(members).await {
        tracing::debug!(group = %group.id(), %error, "group was created by another replica");
    }
}

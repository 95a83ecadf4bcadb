//! Releases delayed messages when they are due.
//!
//! A leader may hand out a delayed message once the partition has noted, on a quorum, that everything due by then is
//! released: then whatever is published later is due later, and no place of a lane is ever passed over too early.

use futures::FutureExt;
use quorate_model::partition::Lanes;
use quorate_model::{PartitionCommand, Reply};
use tokio::time::Instant;

use super::{Desk, End, propose};

/// When messages of the partition are due.
#[derive(Default)]
pub(super) struct Delays {
    /// The lanes when they were last looked at.
    lanes: Lanes,
    /// When the first message that isn't released is due.
    due_ms: Option<u64>,
    /// What is being proposed.
    releasing: Option<futures::future::BoxFuture<'static, Result<Reply, End>>>,
}

impl Desk {
    /// Tells the dispatcher how far each lane can be read, and releases what is due.
    pub(super) async fn follow_lanes(&mut self) -> Result<(), End> {
        let lanes = self.group.look(|machine| machine.lanes().clone()).ok_or(End::NotLeading)?;
        if lanes != self.delays.lanes {
            for (lane, end) in lanes.ends() {
                self.dispatcher.set_end(lane, end);
            }
            self.delays.due_ms = None;
            for lane in lanes.delayed() {
                let due_ms =
                    self.records.first_due_ms(lane, lanes.released_ms().saturating_add(1)).await.map_err(End::Read)?;
                self.delays.due_ms = self.delays.due_ms.into_iter().chain(due_ms).min();
            }
            self.delays.lanes = lanes;
        }
        let now_ms = self.clock.now_ms();
        if self.delays.releasing.is_none() && self.delays.due_ms.is_some_and(|due_ms| due_ms <= now_ms) {
            let release = PartitionCommand::Release { time_ms: now_ms };
            self.delays.releasing = Some(propose(self.group.clone(), release).boxed());
        }
        Ok(())
    }

    /// When the next message is due, unless the partition is being told so already.
    pub(super) fn due_at(&self) -> Option<Instant> {
        let due_ms = self.delays.due_ms.filter(|_| self.delays.releasing.is_none())?;
        Some(self.clock.at(due_ms))
    }
}

impl Delays {
    /// What was released is certain.
    pub(super) async fn released(&mut self) -> Result<(), End> {
        let reply = super::finished(&mut self.releasing).await;
        self.releasing = None;
        match reply? {
            Reply::Released(_) => Ok(()),
            other => Err(End::Refused(format!("{other:?}"))),
        }
    }
}

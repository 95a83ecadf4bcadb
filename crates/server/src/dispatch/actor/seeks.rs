//! The subscription was moved: the actor begins anew where it stands now, with the subscribers that it has.

use quorate_model::partition::subscription::SubscriptionState;
use quorate_model::partition::subscription::deliver::{Dispatcher, LeaseId};
use quorate_model::{SubscriptionId, SubscriptionInfo};
use quorate_proto::v1;

use super::delays::Delays;
use super::{BOUNDS, Desk, End, rules};

impl Desk {
    /// Looks whether the subscription was moved since it was last looked.
    pub(super) fn follow_seeks(&mut self) -> Result<(), End> {
        let seeks = self.progress.borrow().seeks;
        if seeks == self.seeks {
            return Ok(());
        }
        self.seeks = seeks;
        let subscription = self.subscription;
        let generation = self.group.look(|machine| Some(machine.subscriptions().get(subscription)?.generation()));
        if generation.flatten() == Some(self.generation) { Ok(()) } else { self.begin_anew() }
    }

    /// What was delivered before can't settle anything any more, and what was decided is refused or undone.
    pub(super) fn begin_anew(&mut self) -> Result<(), End> {
        let subscription = self.subscription;
        let state = self.group.look(|machine| machine.subscriptions().get(subscription).cloned()).flatten();
        let state = state.ok_or(End::Deleted)?;
        let map = self.map.borrow().clone();
        let info = map.subscription_by_id(subscription).ok_or(End::Deleted)?;
        self.generation = state.generation();
        self.dispatcher = dispatcher(subscription, info, &state);
        self.delays = Delays::default();
        self.sessions.keys().for_each(|session| self.dispatcher.join(*session));
        self.proposed = None;
        self.settle_all_at = None;
        for (_, question) in std::mem::take(&mut self.waiters) {
            question.answer(v1::Outcome::Seeked);
        }
        Ok(())
    }
}

/// One that has handed out nothing yet. This node may have led in this term before, with an actor that was given up: its
/// leases had other numbers.
pub(super) fn dispatcher(
    subscription: SubscriptionId,
    info: &SubscriptionInfo,
    state: &SubscriptionState,
) -> Dispatcher {
    let first_lease = LeaseId(u64::from(fastrand::u32(1..)) << 16);
    Dispatcher::new(subscription, rules(info), BOUNDS, state, first_lease)
}

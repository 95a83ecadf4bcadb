//! Those who want messages, and how much more each of them takes.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::{LeaseId, SessionId};

/// What a subscriber can take. Credit adds up; each delivery uses up one message and its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credit {
    /// Messages.
    pub messages: u64,
    /// Bytes of their data.
    pub bytes: u64,
}

impl Credit {
    fn is_left(self) -> bool {
        self.messages > 0 && self.bytes > 0
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Sessions {
    sessions: BTreeMap<SessionId, Session>,
    /// Who got a message last: the next one is the next one's.
    last: SessionId,
}

#[derive(Clone, Debug, Default)]
struct Session {
    credit: Credit,
    leases: std::collections::BTreeSet<LeaseId>,
}

impl Sessions {
    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Adds credit; a session that isn't known begins.
    pub(super) fn grant(&mut self, session: SessionId, credit: Credit) {
        let held = &mut self.sessions.entry(session).or_default().credit;
        held.messages = held.messages.saturating_add(credit.messages);
        held.bytes = held.bytes.saturating_add(credit.bytes);
    }

    /// Takes a session away; what it had in hand, oldest first.
    pub(super) fn remove(&mut self, session: SessionId) -> impl Iterator<Item = LeaseId> + use<> {
        self.sessions.remove(&session).unwrap_or_default().leases.into_iter()
    }

    /// Whose turn it is, among those with credit.
    pub(super) fn next(&self) -> Option<SessionId> {
        let behind = (Bound::Excluded(self.last), Bound::Unbounded);
        let turns = self.sessions.range(behind).chain(self.sessions.range(..=self.last));
        turns.into_iter().find(|(_, session)| session.credit.is_left()).map(|(id, _)| *id)
    }

    pub(super) fn has_credit(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|session| session.credit.is_left())
    }

    /// A session gets a message.
    pub(super) fn hand(&mut self, session: SessionId, lease: LeaseId, bytes: u32) {
        let Some(getting) = self.sessions.get_mut(&session) else { return };
        getting.credit.messages = getting.credit.messages.saturating_sub(1);
        getting.credit.bytes = getting.credit.bytes.saturating_sub(bytes.into());
        getting.leases.insert(lease);
        self.last = session;
    }

    /// A session has a message no more.
    pub(super) fn took_back(&mut self, session: SessionId, lease: LeaseId) {
        if let Some(holder) = self.sessions.get_mut(&session) {
            holder.leases.remove(&lease);
        }
    }
}

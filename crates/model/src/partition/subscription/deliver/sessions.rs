//! Those who want messages.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::{LeaseId, SessionId};

/// Who can take how much more. A session's credit covers all partitions that it gets messages of, so it isn't the
/// dispatcher's.
pub trait Credits {
    /// Takes one message with so many bytes off a session's credit; whether there was enough.
    fn spend(&mut self, session: SessionId, bytes: u32) -> bool;
}

#[derive(Clone, Debug, Default)]
pub(super) struct Sessions {
    /// What each one has in hand.
    sessions: BTreeMap<SessionId, BTreeSet<LeaseId>>,
    /// Who got a message last: the next one is the next one's.
    last: SessionId,
}

impl Sessions {
    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    pub(super) fn insert(&mut self, session: SessionId) {
        self.sessions.entry(session).or_default();
    }

    pub(super) fn contains(&self, session: SessionId) -> bool {
        self.sessions.contains_key(&session)
    }

    /// Takes a session away; what it had in hand, oldest first.
    pub(super) fn remove(&mut self, session: SessionId) -> BTreeSet<LeaseId> {
        self.sessions.remove(&session).unwrap_or_default()
    }

    /// Whose turn it is, leaving out some.
    pub(super) fn next(&self, without: &BTreeSet<SessionId>) -> Option<SessionId> {
        let behind = (Bound::Excluded(self.last), Bound::Unbounded);
        let mut turns = self.sessions.range(behind).chain(self.sessions.range(..=self.last));
        turns.find(|(session, _)| !without.contains(session)).map(|(session, _)| *session)
    }

    /// A session gets a message.
    pub(super) fn hand(&mut self, session: SessionId, lease: LeaseId) {
        self.sessions.entry(session).or_default().insert(lease);
        self.last = session;
    }

    /// A session has a message no more.
    pub(super) fn took_back(&mut self, session: SessionId, lease: LeaseId) {
        if let Some(in_hand) = self.sessions.get_mut(&session) {
            in_hand.remove(&lease);
        }
    }
}

//! What is in flight: who has which message, and until when.

use std::collections::{BTreeMap, BTreeSet};

use super::{KeyHash, LeaseId, Parcel, Position, SessionId};

/// A delivery that isn't settled yet.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    pub(super) session: SessionId,
    pub(super) position: Position,
    pub(super) attempt: u32,
    pub(super) deadline_ms: u64,
    pub(super) first_delivered_ms: u64,
    pub(super) parcel: Parcel,
    pub(super) key: Option<KeyHash>,
}

#[derive(Clone, Debug)]
pub(super) struct Leases {
    leases: BTreeMap<LeaseId, Lease>,
    by_deadline: BTreeSet<(u64, LeaseId)>,
    by_position: BTreeMap<Position, LeaseId>,
    next: LeaseId,
}

impl Leases {
    /// None, and the first one will be `next`.
    pub(super) fn from(next: LeaseId) -> Self {
        Self { leases: BTreeMap::new(), by_deadline: BTreeSet::new(), by_position: BTreeMap::new(), next }
    }

    pub(super) fn len(&self) -> usize {
        self.leases.len()
    }

    pub(super) fn get(&self, id: LeaseId) -> Option<&Lease> {
        self.leases.get(&id)
    }

    /// The lease of a message.
    pub(super) fn at(&self, position: Position) -> Option<LeaseId> {
        self.by_position.get(&position).copied()
    }

    /// Messages that are in flight.
    pub(super) fn positions(&self) -> impl Iterator<Item = &Position> {
        self.by_position.keys()
    }

    pub(super) fn insert(&mut self, lease: Lease) -> LeaseId {
        let id = self.next;
        self.next = LeaseId(id.0 + 1);
        self.by_deadline.insert((lease.deadline_ms, id));
        self.by_position.insert(lease.position, id);
        self.leases.insert(id, lease);
        id
    }

    pub(super) fn remove(&mut self, id: LeaseId) -> Option<Lease> {
        let lease = self.leases.remove(&id)?;
        self.by_deadline.remove(&(lease.deadline_ms, id));
        self.by_position.remove(&lease.position);
        Some(lease)
    }

    pub(super) fn extend(&mut self, id: LeaseId, deadline_ms: u64) -> bool {
        let Some(lease) = self.leases.get_mut(&id) else { return false };
        self.by_deadline.remove(&(lease.deadline_ms, id));
        lease.deadline_ms = deadline_ms;
        self.by_deadline.insert((deadline_ms, id));
        true
    }

    /// When the first one ends.
    pub(super) fn first_deadline_ms(&self) -> Option<u64> {
        self.by_deadline.first().map(|(deadline_ms, _)| *deadline_ms)
    }

    /// One that has ended by `now_ms`.
    pub(super) fn overdue(&self, now_ms: u64) -> Option<LeaseId> {
        self.by_deadline.first().filter(|(deadline_ms, _)| *deadline_ms <= now_ms).map(|(_, id)| *id)
    }
}

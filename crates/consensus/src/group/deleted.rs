//! What of a partition's log was deleted, as this replica has applied. It costs nothing where nothing was.

use std::ops::Range;

use quorate_model::Offset;

use super::RaftGroup;

impl RaftGroup {
    /// Whether a message was deleted.
    #[must_use]
    pub fn is_deleted(&self, offset: Offset) -> bool {
        self.first_kept(offset) != offset
    }

    /// The first offset from `offset` on that wasn't deleted.
    #[must_use]
    pub fn first_kept(&self, offset: Offset) -> Offset {
        if !self.has_deleted() {
            return offset;
        }
        self.look(|machine| machine.deleted().first_kept(offset)).unwrap_or(offset)
    }

    /// What of a part of the log wasn't deleted, in order.
    #[must_use]
    pub fn kept(&self, range: Range<Offset>) -> Vec<Range<Offset>> {
        if !self.has_deleted() {
            return vec![range];
        }
        self.look(|machine| machine.deleted().kept(range).collect()).unwrap_or_default()
    }

    fn has_deleted(&self) -> bool {
        self.inner.published.progress.borrow().deletions > 0
    }
}

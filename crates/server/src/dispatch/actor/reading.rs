//! Reads what the dispatcher wants: the next messages of a lane, or those that were forgotten of an ordering key.

use std::ops::Range;

use quorate_consensus::Progress;
use quorate_model::Offset;
use quorate_model::partition::subscription::deliver::{Candidate, Want};
use quorate_model::partition::subscription::{Lane, Place, Position};

use super::{Desk, End};

impl Desk {
    /// Reads what the dispatcher wants, once; whether there may be more.
    pub(super) async fn read_ahead(&mut self) -> Result<bool, End> {
        let Progress { log_start, end, deletions, .. } = *self.progress.borrow_and_update();
        if log_start > self.log_start {
            self.log_start = log_start;
            self.dispatcher.trim_to(log_start);
        }
        if deletions > self.deletions {
            self.deletions = deletions;
            let group = self.group.clone();
            self.dispatcher.delete(|offset| group.is_deleted(offset));
        }
        self.dispatcher.set_end(Lane::LOG, Place::at(end));
        let Some(want) = self.dispatcher.wants() else { return Ok(false) };
        match want {
            Want::Lane { .. } if !self.filtering.is_usable() => Ok(false),
            Want::Lane { from, upto } => {
                let (read, candidates) = self.candidates(from, upto, log_start..end, true).await?;
                self.dispatcher.offer(from.lane, from.place..read, &candidates);
                Ok(read > from.place)
            }
            Want::Key { key, from, upto } => {
                // What wasn't wanted is settled since it was first read. The filter isn't asked again: by now it may be
                // another, and what it wouldn't want any more would be neither settled nor delivered.
                let (read, mut candidates) = self.candidates(from, upto, log_start..end, false).await?;
                let some = upto.min(read);
                candidates.retain(|candidate| candidate.place < some);
                self.dispatcher.offer_key(key, from.lane, &candidates, (some < upto).then_some(some));
                Ok(read > from.place)
            }
        }
    }

    /// Some messages of a lane from a place on, those that are wanted if they are `filtered`, and up to where that was read.
    async fn candidates(
        &mut self,
        Position { lane, place }: Position,
        upto: Place,
        kept: Range<Offset>,
        filtered: bool,
    ) -> Result<(Place, Vec<Candidate>), End> {
        let filtering = filtered.then_some(&mut self.filtering);
        if lane != Lane::LOG {
            return self.records.candidates_of(lane, place..upto, kept, filtering).await.map_err(End::Read);
        }
        let from = place.offset.max(kept.start);
        let (read, candidates) = self.records.candidates(from, filtering).await.map_err(End::Read)?;
        Ok((Place::at(read), candidates))
    }
}

//! Reads a partition's messages for an actor. What was read for a first delivery usually is delivered soon: it is kept
//! for a while, within a bound.

use std::collections::VecDeque;
use std::ops::Range;

use quorate_consensus::RaftGroup;
use quorate_model::partition::subscription::deliver::{Candidate, Parcel};
use quorate_model::partition::subscription::{KeyHash, Lane, Place};
use quorate_model::{Offset, PartitionId, Record, RecordBatch};
use quorate_storage::StoredBatch;

use super::filtering::Filtering;
use crate::api::error::ApiError;
use crate::fetch::corrupt;
use crate::limits::{DISPATCH_READ_BYTES, DISPATCH_READ_PLACES, DISPATCH_RECENT_BYTES};

/// See the module.
pub(super) struct Records {
    group: RaftGroup,
    partition: PartitionId,
    what: String,
    recent: VecDeque<Batch>,
    recent_bytes: usize,
}

struct Batch {
    base: Offset,
    records: Vec<Record>,
    bytes: usize,
}

impl Records {
    pub(super) fn new(group: RaftGroup, partition: PartitionId, what: String) -> Self {
        Self { group, partition, what, recent: VecDeque::new(), recent_bytes: 0 }
    }

    /// The messages of the log's own lane from an offset on, some of them, and the offset after the last that was read. None
    /// if the log ends there. Filtered, without those that were deleted or that the filter doesn't want, of so many as it may
    /// be asked about at a time.
    pub(super) async fn candidates(
        &mut self,
        from: Offset,
        mut filtering: Option<&mut Filtering>,
    ) -> Result<(Offset, Vec<Candidate>), ApiError> {
        let stored = self.group.read(from, DISPATCH_READ_BYTES).await;
        let stored = stored.map_err(|error| ApiError::from_read(error, &self.what))?;
        let (mut end, mut candidates) = (from, Vec::new());
        let mut room = filtering.as_ref().map_or(usize::MAX, |filtering| filtering.at_a_time());
        for batch in stored {
            let batch = self.decode(&batch)?;
            for (offset, record) in batch.numbered().filter(|(offset, _)| *offset >= from).take(room) {
                room -= 1;
                end = offset.next();
                let passed_over = filtering.is_some() && self.group.is_deleted(offset);
                if Lane::of(record).is_none() && !passed_over && is_wanted(&mut filtering, offset, record).await {
                    candidates.push(candidate(Place::at(offset), record));
                }
            }
            self.keep(batch);
            if room == 0 {
                break;
            }
        }
        Ok((end, candidates))
    }

    /// The messages of another lane within a range, some of them, and the place behind the last that was read. What lies
    /// before `kept` was removed, and is passed over; reading ends at what isn't in the log yet.
    pub(super) async fn candidates_of(
        &mut self,
        lane: Lane,
        range: Range<Place>,
        kept: Range<Offset>,
        mut filtering: Option<&mut Filtering>,
    ) -> Result<(Place, Vec<Candidate>), ApiError> {
        let places = self.group.places(lane, range.clone(), DISPATCH_READ_PLACES).await;
        let places = places.map_err(|error| ApiError::from_read(error, &self.what))?;
        let all = places.len() < DISPATCH_READ_PLACES;
        let (mut end, mut candidates) = (range.start, Vec::new());
        for place in places {
            // It is in the index and not in the log that this node shows: soon it will be.
            if place.offset >= kept.end {
                return Ok((place, candidates));
            }
            let passed_over = filtering.is_some() && self.group.is_deleted(place.offset);
            if place.offset >= kept.start && !passed_over {
                let record = self.record(place.offset).await?;
                if is_wanted(&mut filtering, place.offset, &record).await {
                    candidates.push(candidate(place, &record));
                }
            }
            end = place.next();
        }
        Ok((if all { range.end } else { end }, candidates))
    }

    /// When the first message of a lane is due from `from_ms` on.
    pub(super) async fn first_due_ms(&self, lane: Lane, from_ms: u64) -> Result<Option<u64>, ApiError> {
        let from = Place { due_ms: from_ms, offset: Offset::ZERO };
        let places = self.group.places(lane, from..Place::LAST, 1).await;
        let places = places.map_err(|error| ApiError::from_read(error, &self.what))?;
        Ok(places.first().map(|place| place.due_ms))
    }

    /// One message.
    pub(super) async fn record(&mut self, offset: Offset) -> Result<Record, ApiError> {
        if let Some(record) = self.recent.iter().find_map(|batch| batch.record(offset)) {
            return Ok(record.clone());
        }
        let stored = self.group.read(offset, 1).await.map_err(|error| ApiError::from_read(error, &self.what))?;
        for batch in &stored {
            let batch = self.decode(batch)?;
            if let Some(record) = batch.record(offset) {
                let record = record.clone();
                self.keep(batch);
                return Ok(record);
            }
        }
        Err(corrupt(offset, "it isn't where the index says"))
    }

    fn decode(&self, stored: &StoredBatch) -> Result<Batch, ApiError> {
        let damaged = |error: quorate_model::BatchError| corrupt(stored.base_offset, &error.to_string());
        let batch = RecordBatch::decode(stored.batch.clone(), self.partition).map_err(damaged)?;
        let bytes = batch.header().uncompressed_len as usize;
        Ok(Batch { base: stored.base_offset, records: batch.records().map_err(damaged)?, bytes })
    }

    /// The oldest go when there are too many; the newest is kept whatever its size.
    fn keep(&mut self, batch: Batch) {
        if self.recent.iter().any(|kept| kept.base == batch.base) {
            return;
        }
        self.recent_bytes += batch.bytes;
        self.recent.push_back(batch);
        while self.recent_bytes > DISPATCH_RECENT_BYTES && self.recent.len() > 1 {
            self.recent_bytes -= self.recent.pop_front().map_or(0, |oldest| oldest.bytes);
        }
    }
}

impl Batch {
    fn numbered(&self) -> impl Iterator<Item = (Offset, &Record)> {
        (self.base.get()..).map(Offset::new).zip(&self.records)
    }

    fn record(&self, offset: Offset) -> Option<&Record> {
        let position = usize::try_from(offset.checked_since(self.base)?).ok()?;
        self.records.get(position)
    }
}

async fn is_wanted(filtering: &mut Option<&mut Filtering>, offset: Offset, record: &Record) -> bool {
    match filtering {
        Some(filtering) => filtering.wants(offset, record).await,
        None => true,
    }
}

fn candidate(place: Place, record: &Record) -> Candidate {
    let bytes = u32::try_from(record.data.len()).unwrap_or(u32::MAX);
    let parcel = Parcel { bytes, expires_ms: record.options.expire_at_ms };
    Candidate { place, parcel, key: KeyHash::of(&record.ordering_key) }
}

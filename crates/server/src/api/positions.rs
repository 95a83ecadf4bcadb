//! Positions that a request names, as offsets of partitions.

use std::collections::BTreeMap;

use quorate_model::{Offset, Reason};
use quorate_proto::v1;

use super::convert;
use super::error::ApiError;
use crate::deadline::Deadline;
use crate::fetch::{Consistency, FetchOptions, Start};
use crate::front::{Front, Partition};
use crate::limits::READ_BYTES_MIN;
use crate::router::Routing;

impl Front {
    /// A position in the log as it is now, its end included; `field` names it in errors.
    pub(crate) async fn offset_in(
        &self,
        partition: &Partition,
        start: Start,
        field: &str,
        deadline: Deadline,
    ) -> Result<Offset, ApiError> {
        let Start::Offset(offset) = start else { return self.offset_of(partition, start, deadline).await };
        let log_start = self.offset_of(partition, Start::Earliest, deadline).await?;
        let end = self.offset_of(partition, Start::Latest, deadline).await?;
        if (log_start..=end).contains(&offset) {
            return Ok(offset);
        }
        Err(ApiError::out_of_range(&partition.label(), offset, log_start, end)
            .with("field", &format!("{field}.offset"))
            .with("topic", &partition.topic)
            .with("partition", &partition.id.index))
    }

    /// A fetch says first where it starts, and here no more is asked of it.
    async fn offset_of(&self, partition: &Partition, start: Start, deadline: Deadline) -> Result<Offset, ApiError> {
        let options = self.to_the_end(start);
        Ok(self.fetch(partition, Routing::Forward, deadline, &options).await?.start)
    }

    /// How to read what a leader has now, in small pieces.
    pub(crate) fn to_the_end(&self, start: Start) -> FetchOptions {
        FetchOptions {
            start,
            consistency: Consistency::Leader,
            stop_at_end: true,
            bytes_max: READ_BYTES_MIN,
            reads: self.reads.clone(),
            map: self.map.watch(),
            draining: self.draining.clone(),
        }
    }
}

/// The position of each partition that is meant: those named, each at its own or at the `whole` one, or else all.
/// `fields` are the names of the two in the request.
pub(super) fn targets(
    all: Vec<Partition>,
    whole: Option<Start>,
    named: Vec<v1::PartitionPosition>,
    fields: (&'static str, &'static str),
) -> Result<Vec<(Partition, Start)>, ApiError> {
    let needed = || whole.ok_or_else(|| ApiError::missing(fields.0));
    if named.is_empty() {
        let start = needed()?;
        return Ok(all.into_iter().map(|partition| (partition, start)).collect());
    }
    let count = u32::try_from(all.len()).unwrap_or(u32::MAX);
    let topic = all.first().map(|partition| partition.topic.to_string()).unwrap_or_default();
    let mut by_index: BTreeMap<u32, Partition> =
        all.into_iter().map(|partition| (partition.id.index, partition)).collect();
    let mut targets = Vec::with_capacity(named.len());
    for v1::PartitionPosition { partition: index, start: own } in named {
        if index >= count {
            return Err(ApiError::partition_not_found(&topic, index, count));
        }
        let partition = by_index.remove(&index).ok_or_else(|| {
            let expected = "each partition once";
            ApiError::invalid(Reason::InvalidArgument, &format!("{}.partition", fields.1), &index, expected)
        })?;
        let start = match own {
            Some(own) => start(own, &format!("{}.start", fields.1))?,
            None => needed()?,
        };
        targets.push((partition, start));
    }
    Ok(targets)
}

/// A position of a kind that this version doesn't know looks empty: nothing must happen elsewhere than was meant.
pub(super) fn start(position: v1::Position, field: &str) -> Result<Start, ApiError> {
    if position.position.is_none() {
        let expected = "an offset, a time, earliest, latest or last";
        return Err(ApiError::invalid(Reason::InvalidPosition, field, "", expected));
    }
    convert::start(Some(position), field)
}

//! Moves a subscription: a command to each of its partitions.

use std::collections::BTreeMap;

use futures::stream::{self, StreamExt, TryStreamExt};
use quorate_model::limits::REQUEST_ID_BYTES_MAX;
use quorate_model::{Executed, Offset, PartitionCommand, Reason, Reply, SubscriptionName};
use quorate_proto::v1;
use tonic::Request;
use xxhash_rust::xxh3::xxh3_64;

use super::Subscriptions;
use crate::api::convert;
use crate::api::error::ApiError;
use crate::deadline::Deadline;
use crate::fetch::Start;
use crate::front::Partition;
use crate::limits::PEER_QUESTIONS;
use crate::router::Routing;

impl Subscriptions {
    /// What can't be is refused before anything is moved.
    pub(super) async fn seek(
        &self,
        request: Request<v1::SeekSubscriptionRequest>,
    ) -> Result<v1::SeekSubscriptionResponse, ApiError> {
        let deadline = self.begin(&request)?;
        let v1::SeekSubscriptionRequest { name, position, partitions, request_id } = request.into_inner();
        let name = SubscriptionName::parse(&name)?;
        let number = number(&request_id)?;
        let subscription = self.front.subscription(name.as_str()).await?;
        let all = self.partitions(&subscription).await?;
        let targets: Vec<(Partition, Offset)> = stream::iter(targets(all, position, partitions)?)
            .map(|(partition, start)| async move {
                let to = self.start_in(&partition, start, "position", deadline).await?;
                Ok::<_, ApiError>((partition, to))
            })
            .buffered(PEER_QUESTIONS)
            .try_collect()
            .await?;
        let id = subscription.id;
        let moved: Vec<(u32, Result<Offset, ApiError>)> = stream::iter(targets)
            .map(|(partition, to)| async move {
                let command = PartitionCommand::Seek { subscription: id, request: number, to };
                (partition.id.index, self.move_in(&partition, &command, deadline).await)
            })
            .buffered(PEER_QUESTIONS)
            .collect()
            .await;
        answer(moved)
    }

    async fn move_in(
        &self,
        partition: &Partition,
        command: &PartitionCommand,
        deadline: Deadline,
    ) -> Result<Offset, ApiError> {
        let executed =
            self.front.router.execute(partition.target(), command.encode(), Routing::Forward, deadline).await;
        match executed.map_err(|error| self.front.route_error(error, &partition.label(), Routing::Forward))? {
            Reply::Seeked(offset) => Ok(offset),
            other => Err(ApiError::internal(format!("{} answered a seek with {other:?}", partition.label()))),
        }
    }
}

/// Where each partition goes that is to be moved.
fn targets(
    all: Vec<Partition>,
    position: Option<v1::Position>,
    partitions: Vec<v1::PartitionPosition>,
) -> Result<Vec<(Partition, Start)>, ApiError> {
    let whole = position.map(|position| start(position, "position")).transpose()?;
    let needed = || whole.ok_or_else(|| ApiError::missing("position"));
    if partitions.is_empty() {
        let start = needed()?;
        return Ok(all.into_iter().map(|partition| (partition, start)).collect());
    }
    let count = u32::try_from(all.len()).unwrap_or(u32::MAX);
    let topic = all.first().map(|partition| partition.topic.to_string()).unwrap_or_default();
    let mut by_index: BTreeMap<u32, Partition> =
        all.into_iter().map(|partition| (partition.id.index, partition)).collect();
    let mut targets = Vec::with_capacity(partitions.len());
    for v1::PartitionPosition { partition: index, start: own } in partitions {
        if index >= count {
            return Err(ApiError::partition_not_found(&topic, index, count));
        }
        let partition = by_index.remove(&index).ok_or_else(|| {
            let expected = "each partition once";
            ApiError::invalid(Reason::InvalidArgument, "partitions.partition", &index, expected)
        })?;
        let start = match own {
            Some(own) => start(own, "partitions.start")?,
            None => needed()?,
        };
        targets.push((partition, start));
    }
    Ok(targets)
}

/// A position of a kind that this version doesn't know looks empty: nothing must be moved elsewhere than was meant.
fn start(position: v1::Position, field: &str) -> Result<Start, ApiError> {
    if position.position.is_none() {
        let expected = "an offset, a time, earliest, latest or last";
        return Err(ApiError::invalid(Reason::InvalidPosition, field, "", expected));
    }
    convert::start(Some(position), field)
}

/// By which partitions know a request that comes again. One without an id is another every time.
fn number(request_id: &str) -> Result<u64, ApiError> {
    if request_id.len() > REQUEST_ID_BYTES_MAX {
        let expected = format!("at most {REQUEST_ID_BYTES_MAX} bytes");
        let invalid = ApiError::invalid(Reason::InvalidArgument, "request_id", request_id, &expected);
        return Err(invalid.with("value", &request_id.len()).with("limit", &REQUEST_ID_BYTES_MAX));
    }
    Ok(if request_id.is_empty() { fastrand::u64(..) } else { xxh3_64(request_id.as_bytes()) })
}

/// An answer only if all were moved: one who takes a part for the whole would wait for messages that don't come.
fn answer(moved: Vec<(u32, Result<Offset, ApiError>)>) -> Result<v1::SeekSubscriptionResponse, ApiError> {
    let failed: Vec<(u32, ApiError)> =
        moved.iter().filter_map(|(index, outcome)| Some((*index, outcome.clone().err()?))).collect();
    let done: Vec<v1::SeekedPartition> = moved
        .into_iter()
        .filter_map(|(partition, outcome)| Some(v1::SeekedPartition { partition, offset: outcome.ok()?.get() }))
        .collect();
    let Some((_, first)) = failed.first() else { return Ok(v1::SeekSubscriptionResponse { partitions: done }) };
    let list = |indices: Vec<u32>| indices.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let certain = list(done.iter().map(|seeked| seeked.partition).collect());
    let uncertain = list(failed.iter().map(|(index, _)| *index).collect());
    let text =
        format!("not all partitions were certainly moved: {certain} were, {uncertain} may not be: {}", first.message());
    Err(ApiError::new(first.reason(), text)
        .with("moved_partitions", &certain)
        .with("other_partitions", &uncertain)
        .executed(Executed::Maybe))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_was_moved_is_no_success_and_is_named() {
        let lost = ApiError::new(Reason::NoLeader, "orders/1 has no leader");
        let moved = vec![(0, Ok(Offset::new(7))), (1, Err(lost)), (2, Ok(Offset::new(9)))];
        let error = answer(moved).expect_err("one wasn't moved");
        assert_eq!(error.reason(), Reason::NoLeader);
        assert!(error.message().contains("0,2 were, 1 may not be: orders/1 has no leader"), "{}", error.message());
        let all = answer(vec![(0, Ok(Offset::new(7)))]).expect("all were moved");
        assert_eq!(all.partitions, [v1::SeekedPartition { partition: 0, offset: 7 }]);
    }

    #[test]
    fn a_request_is_known_by_its_id_and_one_without_is_always_another() {
        assert_eq!(number("a").ok(), number("a").ok());
        assert_ne!(number("a").ok(), number("b").ok());
        assert_ne!(number("").ok(), number("").ok());
        assert!(number(&"x".repeat(REQUEST_ID_BYTES_MAX)).is_ok());
        assert!(number(&"x".repeat(REQUEST_ID_BYTES_MAX + 1)).is_err());
    }
}

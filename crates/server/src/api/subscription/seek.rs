//! Moves a subscription: a command to each of its partitions.

use futures::stream::{self, StreamExt, TryStreamExt};
use quorate_model::limits::REQUEST_ID_BYTES_MAX;
use quorate_model::{Executed, Offset, PartitionCommand, Reason, Reply, SubscriptionName};
use quorate_proto::v1;
use tonic::Request;
use xxhash_rust::xxh3::xxh3_64;

use super::Subscriptions;
use super::snapshot::restores;
use crate::api::error::ApiError;
use crate::api::positions::{start, targets};
use crate::deadline::Deadline;
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
        let v1::SeekSubscriptionRequest { name, position, partitions, request_id, snapshot } = request.into_inner();
        let name = SubscriptionName::parse(&name)?;
        let request = number(&request_id)?;
        let info = self.front.subscription(name.as_str()).await?;
        let (all, subscription) = (self.partitions(&info).await?, info.id);
        let commands = if snapshot.is_empty() {
            let whole = position.map(|position| start(position, "position")).transpose()?;
            let targets = targets(all, whole, partitions, ("position", "partitions"))?;
            let targets = stream::iter(targets).map(|(partition, start)| async move {
                let to = self.front.offset_in(&partition, start, "position", deadline).await?;
                Ok::<_, ApiError>((partition, PartitionCommand::Seek { subscription, request, to }))
            });
            targets.buffered(PEER_QUESTIONS).try_collect().await?
        } else if position.is_some() || !partitions.is_empty() {
            let expected = "either a snapshot, or position and partitions";
            return Err(ApiError::invalid(Reason::InvalidArgument, "snapshot", &"<bytes>", expected));
        } else {
            restores(all, subscription, request, &snapshot)?
        };
        let moved: Vec<(u32, Result<Offset, ApiError>)> = stream::iter(commands)
            .map(|(partition, command)| async move {
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

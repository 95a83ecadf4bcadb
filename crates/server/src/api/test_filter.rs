//! A filter tried on the newest messages of a topic. It reads, and leaves no trace.

use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};
use quorate_model::{Offset, Reason, Record, SubscriptionName, TopicName, TopicState};
use quorate_proto::v1;
use quorate_proto::v1::test_filter_request::Source;

use super::convert;
use super::error::ApiError;
use super::messages::records;
use crate::deadline::Deadline;
use crate::fetch::{Fetched, Start};
use crate::filter::{Filter, Message};
use crate::front::{Front, Partition};
use crate::limits::{PEER_QUESTIONS, TEST_FILTER_DEFAULT, TEST_FILTER_MAX, TEST_FILTER_SHOWN};
use crate::router::Routing;

pub(super) async fn test_filter(
    front: &Front,
    request: v1::TestFilterRequest,
    deadline: Deadline,
) -> Result<v1::TestFilterResponse, ApiError> {
    let v1::TestFilterRequest { source, filter: text, last } = request;
    let last = match last {
        0 => TEST_FILTER_DEFAULT,
        1..=TEST_FILTER_MAX => last,
        _ => {
            let expected = format!("1 to {TEST_FILTER_MAX}, or 0 for {TEST_FILTER_DEFAULT}");
            return Err(ApiError::invalid(Reason::InvalidArgument, "last", &last, &expected));
        }
    };
    let (topic, own) = subject(front, source.ok_or_else(|| ApiError::missing("topic or subscription"))?).await?;
    let text = if text.is_empty() { own } else { text };
    if text.is_empty() {
        return Err(ApiError::missing("filter"));
    }
    let filter = Filter::compile(&text)?;
    let each = u64::from(last).div_ceil(u64::from(topic.partition_count().max(1)));
    let tried = stream::iter(Partition::all(&topic)?)
        .map(|partition| {
            let filter = &filter;
            async move { try_on(front, &partition, filter, each, deadline).await }
        })
        .buffered(PEER_QUESTIONS)
        .try_fold(v1::TestFilterResponse::default(), |sum, part| async { Ok(added(sum, part)) });
    deadline.limit(tried).await.map_err(|_| ApiError::expired())?
}

/// The topic, and the filter that its subscription has, if it is named by one.
async fn subject(front: &Front, source: Source) -> Result<(Arc<TopicState>, String), ApiError> {
    match source {
        Source::Topic(name) => {
            let name = TopicName::parse(&name).map_err(|error| ApiError::from(error).with("field", &"topic"))?;
            Ok((front.topic(name.as_str()).await?, String::new()))
        }
        Source::Subscription(name) => {
            let name = SubscriptionName::parse(&name)?;
            let found = front.map.find(|map| {
                let subscription = map.subscription(name.as_str())?;
                Some((Arc::clone(map.topic_by_id(subscription.topic)?), subscription.filter.clone()))
            });
            found.await.ok_or_else(|| ApiError::subscription_not_found(&name))
        }
    }
}

async fn try_on(
    front: &Front,
    partition: &Partition,
    filter: &Filter,
    last: u64,
    deadline: Deadline,
) -> Result<v1::TestFilterResponse, ApiError> {
    let options = front.to_the_end(Start::Last(last));
    let mut fetch = front.fetch(partition, Routing::Forward, deadline, &options).await?;
    let mut tried = v1::TestFilterResponse::default();
    while let Some(fetched) = fetch.content.try_next().await? {
        let Fetched::Batch(stored) = fetched else { continue };
        for (offset, record) in records(&stored, partition.id)? {
            if offset >= fetch.start {
                tokio::task::consume_budget().await;
                try_one(&mut tried, partition, filter, offset, record);
            }
        }
    }
    Ok(tried)
}

fn try_one(tried: &mut v1::TestFilterResponse, partition: &Partition, filter: &Filter, offset: Offset, record: Record) {
    tried.tested += 1;
    let topic = partition.topic.as_str();
    let verdict = filter.matches(&Message::new(topic, partition.id, offset, &record));
    match verdict {
        Ok(true) => {
            tried.matched += 1;
            if tried.matches.len() < TEST_FILTER_SHOWN {
                let shown = Record { data: Default::default(), ..record };
                tried.matches.push(convert::received_message(topic, partition.id, offset, shown));
            }
        }
        Ok(false) => {}
        Err(failure) => {
            tried.failed += 1;
            tried.failure.get_or_insert_with(|| v1::FilterFailure {
                message_id: convert::message_id(partition.id, offset),
                error: failure.to_string(),
            });
        }
    }
}

fn added(mut sum: v1::TestFilterResponse, part: v1::TestFilterResponse) -> v1::TestFilterResponse {
    sum.tested += part.tested;
    sum.matched += part.matched;
    sum.failed += part.failed;
    sum.matches.extend(part.matches);
    sum.matches.truncate(TEST_FILTER_SHOWN);
    sum.failure = sum.failure.or(part.failure);
    sum
}

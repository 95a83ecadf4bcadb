//! The topic that is measured: a new one that goes afterwards, or one that was there and stays.

use super::options::{Load, Target};
use crate::failure::Failure;
use quorate_client::{Client, Start, Topic, TopicSpec};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// One leader on each node of the usual cluster.
const PARTITIONS: u32 = 3;

/// A new topic's partitions elect their leaders within this time, or something is wrong.
const LEADERS_PATIENCE: Duration = Duration::from_secs(30);

/// A topic takes messages of this size unless told otherwise.
const MESSAGE_BYTES: u64 = 1 << 20;

pub(super) struct BenchTopic {
    pub(super) topic: Topic,
    removed_afterwards: bool,
}

impl BenchTopic {
    /// Creates the topic, or looks it up, and waits until every partition has a leader.
    pub(super) async fn prepare(client: &Client, target: &Target, load: &Load) -> Result<BenchTopic, Failure> {
        let prepared = match &target.topic {
            Some(name) => BenchTopic { topic: client.topics().get(name).await?, removed_afterwards: false },
            None => {
                let spec = TopicSpec {
                    partitions: Some(target.partitions.unwrap_or(PARTITIONS)),
                    replication_factor: target.replication_factor,
                    max_message_bytes: Some(u64::from(load.size_max()).max(MESSAGE_BYTES)),
                    ..TopicSpec::named(fresh_name())
                };
                let topic = client.topics().create(spec).await?.topic;
                BenchTopic { topic, removed_afterwards: !target.keep }
            }
        };
        match prepared.check(client, load).await {
            Ok(()) => Ok(prepared),
            Err(failure) => {
                prepared.remove(client).await?;
                Err(failure)
            }
        }
    }

    async fn check(&self, client: &Client, load: &Load) -> Result<(), Failure> {
        load.check_sizes(&self.topic.name, self.topic.max_message_bytes)?;
        let cluster = client.cluster();
        let led = cluster.wait_for(LEADERS_PATIENCE, |view| {
            let known = view.topic(&self.topic.name);
            known.is_some_and(|topic| topic.partitions.iter().all(|partition| partition.leadership.node.is_some()))
        });
        led.await
            .map_err(|error| Failure::from(error).during(format!("waiting for leaders of {}", self.topic.name)))?;
        Ok(())
    }

    /// Where each partition ends now, for a reader that wants everything from here on and nothing else.
    pub(super) async fn ends(&self, client: &Client) -> Result<BTreeMap<u32, Start>, Failure> {
        let topic = client.topics().get(&self.topic.name).await?;
        let mut ends = BTreeMap::new();
        for status in &topic.partition_status {
            if status.unavailable {
                return Err(Failure::new(format!("partition {} of {} has no leader", status.partition, topic.name))
                    .advise("see `quorate cluster health`, then try again"));
            }
            ends.insert(status.partition, Start::Offset(status.end_offset));
        }
        Ok(ends)
    }

    /// Deletes the topic, if it was made for the run and isn't to be kept.
    pub(super) async fn remove(&self, client: &Client) -> Result<(), Failure> {
        if !self.removed_afterwards {
            return Ok(());
        }
        client.topics().delete(&self.topic.name).await.map_err(|error| {
            Failure::from(error).during(format!("deleting {}, which this benchmark had made", self.topic.name))
        })
    }
}

pub(super) fn fresh_name() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    format!("bench-{seconds}-{:04x}", fastrand::u16(..))
}

//! How commands change subscriptions.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::requests::{Request, RequestKind, Requests};
use crate::ids::{SubscriptionId, TopicId};
use crate::limits::{SUBSCRIPTIONS_BYTES_MAX, SUBSCRIPTIONS_MAX, SUBSCRIPTIONS_PER_TOPIC_MAX};
use crate::meta::{
    MetaMachine, MetaRejected, MetaReply, NewSubscription, SubscriptionChange, SubscriptionInfo, SubscriptionRejected,
};
use crate::names::SubscriptionName;

/// All subscriptions, and what is needed to make more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Subscriptions {
    pub(super) by_name: BTreeMap<SubscriptionName, Arc<SubscriptionInfo>>,
    requests: Requests<SubscriptionName, SubscriptionId>,
    pub(super) next: SubscriptionId,
}

impl Default for Subscriptions {
    fn default() -> Self {
        Self { by_name: BTreeMap::new(), requests: Requests::default(), next: SubscriptionId::new(1) }
    }
}

impl Subscriptions {
    /// One of the subscriptions that send their dead letters to a topic.
    pub(super) fn with_dead_letters_to(&self, topic: TopicId) -> Option<&Arc<SubscriptionInfo>> {
        let sends_there = |it: &SubscriptionInfo| it.dead_letter.as_ref().is_some_and(|policy| policy.topic == topic);
        self.by_name.values().find(|subscription| sends_there(subscription))
    }

    /// A topic was deleted, and its subscriptions with it.
    pub(super) fn remove_of(&mut self, topic: TopicId) {
        self.by_name.retain(|_, subscription| subscription.topic != topic);
    }

    /// Whether there is room for one more.
    fn check_count(&self, topic: TopicId) -> Result<(), SubscriptionRejected> {
        if self.by_name.len() >= SUBSCRIPTIONS_MAX {
            return Err(SubscriptionRejected::TooMany { limit: SUBSCRIPTIONS_MAX as u64 });
        }
        if self.by_name.values().filter(|it| it.topic == topic).count() >= SUBSCRIPTIONS_PER_TOPIC_MAX {
            return Err(SubscriptionRejected::TooManyOfTopic { limit: SUBSCRIPTIONS_PER_TOPIC_MAX as u64 });
        }
        Ok(())
    }

    /// Whether all of them fit a checkpoint with this one, in place of the one with its name.
    fn check_bytes(&self, changed: &SubscriptionInfo) -> Result<(), SubscriptionRejected> {
        let others: u64 = self.by_name.values().filter(|it| it.name != changed.name).map(|it| it.bytes()).sum();
        let bytes = changed.bytes();
        if others + bytes > SUBSCRIPTIONS_BYTES_MAX {
            return Err(SubscriptionRejected::NoRoom { bytes, room: SUBSCRIPTIONS_BYTES_MAX.saturating_sub(others) });
        }
        Ok(())
    }

    /// The subscription that an earlier attempt of a request was about, unless it was deleted since.
    fn still_there(
        &self,
        name: &SubscriptionName,
        id: SubscriptionId,
    ) -> Result<Arc<SubscriptionInfo>, SubscriptionRejected> {
        let of_name = self.by_name.get(name).filter(|present| present.id == id);
        of_name.cloned().ok_or_else(|| SubscriptionRejected::Gone { name: name.clone(), id })
    }
}

impl MetaMachine {
    pub(super) fn create_subscription(&mut self, new: NewSubscription) -> Result<MetaReply, MetaRejected> {
        let request = Request::new(RequestKind::Create, &new.name, &new.request_id)?;
        if let Some(made) = self.subscriptions.requests.subject(&request) {
            let subscription = self.subscriptions.still_there(&new.name, made)?;
            return Ok(MetaReply::SubscriptionCreated { subscription, existing: true });
        }
        if self.subscriptions.by_name.contains_key(&new.name) {
            return Err(SubscriptionRejected::Exists { name: new.name }.into());
        }
        new.check()?;
        let topic = self.topics.values().find(|topic| topic.id == new.topic);
        let topic = topic.ok_or(SubscriptionRejected::TopicMissing { topic: new.topic })?;
        let (starts, partitions) = (new.start.len() as u64, topic.partition_count());
        if starts > u64::from(partitions) {
            return Err(SubscriptionRejected::TooManyStarts { starts, partitions }.into());
        }
        self.check_dead_letter_topic(new.dead_letter.as_ref().map(|policy| policy.topic))?;
        self.subscriptions.check_count(new.topic)?;
        let id = self.subscriptions.next;
        let created = Arc::new(new.into_info(id, self.version + 1));
        self.subscriptions.check_bytes(&created)?;

        self.version += 1;
        self.subscriptions.next = SubscriptionId::new(id.get() + 1);
        self.subscriptions.requests.remember(request, id);
        self.subscriptions.by_name.insert(created.name.clone(), Arc::clone(&created));
        Ok(MetaReply::SubscriptionCreated { subscription: created, existing: false })
    }

    pub(super) fn update_subscription(&mut self, change: SubscriptionChange) -> Result<MetaReply, MetaRejected> {
        let name = change.name.clone();
        let request = Request::new(RequestKind::Update, &name, &change.request_id)?;
        if let Some(changed) = self.subscriptions.requests.subject(&request) {
            let subscription = self.subscriptions.still_there(&name, changed)?;
            return Ok(MetaReply::SubscriptionUpdated { subscription });
        }
        let Some(present) = self.subscriptions.by_name.get(&name).map(Arc::clone) else {
            return Err(SubscriptionRejected::NotFound { name }.into());
        };
        if let Some(presented) = change.etag.filter(|presented| *presented != present.etag) {
            return Err(SubscriptionRejected::EtagMismatch { name, current: present.etag, presented }.into());
        }
        let mut changed = change.applied_to(&present)?;
        self.check_dead_letter_topic(changed.dead_letter.as_ref().map(|policy| policy.topic))?;
        self.subscriptions.check_bytes(&changed)?;
        self.subscriptions.requests.remember(request, present.id);
        // An update that changes nothing leaves the etag alone, so that repeating one is harmless.
        if changed == *present {
            return Ok(MetaReply::SubscriptionUpdated { subscription: present });
        }
        self.version += 1;
        changed.etag = self.version;
        let changed = Arc::new(changed);
        self.subscriptions.by_name.insert(name, Arc::clone(&changed));
        Ok(MetaReply::SubscriptionUpdated { subscription: changed })
    }

    pub(super) fn delete_subscription(
        &mut self,
        request_id: &str,
        name: &SubscriptionName,
    ) -> Result<MetaReply, MetaRejected> {
        let request = Request::new(RequestKind::Delete, name, request_id)?;
        if let Some(subscription) = self.subscriptions.requests.subject(&request) {
            return Ok(MetaReply::SubscriptionDeleted { subscription, version: self.version });
        }
        let Some(removed) = self.subscriptions.by_name.remove(name) else {
            return Err(SubscriptionRejected::NotFound { name: name.clone() }.into());
        };
        self.version += 1;
        self.subscriptions.requests.remember(request, removed.id);
        Ok(MetaReply::SubscriptionDeleted { subscription: removed.id, version: self.version })
    }

    fn check_dead_letter_topic(&self, topic: Option<TopicId>) -> Result<(), SubscriptionRejected> {
        match topic {
            Some(topic) if !self.topics.values().any(|present| present.id == topic) => {
                Err(SubscriptionRejected::DeadLetterTopicMissing { topic })
            }
            _ => Ok(()),
        }
    }
}

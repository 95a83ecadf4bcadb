//! The reference: what the metadata machine should do, without a thought of speed or size.

use std::collections::BTreeMap;

use quorate_model::{
    DeadLetterPolicy, MetaCommand, NewSubscription, NodeId, Reason, SubscriptionChange, SubscriptionInfo,
    SubscriptionName, TopicName, TopicState,
};

/// What the reference knows of a topic: just what is needed to judge commands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plain {
    /// Unlike any other topic's, also of the same name.
    id: u64,
    etag: u64,
    partitions: u32,
    replicas: u32,
    max_message_bytes: u64,
}

/// What the reference knows of a subscription.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PlainSubscription {
    /// Unlike any other subscription's, also of the same name.
    id: u64,
    topic: u64,
    etag: u64,
    ack_deadline_ms: u64,
    /// Topic and attempts.
    dead_letter: Option<(u64, u32)>,
}

#[derive(Default)]
pub(crate) struct Reference {
    pub(crate) stores: BTreeMap<NodeId, (String, u64)>,
    pub(crate) topics: BTreeMap<TopicName, Plain>,
    pub(crate) version: u64,
    topics_ever: u64,
    /// What was asked of which name under which id, and the topic that it was carried out on.
    done: BTreeMap<(&'static str, TopicName, String), u64>,
    pub(crate) subscriptions: BTreeMap<SubscriptionName, PlainSubscription>,
    subscriptions_ever: u64,
    /// The same of subscriptions.
    subscriptions_done: BTreeMap<(&'static str, SubscriptionName, String), u64>,
}

impl Reference {
    pub(crate) fn apply(&mut self, command: &MetaCommand) -> Result<(), Reason> {
        match command.clone() {
            MetaCommand::RegisterNode { node, client_address, store_id, .. } => {
                if let Some((_, registered)) = self.stores.get(&node)
                    && *registered != store_id
                {
                    return Err(Reason::StoreMismatch);
                }
                let info = (client_address, store_id);
                if self.stores.insert(node, info.clone()) != Some(info) {
                    self.version += 1;
                }
            }
            MetaCommand::CreateTopic {
                request_id, name, partitions, replication_factor, max_message_bytes, ..
            } => {
                if let Some(done) = self.repeated("create", &name, &request_id) {
                    return done;
                }
                if self.topics.contains_key(&name) {
                    return Err(Reason::TopicExists);
                }
                let nodes = self.stores.len() as u32;
                let replicas = replication_factor.unwrap_or(if nodes >= 3 { 3 } else { 1 });
                if partitions == 0 || max_message_bytes == 0 || replicas == 0 {
                    return Err(Reason::InvalidArgument);
                }
                if replicas > nodes {
                    return Err(Reason::ReplicationFactorTooHigh);
                }
                self.version += 1;
                let etag = self.version;
                self.topics_ever += 1;
                let plain = Plain { id: self.topics_ever, etag, partitions, replicas, max_message_bytes };
                self.done.insert(("create", name.clone(), request_id), plain.id);
                self.topics.insert(name, plain);
            }
            MetaCommand::UpdateTopic { request_id, name, etag, max_message_bytes, .. } => {
                if let Some(done) = self.repeated("update", &name, &request_id) {
                    return done;
                }
                let Some(topic) = self.topics.get_mut(&name) else {
                    return Err(Reason::TopicNotFound);
                };
                if etag.is_some_and(|etag| etag != topic.etag) {
                    return Err(Reason::EtagMismatch);
                }
                match max_message_bytes {
                    Some(0) => return Err(Reason::InvalidArgument),
                    Some(bytes) if bytes != topic.max_message_bytes => {
                        topic.max_message_bytes = bytes;
                        self.version += 1;
                        topic.etag = self.version;
                    }
                    _ => {}
                }
                self.done.insert(("update", name, request_id), topic.id);
            }
            MetaCommand::DeleteTopic { request_id, name } => {
                if !request_id.is_empty() && self.done.contains_key(&("delete", name.clone(), request_id.clone())) {
                    return Ok(());
                }
                let topic = self.topics.get(&name).ok_or(Reason::TopicNotFound)?.id;
                if self.subscriptions.values().any(|it| it.dead_letter.is_some_and(|(to, _)| to == topic)) {
                    return Err(Reason::TopicInUse);
                }
                self.topics.remove(&name);
                self.subscriptions.retain(|_, it| it.topic != topic);
                self.version += 1;
                self.done.insert(("delete", name, request_id), topic);
            }
            MetaCommand::CreateSubscription(new) => return self.create_subscription(new),
            MetaCommand::UpdateSubscription(change) => return self.update_subscription(change),
            MetaCommand::DeleteSubscription { request_id, name } => {
                let request = ("delete", name.clone(), request_id.clone());
                if !request_id.is_empty() && self.subscriptions_done.contains_key(&request) {
                    return Ok(());
                }
                let subscription = self.subscriptions.remove(&name).ok_or(Reason::SubscriptionNotFound)?;
                self.version += 1;
                self.subscriptions_done.insert(request, subscription.id);
            }
        }
        Ok(())
    }

    fn create_subscription(&mut self, new: NewSubscription) -> Result<(), Reason> {
        if let Some(done) = self.subscription_repeated("create", &new.name, &new.request_id) {
            return done;
        }
        if self.subscriptions.contains_key(&new.name) {
            return Err(Reason::SubscriptionExists);
        }
        let topic = new.topic.get();
        if new.ack_deadline_ms < 1_000 || !dead_letter_may_be(new.dead_letter.as_ref(), topic) {
            return Err(Reason::InvalidArgument);
        }
        let found = self.topics.values().find(|it| it.id == topic).ok_or(Reason::TopicNotFound)?;
        if new.start.len() > found.partitions as usize {
            return Err(Reason::InvalidArgument);
        }
        let dead_letter = self.dead_letter(new.dead_letter)?;
        self.version += 1;
        self.subscriptions_ever += 1;
        let (id, etag) = (self.subscriptions_ever, self.version);
        self.subscriptions_done.insert(("create", new.name.clone(), new.request_id), id);
        let ack_deadline_ms = new.ack_deadline_ms;
        self.subscriptions.insert(new.name, PlainSubscription { id, topic, etag, ack_deadline_ms, dead_letter });
        Ok(())
    }

    fn update_subscription(&mut self, change: SubscriptionChange) -> Result<(), Reason> {
        let SubscriptionChange { request_id, name, etag, ack_deadline_ms, dead_letter, .. } = change;
        if let Some(done) = self.subscription_repeated("update", &name, &request_id) {
            return done;
        }
        let present = self.subscriptions.get(&name).ok_or(Reason::SubscriptionNotFound)?.clone();
        if etag.is_some_and(|etag| etag != present.etag) {
            return Err(Reason::EtagMismatch);
        }
        let mut changed = present.clone();
        changed.ack_deadline_ms = ack_deadline_ms.unwrap_or(present.ack_deadline_ms);
        if changed.ack_deadline_ms < 1_000 {
            return Err(Reason::InvalidArgument);
        }
        if let Some(dead_letter) = dead_letter {
            if !dead_letter_may_be(dead_letter.as_ref(), present.topic) {
                return Err(Reason::InvalidArgument);
            }
            changed.dead_letter = self.dead_letter(dead_letter)?;
        }
        if changed != present {
            self.version += 1;
            changed.etag = self.version;
        }
        self.subscriptions_done.insert(("update", name.clone(), request_id), present.id);
        self.subscriptions.insert(name, changed);
        Ok(())
    }

    fn dead_letter(&self, policy: Option<DeadLetterPolicy>) -> Result<Option<(u64, u32)>, Reason> {
        let Some(policy) = policy else { return Ok(None) };
        let topic = policy.topic.get();
        let known = self.topics.values().any(|it| it.id == topic);
        if known { Ok(Some((topic, policy.max_attempts))) } else { Err(Reason::TopicNotFound) }
    }

    fn subscription_repeated(
        &self,
        kind: &'static str,
        name: &SubscriptionName,
        request_id: &str,
    ) -> Option<Result<(), Reason>> {
        let request = (kind, name.clone(), request_id.to_owned());
        let id = self.subscriptions_done.get(&request).filter(|_| !request_id.is_empty())?;
        let still_there = self.subscriptions.get(name).is_some_and(|present| present.id == *id);
        Some(if still_there { Ok(()) } else { Err(Reason::SubscriptionNotFound) })
    }

    /// What a request gets that was carried out before: an error if its topic is gone.
    fn repeated(&self, kind: &'static str, name: &TopicName, request_id: &str) -> Option<Result<(), Reason>> {
        let topic = self.done.get(&(kind, name.clone(), request_id.to_owned())).filter(|_| !request_id.is_empty())?;
        let still_there = self.topics.get(name).is_some_and(|present| present.id == *topic);
        Some(if still_there { Ok(()) } else { Err(Reason::TopicNotFound) })
    }
}

fn dead_letter_may_be(policy: Option<&DeadLetterPolicy>, own_topic: u64) -> bool {
    policy.is_none_or(|policy| policy.max_attempts > 0 && policy.topic.get() != own_topic)
}

pub(crate) fn plain(topic: &TopicState) -> Plain {
    Plain {
        id: topic.id.get(),
        etag: topic.etag,
        partitions: topic.partition_count(),
        replicas: topic.replication_factor,
        max_message_bytes: topic.max_message_bytes,
    }
}

pub(crate) fn plain_subscription(subscription: &SubscriptionInfo) -> PlainSubscription {
    PlainSubscription {
        id: subscription.id.get(),
        topic: subscription.topic.get(),
        etag: subscription.etag,
        ack_deadline_ms: subscription.ack_deadline_ms,
        dead_letter: subscription.dead_letter.as_ref().map(|policy| (policy.topic.get(), policy.max_attempts)),
    }
}

//! Subscriptions in a transcript: `subscribe NAME topic=ID`, `change NAME`, `unsubscribe NAME`.

use quorate_model::limits::{ACK_DEADLINE_MS_DEFAULT, DELIVERY_ATTEMPTS_DEFAULT};
use quorate_model::{
    DeadLetterPolicy, MetaCommand, NewSubscription, Offset, RetryPolicy, SubscriptionChange, SubscriptionInfo,
    SubscriptionName, TopicId,
};

use super::Line;

pub(super) fn command(line: &Line<'_>) -> MetaCommand {
    let name = SubscriptionName::parse(line.word(1)).unwrap();
    let request_id = line.text("request");
    match line.word(0) {
        "subscribe" => MetaCommand::CreateSubscription(NewSubscription {
            time_ms: 0,
            request_id,
            name,
            topic: TopicId::new(line.number("topic").unwrap()),
            start: line.values.get("start").map(|start| offsets(start)).unwrap_or_default(),
            ack_deadline_ms: line.number("ack-deadline").unwrap_or(ACK_DEADLINE_MS_DEFAULT),
            retry: line.values.get("retry").map(|retry| pauses(retry)).unwrap_or_default(),
            dead_letter: dead_letter(line),
            ordered: line.words.contains(&"ordered"),
            filter: line.text("filter"),
            labels: line.labels().unwrap_or_default(),
        }),
        "change" => MetaCommand::UpdateSubscription(SubscriptionChange {
            request_id,
            name,
            etag: line.number("etag"),
            ack_deadline_ms: line.number("ack-deadline"),
            retry: line.values.get("retry").map(|retry| pauses(retry)),
            dead_letter: if line.words.contains(&"no-dead-letters") { Some(None) } else { dead_letter(line).map(Some) },
            filter: line.values.get("filter").map(|filter| (*filter).to_owned()),
            labels: line.labels(),
        }),
        "unsubscribe" => MetaCommand::DeleteSubscription { request_id, name },
        other => panic!("unknown command {other:?}"),
    }
}

pub(super) fn text(subscription: &SubscriptionInfo) -> String {
    let start: Vec<String> = subscription.start.iter().map(ToString::to_string).collect();
    let dead_letters = match &subscription.dead_letter {
        Some(policy) => format!("to topic {} after {} attempts", policy.topic, policy.max_attempts),
        None => "nowhere".to_owned(),
    };
    let pauses: Vec<String> = (1..=3).map(|attempts| subscription.retry.pause_ms(attempts, 0).to_string()).collect();
    format!(
        "subscription {} {} of topic {} from [{}], etag {}, {} ms to acknowledge, again after {} ms, dead letters \
         {dead_letters}{}{}, labels {:?}\n",
        subscription.id,
        subscription.name,
        subscription.topic,
        start.join(" "),
        subscription.etag,
        subscription.ack_deadline_ms,
        pauses.join(" "),
        if subscription.ordered { ", ordered" } else { "" },
        if subscription.filter.is_empty() { String::new() } else { format!(", filter {:?}", subscription.filter) },
        subscription.labels
    )
}

fn dead_letter(line: &Line<'_>) -> Option<DeadLetterPolicy> {
    let topic = TopicId::new(line.number("dead-letters")?);
    let max_attempts = line.number("attempts").unwrap_or(DELIVERY_ATTEMPTS_DEFAULT.into()) as u32;
    Some(DeadLetterPolicy { topic, max_attempts })
}

fn offsets(list: &str) -> Vec<Offset> {
    list.split(',').map(|offset| Offset::new(offset.parse().unwrap())).collect()
}

fn pauses(list: &str) -> RetryPolicy {
    RetryPolicy::Explicit { pauses_ms: list.split(',').map(|pause| pause.parse().unwrap()).collect() }
}

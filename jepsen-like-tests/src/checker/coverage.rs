//! Whether a run saw enough to say anything. Without coverage the absence of complaints means nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Delivery, Operations, Publish, Read};
use crate::history::{Action, Event, History, Phase, Purpose, TopicOperation};

/// What a run set out to cover.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// Faults that must have taken effect at least once.
    pub faults: Vec<String>,
    /// Partitions that must have acknowledged messages, also after the faults.
    pub partitions: u32,
    /// Reads that must have found out what is left in the end.
    pub final_reads: usize,
    /// Messages must have been trimmed.
    pub trimmed: bool,
    /// Batches must have been sent again.
    pub repeats: bool,
    /// Topics must have been made, changed, removed, and found in the end.
    pub topics: bool,
    /// Subscriptions that must have been served, also after the faults, and in all ways: with acknowledgements, returns,
    /// and messages that were kept for too long.
    #[serde(default)]
    pub subscriptions: usize,
    /// Messages must have expired before they were acknowledged.
    #[serde(default)]
    pub expiries: bool,
    /// Groups whose replicas must have been compared.
    pub groups: usize,
}

/// Whether an action is one of a sort.
type Wanted = fn(&Action) -> bool;

/// What happens to topics, if anything does.
const TOPIC_OPERATIONS: [(&str, Wanted); 5] = [
    ("made", |action| matches!(action, Action::Topic { operation: TopicOperation::Create { .. }, .. })),
    ("changed", |action| matches!(action, Action::Topic { operation: TopicOperation::Write { .. }, .. })),
    ("removed", |action| matches!(action, Action::Topic { operation: TopicOperation::Delete, .. })),
    ("looked at in the end", |action| matches!(action, Action::Topic { operation: TopicOperation::Look { .. }, .. })),
    ("published to", |action| matches!(action, Action::PublishTo { .. })),
];

/// What is missing; empty: nothing.
pub(super) fn missing(history: &History, operations: &Operations<'_>) -> Vec<String> {
    let mut plans = history.events.iter().rev().filter_map(|event| match &event.action {
        Action::Plan(expected) => Some(expected),
        _ => None,
    });
    let Some(expected) = plans.next() else { return vec!["nobody said what should be covered".to_owned()] };
    let mut missing = Vec::new();
    let faults = faults(history);
    for fault in &expected.faults {
        let (begun, effective) = faults.get(fault.as_str()).copied().unwrap_or_default();
        if begun == 0 {
            missing.push(format!("fault {fault} never happened"));
        } else if effective == 0 {
            missing.push(format!("fault {fault} happened {begun} times and never took effect"));
        }
    }
    let healed_at = operations.healed.map(|(at, _)| at);
    if healed_at.is_none() {
        missing.push("the faults never ended".to_owned());
    }
    for partition in 0..expected.partitions {
        let mut acknowledged = operations.acknowledged().filter(|(_, publish, _)| publish.partition == partition);
        let later = |at: usize| healed_at.is_some_and(|healed_at| at > healed_at);
        if !acknowledged.any(|(_, publish, _)| later(publish.began)) {
            missing.push(format!("no message that partition {partition} took and acknowledged after the faults"));
        }
    }
    let is_read = expected.partitions > 0 && expected.subscriptions == 0;
    let of_log = usize::from(is_read);
    for (purpose, least) in [(Purpose::Snapshot, of_log), (Purpose::Final, expected.final_reads)] {
        let reads = operations.reads.iter().filter(|read| read.purpose == purpose && read.is_complete());
        let with_content = reads.filter(|read| !read.seen.is_empty()).count();
        if with_content < least {
            missing.push(format!("{with_content} complete reads with content for purpose {purpose:?}, not {least}"));
        }
    }
    let followed = operations.reads.iter().any(|read| read.purpose == Purpose::Tail && !read.seen.is_empty());
    if is_read && !followed {
        missing.push("no reader that followed the log".to_owned());
    }
    let begins_later = |read: &Read<'_>| {
        (0..expected.partitions).any(|partition| read.log_start(partition, operations.keep_messages) > 0)
    };
    if expected.trimmed && !operations.reads.iter().any(|read| read.is_final() && begins_later(read)) {
        missing.push("retention removed nothing".to_owned());
    }
    let happened =
        |wanted: Wanted| history.events.iter().any(|event| event.phase == Phase::Ok && wanted(&event.action));
    if expected.repeats && !happened(|action| matches!(action, Action::Repeated { batches: 1.., .. })) {
        missing.push("no batch was sent again".to_owned());
    }
    for (operation, wanted) in TOPIC_OPERATIONS {
        if expected.topics && !happened(wanted) {
            missing.push(format!("no topic was {operation}"));
        }
    }
    missing.extend(missing_of_subscriptions(expected, operations));
    let compared = |event: &&Event| matches!(event.action, Action::Compared { replicas: 2.., .. });
    let compared = history.events.iter().filter(compared).count();
    if compared < expected.groups {
        missing.push(format!("replicas of {compared} groups were compared, not of {}", expected.groups));
    }
    missing
}

fn missing_of_subscriptions(plan: &Expected, operations: &Operations<'_>) -> Vec<String> {
    let (deliveries, expected) = (&operations.deliveries, plan.subscriptions);
    let mut missing = Vec::new();
    if deliveries.subscriptions.len() < expected {
        missing.push(format!("{} subscriptions, not {expected}", deliveries.subscriptions.len()));
    }
    let letters = deliveries.letters_by_place();
    for (subscription, made) in &deliveries.subscriptions {
        if made.max_attempts.is_some() && !letters.keys().any(|place| place.subscription == *subscription) {
            missing.push(format!("no message of {subscription} that became a dead letter"));
        }
        if made.max_attempts.is_some() && deliveries.letters_read != Some(Phase::Ok) {
            missing.push(format!("no complete read of the dead letters of {subscription}"));
        }
        let regions = || operations.acknowledged().map(|(_, publish, _)| publish.terms.region.as_deref());
        if made.region.is_some() && regions().all(|region| made.wants(region)) {
            missing.push(format!("no message that {subscription} doesn't want"));
        }
        let taken = || deliveries.taken.iter().filter(|delivery| delivery.place.subscription == *subscription);
        let later = |at: usize| operations.healed.is_some_and(|(healed_at, _)| at > healed_at);
        if !taken().any(|delivery| delivery.confirmed().is_some_and(|end| later(end.at))) {
            missing.push(format!("no message of {subscription} that was acknowledged after the faults"));
        }
        if !taken().any(|delivery| delivery.returned().is_some()) {
            missing.push(format!("no message of {subscription} that was returned"));
        }
        let mut silent: BTreeMap<_, u32> = BTreeMap::new();
        for delivery in taken().filter(|delivery| delivery.said.is_none()) {
            let first = silent.entry(delivery.place).or_insert(delivery.attempt);
            *first = delivery.attempt.min(*first);
        }
        let came_again =
            |delivery: &Delivery<'_>| silent.get(&delivery.place).is_some_and(|before| delivery.attempt > *before);
        if !taken().any(came_again) {
            missing.push(format!("no message of {subscription} that was kept for too long, and came again"));
        }
    }
    if expected > 0 && deliveries.left.is_none() {
        missing.push("nobody waited until everything was settled".to_owned());
    }
    let ends_ms = deliveries.taken.iter().map(|delivery| delivery.at_ms).max().unwrap_or(0);
    let is_over = |publish: &Publish<'_>| publish.expires_ms().is_some_and(|expires_ms| expires_ms < ends_ms);
    let was_taken: BTreeSet<&str> = deliveries.taken.iter().map(|delivery| delivery.message).collect();
    let passed_over =
        |(message, publish, _): (&str, &Publish<'_>, u64)| is_over(publish) && !was_taken.contains(message);
    if plan.expiries && !operations.acknowledged().any(passed_over) {
        missing.push("no message that expired before anybody took it".to_owned());
    }
    missing
}

/// By fault: how often it began, and how often it took effect.
fn faults(history: &History) -> BTreeMap<&str, (usize, usize)> {
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for event in &history.events {
        if let Action::Fault { fault, .. } = &event.action {
            let (begun, effective) = counts.entry(fault).or_default();
            *begun += usize::from(event.phase == Phase::Invoke);
            *effective += usize::from(event.phase == Phase::Ok);
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::{Expected, missing};
    use crate::checker::script::Script;
    use crate::checker::{Operations, Verdict, judge};
    use crate::history::{Action, Phase, Purpose, Settled, Terms};

    fn expected() -> Expected {
        Expected { faults: vec!["crash".to_owned()], partitions: 1, final_reads: 1, ..Expected::default() }
    }

    fn complete(expected: Expected) -> Script {
        let seen = [(0, "m1"), (1, "m2")];
        Script::new()
            .remark(Action::Plan(expected))
            .published("m1", 0)
            .fault("crash", Phase::Ok)
            .remark(Action::Healed)
            .published("m2", 1)
            .snapshot(&seen)
            .read(Purpose::Tail, Phase::Ok, &seen)
            .finally(&seen)
    }

    fn lacks(script: &Script) -> usize {
        let history = script.history();
        missing(&history, &Operations::of(&history)).len()
    }

    #[test]
    fn a_run_that_covered_everything_passes() {
        assert_eq!(judge(&complete(expected()).history()), Verdict::Pass);
    }

    #[test]
    fn a_run_that_missed_something_is_unknown() {
        assert!(matches!(judge(&Script::new().history()), Verdict::Unknown(_)), "without a plan nothing is covered");
        let more = Expected { faults: vec!["crash".to_owned(), "power".to_owned()], ..expected() };
        assert_eq!(lacks(&complete(more)), 1, "a fault that was asked for");
        assert_eq!(lacks(&complete(Expected { final_reads: 2, ..expected() })), 1);
        assert_eq!(lacks(&complete(Expected { trimmed: true, ..expected() })), 1);
        assert_eq!(lacks(&complete(Expected { groups: 1, ..expected() })), 1);
        assert_eq!(lacks(&complete(Expected { partitions: 2, ..expected() })), 1);
        assert_eq!(lacks(&complete(Expected { repeats: true, ..expected() })), 1);
        assert_eq!(lacks(&complete(Expected { topics: true, ..expected() })), 5);
    }

    #[test]
    fn subscriptions_are_served_in_all_ways() {
        let expected = || Expected { subscriptions: 1, ..expected() };
        assert_eq!(lacks(&complete(expected())), 2, "there is none");
        let served = complete(expected()).subscription("s", false);
        assert_eq!(lacks(&served), 4, "nothing came of it");
        let (m1, m2) = ((0, "m1", ""), (1, "m2", ""));
        let (script, returned) = served.deliver("c", "s", m1, 1);
        let (script, _) = script.give_back(returned, Phase::Ok, Some(Settled::Done)).deliver("c", "s", m2, 1);
        let (script, _) = script.deliver("c", "s", m2, 2);
        let (script, delivery) = script.deliver("c", "s", m1, 2);
        let script = script.acknowledge(delivery, Phase::Ok, Some(Settled::Done));
        assert_eq!(lacks(&script.remark(Action::Emptied { left: 0 })), 0);
    }

    #[test]
    fn messages_die_expire_and_are_not_wanted() {
        let subscribed = complete(expected()).choosy("s", false, "eu");
        let before = lacks(&subscribed);
        let regions = |region: &str| Terms { region: Some(region.to_owned()), ..Terms::default() };
        let letters = Action::DeadLetters { seen: Vec::new(), why: String::new() };
        let served = subscribed.published_on("m3", 2, regions("eu")).dead(0, "s", (2, "m3"), 3).remark(letters);
        assert_eq!(before - lacks(&served), 2, "a dead letter, and a read of them all");
        let all_wanted = Script::new().remark(Action::Plan(Expected::default())).choosy("s", false, "eu");
        let all_wanted = all_wanted.published_on("m1", 0, regions("eu"));
        let before = lacks(&all_wanted);
        assert_eq!(before - lacks(&all_wanted.published_on("m2", 1, regions("us"))), 1);
    }

    #[test]
    fn messages_expire() {
        let plan = || Script::new().remark(Action::Plan(Expected { expiries: true, ..Expected::default() }));
        let expired = |taken: &str| {
            let terms = Terms { expiry_ms: Some(1_000), ..Terms::default() };
            let script = plan().published_on("m1", 0, terms).published("m2", 1).at(5_000);
            lacks(&script.deliver("c", "s", (0, taken, ""), 1).0)
        };
        assert_eq!(expired("m1") - expired("m2"), 1);
    }

    #[test]
    fn a_fault_without_effect_covers_nothing() {
        let hold = Expected { faults: vec!["hold".to_owned()], ..expected() };
        assert_eq!(lacks(&complete(hold).fault("hold", Phase::Fail)), 1);
    }

    #[test]
    fn a_violation_is_a_failure_with_or_without_coverage() {
        let script = Script::new().published("m1", 0).finally(&[]);
        assert!(matches!(judge(&script.history()), Verdict::Fail(_)));
    }
}

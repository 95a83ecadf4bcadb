//! The metadata machine against a naive reference, and its placement against the bounds it promises.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod commands;
mod reference;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
use quorate_model::{
    ClusterMap, Effect, GroupId, Machine, MachineKind, MetaCommand, MetaReply, NewSubscription, NodeId, Offset,
    ReplicaId, Reply, SubscriptionId, SubscriptionName, TopicId, TopicName, TopicState,
};

use commands::{any_command, create, register, subscribe};
use reference::{Plain, PlainSubscription, Reference, plain, plain_subscription};

/// Everything that must hold of a map, and the ids it shows.
fn check_map(
    map: &ClusterMap,
    groups_ever: &mut BTreeSet<GroupId>,
    replicas_ever: &mut BTreeMap<ReplicaId, (GroupId, NodeId)>,
) {
    let mut on_nodes = 0;
    for topic in map.topics.values() {
        assert_eq!(map.topic(topic.name.as_str()), Some(topic));
        assert_eq!(map.topic_by_id(topic.id), Some(topic));
        for (partition, state) in topic.partition_ids() {
            assert_eq!(map.group_of(partition), Some(state.group));
            assert_eq!(map.partition(state.group), Some((partition, state)));
            assert!(!map.tombstones.contains(&state.group));
            groups_ever.insert(state.group);
            assert_eq!(state.replicas.len(), topic.replication_factor as usize);
            let nodes: BTreeSet<_> = state.replicas.iter().map(|replica| replica.node).collect();
            assert_eq!(nodes.len(), state.replicas.len(), "replicas are on different nodes");
            assert!(nodes.iter().all(|node| map.nodes.contains_key(node)));
            for replica in &state.replicas {
                assert!(replica.id >= ReplicaId::FIRST_ALLOCATED);
                let place = (state.group, replica.node);
                let before = replicas_ever.insert(replica.id, place);
                assert!(before.is_none_or(|before| before == place), "a replica id is never reused");
            }
            on_nodes += state.replicas.len();
        }
    }
    for subscription in map.subscriptions.values() {
        assert_eq!(map.subscription(subscription.name.as_str()), Some(subscription));
        assert_eq!(map.subscription_by_id(subscription.id), Some(subscription));
        assert!(map.subscriptions_of(subscription.topic).contains(subscription));
        // Neither topic can go before the subscription.
        for topic in [Some(subscription.topic), subscription.dead_letter.as_ref().map(|policy| policy.topic)] {
            assert!(topic.is_none_or(|topic| map.topic_by_id(topic).is_some()));
        }
    }
    let of_topics: usize = map.topics.values().map(|topic| map.subscriptions_of(topic.id).len()).sum();
    assert_eq!(of_topics, map.subscriptions.len());
    let listed: usize = map.nodes.keys().map(|node| map.replicas_on(*node).count()).sum();
    assert_eq!(listed, on_nodes);
    // A group that ever was is either there or deleted, so a node never has to guess.
    for group in groups_ever.iter() {
        assert!(map.partition(*group).is_some() != map.tombstones.contains(group));
    }
}

proptest! {
    #[test]
    fn the_machine_agrees_with_the_reference(
        commands in proptest::collection::vec(any_command(), 0..80),
        restart_at in any::<proptest::sample::Index>(),
    ) {
        let mut machine = Machine::new(MachineKind::Meta);
        let mut reference = Reference::default();
        let (mut groups, mut replicas, mut subscriptions_ever) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
        for (index, command) in commands.iter().enumerate() {
            if index == restart_at.index(commands.len()) {
                let checkpoint = machine.checkpoint();
                let restored = Machine::restore(MachineKind::Meta, &checkpoint).unwrap();
                prop_assert_eq!(&restored, &machine);
                prop_assert_eq!(restored.checkpoint(), checkpoint);
                machine = restored;
            }
            let version_before = reference.version;
            let applied = machine.apply(index as u64, &command.encode());
            prop_assert_eq!(MetaCommand::decode(&command.encode()), Ok(command.clone()));
            prop_assert_eq!(Reply::decode(&applied.reply.encode()), Ok(applied.reply.clone()));
            let Reply::Meta(outcome) = applied.reply else {
                panic!("{:?}", applied.reply);
            };
            prop_assert_eq!(
                outcome.map(|_| ()).map_err(|rejected| rejected.reason()),
                reference.apply(command)
            );
            prop_assert!(applied.changes.is_empty());
            let changed = reference.version > version_before;
            prop_assert_eq!(applied.effects, vec![Effect::MapChanged; usize::from(changed)]);

            let map = machine.as_meta().unwrap().cluster_map();
            prop_assert_eq!(map.version, reference.version);
            let topics: BTreeMap<TopicName, Plain> =
                map.topics.iter().map(|(name, topic)| (name.clone(), plain(topic))).collect();
            prop_assert_eq!(&topics, &reference.topics);
            let subscriptions: BTreeMap<SubscriptionName, PlainSubscription> =
                map.subscriptions.iter().map(|(name, it)| (name.clone(), plain_subscription(it))).collect();
            prop_assert_eq!(&subscriptions, &reference.subscriptions);
            for (name, it) in &map.subscriptions {
                let made = (name.clone(), it.topic, it.start.clone());
                let before = subscriptions_ever.insert(it.id, made.clone());
                prop_assert!(before.is_none_or(|before| before == made), "an id is never reused");
            }
            prop_assert!(map.nodes.keys().eq(reference.stores.keys()));
            check_map(&map, &mut groups, &mut replicas);
            prop_assert_eq!(ClusterMap::decode(&map.encode()), Ok(map));
        }
    }

    #[test]
    fn placement_is_even(
        nodes in 1u64..12,
        topics in proptest::collection::vec((1u32..40, 1u32..6), 1..6),
    ) {
        let mut machine = Machine::new(MachineKind::Meta);
        for node in 1..=nodes {
            machine.apply(0, &register(node, 0, node).encode());
        }
        for (n, (partitions, factor)) in topics.into_iter().enumerate() {
            let factor = factor.min(nodes as u32);
            let topic = created(&mut machine, &create(&format!("t{n}"), "", partitions, Some(factor)));
            // Of each topic: nobody holds more than the mean plus slack, rounded up, and one more where
            // the last partitions found too few nodes with room.
            let share = |total: u32| (u64::from(total) * 110).div_ceil(100 * nodes);
            let replicas = per_node([&*topic], false);
            let leaders = per_node([&*topic], true);
            let most = |load: &BTreeMap<NodeId, u64>| load.values().copied().max().unwrap();
            prop_assert!(most(&replicas) <= share(partitions * factor) + 1, "{replicas:?}");
            prop_assert!(most(&leaders) <= share(partitions) + 1, "{leaders:?}");
        }
    }
}

fn created(machine: &mut Machine, command: &MetaCommand) -> Arc<TopicState> {
    match machine.apply(0, &command.encode()).reply {
        Reply::Meta(Ok(MetaReply::TopicCreated { topic, .. })) => topic,
        other => panic!("{other:?}"),
    }
}

fn per_node<'a>(topics: impl IntoIterator<Item = &'a TopicState>, leaders_only: bool) -> BTreeMap<NodeId, u64> {
    let mut load = BTreeMap::new();
    for partition in topics.into_iter().flat_map(|topic| &topic.partitions) {
        let counted = if leaders_only { 1 } else { partition.replicas.len() };
        for replica in &partition.replicas[..counted] {
            *load.entry(replica.node).or_default() += 1;
        }
    }
    load
}

#[test]
fn three_nodes_share_the_leadership_of_six_partitions() {
    let mut machine = Machine::new(MachineKind::Meta);
    for node in 1..=3 {
        machine.apply(0, &register(node, 0, node).encode());
    }
    let topic = created(&mut machine, &create("books", "", 6, None));
    assert_eq!(topic.replication_factor, 3);
    assert_eq!(per_node([&*topic], true).into_values().collect::<Vec<_>>(), [2, 2, 2]);
}

#[test]
fn a_new_node_takes_its_share_of_new_topics_and_the_old_ones_stay() {
    let mut machine = Machine::new(MachineKind::Meta);
    for node in 1..=3 {
        machine.apply(0, &register(node, 0, node).encode());
    }
    let old = created(&mut machine, &create("old", "", 100, None));
    machine.apply(0, &register(4, 0, 4).encode());
    let new = created(&mut machine, &create("new", "", 40, None));
    let map = machine.as_meta().unwrap().cluster_map();
    assert_eq!(map.topic("old"), Some(&old));
    // 120 replicas on 4 nodes: the new one takes as much as a share allows, and not all of the topic.
    let taken = per_node([&*new], false)[&NodeId::new(4)];
    assert!((30..=34).contains(&taken), "{taken}");
}

#[test]
fn the_largest_cluster_fits_its_encodings() {
    let mut machine = Machine::new(MachineKind::Meta);
    for node in 1..=9 {
        machine.apply(0, &register(node, 0, node).encode());
    }
    for n in 0..100 {
        created(&mut machine, &create(&format!("topic-{n}"), "", 1_000, Some(9)));
    }
    let one_more = machine.apply(0, &create("one-more", "", 1, Some(1)).encode());
    let Reply::Meta(Err(rejected)) = one_more.reply else {
        panic!("{:?}", one_more.reply);
    };
    assert_eq!(rejected.to_string(), "partitions is 1; the cluster has 100000, the limit is 100000 in all");
    assert_eq!(Machine::restore(MachineKind::Meta, &machine.checkpoint()).as_ref(), Ok(&machine));
    let map = machine.as_meta().unwrap().cluster_map();
    assert_eq!(ClusterMap::decode(&map.encode()).as_ref(), Ok(&map));
}

/// A machine with one node and these topics, of so many partitions each.
fn machine_with_topics(topics: u64, partitions: u32) -> Machine {
    let mut machine = Machine::new(MachineKind::Meta);
    machine.apply(0, &register(1, 0, 1).encode());
    for n in 0..topics {
        created(&mut machine, &create(&format!("topic-{n}"), "", partitions, None));
    }
    machine
}

fn subscribed(machine: &mut Machine, new: NewSubscription) -> Result<SubscriptionId, String> {
    match machine.apply(0, &MetaCommand::CreateSubscription(new).encode()).reply {
        Reply::Meta(Ok(MetaReply::SubscriptionCreated { subscription, .. })) => Ok(subscription.id),
        Reply::Meta(Err(rejected)) => Err(format!("{}: {rejected}", rejected.reason())),
        other => panic!("{other:?}"),
    }
}

#[test]
fn subscriptions_are_bounded_by_topic_and_in_all() {
    let mut machine = machine_with_topics(11, 1);
    for topic in 1..=10 {
        for n in 0..1_000 {
            let name = format!("subscription-{topic}-{n}");
            subscribed(&mut machine, subscribe(&name, TopicId::new(topic), vec![])).unwrap();
        }
        if topic == 1 {
            let refused = subscribed(&mut machine, subscribe("one-more", TopicId::new(1), vec![])).unwrap_err();
            assert_eq!(refused, "TOO_MANY_SUBSCRIPTIONS: the topic has 1000 subscriptions, which is the limit");
        }
    }
    let refused = subscribed(&mut machine, subscribe("one-more", TopicId::new(11), vec![])).unwrap_err();
    assert_eq!(refused, "TOO_MANY_SUBSCRIPTIONS: the cluster has 10000 subscriptions, which is the limit");
    assert_eq!(Machine::restore(MachineKind::Meta, &machine.checkpoint()).as_ref(), Ok(&machine));
    let map = machine.as_meta().unwrap().cluster_map();
    assert_eq!(ClusterMap::decode(&map.encode()).as_ref(), Ok(&map));
}

#[test]
fn subscriptions_with_much_to_remember_are_bounded_by_its_size() {
    let mut machine = machine_with_topics(2, 1_000);
    let far = vec![Offset::new(u64::MAX); 1_000];
    let mut made = 0;
    let refused = loop {
        let topic = TopicId::new(1 + made / 1_000);
        match subscribed(&mut machine, subscribe(&format!("subscription-{made}"), topic, far.clone())) {
            Ok(_) => made += 1,
            Err(refused) => break refused,
        }
    };
    assert!(refused.starts_with("TOO_MANY_SUBSCRIPTIONS: the subscription takes up"), "{refused}");
    assert!((1_500..2_000).contains(&made), "{made}");
    // What is counted is no less than what is stored.
    let checkpoint = machine.checkpoint();
    assert!(checkpoint.len() < 17 << 20, "{}", checkpoint.len());
    assert_eq!(Machine::restore(MachineKind::Meta, &checkpoint).as_ref(), Ok(&machine));
    // Whoever deletes one makes room for another.
    let name = SubscriptionName::parse("subscription-0").unwrap();
    machine.apply(0, &MetaCommand::DeleteSubscription { request_id: String::new(), name }.encode());
    assert!(subscribed(&mut machine, subscribe("the-next", TopicId::new(2), far)).is_ok());
}

//! The metadata machine against a naive reference, and its placement against the bounds it promises.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use quorate_model::{
    ClusterMap, Effect, GroupId, Machine, MachineKind, MetaCommand, MetaReply, NodeId, Reason, ReplicaId, Reply,
    Retention, TopicName, TopicState,
};

/// What the reference knows of a topic: just what is needed to judge commands.
#[derive(Clone, Debug, PartialEq)]
struct Plain {
    /// Unlike any other topic's, also of the same name.
    id: u64,
    etag: u64,
    partitions: u32,
    replicas: u32,
    max_message_bytes: u64,
}

#[derive(Default)]
struct Reference {
    stores: BTreeMap<NodeId, (String, u64)>,
    topics: BTreeMap<TopicName, Plain>,
    version: u64,
    topics_ever: u64,
    /// What was asked of which name under which id, and the topic that it was carried out on.
    done: BTreeMap<(&'static str, TopicName, String), u64>,
}

impl Reference {
    fn apply(&mut self, command: &MetaCommand) -> Result<(), Reason> {
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
                let topic = self.topics.remove(&name).ok_or(Reason::TopicNotFound)?;
                self.version += 1;
                self.done.insert(("delete", name, request_id), topic.id);
            }
        }
        Ok(())
    }

    /// What a request gets that was carried out before: an error if its topic is gone.
    fn repeated(&self, kind: &'static str, name: &TopicName, request_id: &str) -> Option<Result<(), Reason>> {
        let topic = self.done.get(&(kind, name.clone(), request_id.to_owned())).filter(|_| !request_id.is_empty())?;
        let still_there = self.topics.get(name).is_some_and(|present| present.id == *topic);
        Some(if still_there { Ok(()) } else { Err(Reason::TopicNotFound) })
    }
}

fn register(node: u64, address: u64, store_id: u64) -> MetaCommand {
    MetaCommand::RegisterNode {
        node: NodeId::new(node),
        client_address: format!("node-{node}-{address}:50051"),
        peer_address: format!("node-{node}:50052"),
        store_id,
    }
}

fn create(name: &str, request_id: &str, partitions: u32, replication_factor: Option<u32>) -> MetaCommand {
    MetaCommand::CreateTopic {
        time_ms: 77,
        request_id: request_id.to_owned(),
        name: TopicName::parse(name).unwrap(),
        partitions,
        replication_factor,
        retention: Retention::default(),
        max_message_bytes: 1_000,
        labels: BTreeMap::new(),
    }
}

fn any_command() -> impl Strategy<Value = MetaCommand> {
    let name = || (0u8..4).prop_map(|n| format!("topic-{n}"));
    let request = || (0u8..3).prop_map(|n| ["", "r1", "r2"][usize::from(n)]);
    prop_oneof![
        3 => (1u64..7, 0u64..2, 0u64..10)
            .prop_map(|(node, address, store)| register(node, address, u64::from(store == 0))),
        4 => (name(), request(), 0u32..12, proptest::option::of(0u32..5))
            .prop_map(|(name, request, partitions, factor)| create(&name, request, partitions, factor)),
        3 => (name(), request(), proptest::option::of(0u64..12), proptest::option::of(0u64..3)).prop_map(
            |(name, request, etag, max_message_bytes)| MetaCommand::UpdateTopic {
                request_id: request.to_owned(),
                name: TopicName::parse(&name).unwrap(),
                etag,
                retention: None,
                max_message_bytes,
                labels: None,
            }
        ),
        2 => (name(), request()).prop_map(|(name, request)| MetaCommand::DeleteTopic {
            request_id: request.to_owned(),
            name: TopicName::parse(&name).unwrap(),
        }),
    ]
}

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
        commands in proptest::collection::vec(any_command(), 0..60),
        restart_at in any::<proptest::sample::Index>(),
    ) {
        let mut machine = Machine::new(MachineKind::Meta);
        let mut reference = Reference::default();
        let (mut groups, mut replicas) = (BTreeSet::new(), BTreeMap::new());
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

fn plain(topic: &TopicState) -> Plain {
    Plain {
        id: topic.id.get(),
        etag: topic.etag,
        partitions: topic.partition_count(),
        replicas: topic.replication_factor,
        max_message_bytes: topic.max_message_bytes,
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

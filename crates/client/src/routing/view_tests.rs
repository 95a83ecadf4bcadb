#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use super::{ClusterView, LeaderHint, Leadership, TopicRef};
use quorate_model::{NodeId, TopicId};
use quorate_proto::v1 as pb;
use std::collections::BTreeMap;

fn map(version: u64, topic_id: u64, leader: u64, term: u64) -> pb::ClusterMap {
    let node =
        |id: u64| pb::Node { node_id: id, address: format!("node-{id}:1"), reachable: true, metadata_voter: true };
    let partition = pb::PartitionPlacement {
        partition: 0,
        replica_node_ids: vec![1, 2, 3],
        leader_node_id: leader,
        leader_term: term,
    };
    let topic =
        pb::TopicPlacement { name: "t".to_owned(), topic_id, partitions: vec![partition], max_message_bytes: 1000 };
    pb::ClusterMap {
        cluster: "c".to_owned(),
        version,
        nodes: vec![node(1), node(2), node(3)],
        topics: vec![topic],
        node_id: 1,
        metadata_leader_node_id: 2,
    }
}

fn topic(id: u64) -> TopicRef {
    TopicRef { name: "t".into(), id: TopicId::new(id) }
}

fn leads(node: u64, term: u64) -> Leadership {
    Leadership { term, node: (node != 0).then(|| NodeId::new(node)) }
}

fn hint(node: u64, term: u64) -> LeaderHint {
    LeaderHint { leadership: leads(node, term), address: Some(format!("node-{node}:1")) }
}

fn view(version: u64, topic_id: u64, leader: u64, term: u64) -> ClusterView {
    ClusterView::default().merged(map(version, topic_id, leader, term)).unwrap()
}

#[test]
fn of_two_answers_about_a_leader_the_higher_term_is_believed() {
    let known = view(5, 7, 1, 10);
    assert_eq!(known.merged(map(5, 7, 2, 11)).unwrap().leadership(&topic(7), 0), leads(2, 11));
    assert_eq!(known.merged(map(5, 7, 2, 9)).unwrap().leadership(&topic(7), 0), leads(1, 10));
    // Within a term there is one leader: not knowing it is no contradiction.
    assert_eq!(known.merged(map(5, 7, 0, 10)).unwrap().leadership(&topic(7), 0), leads(1, 10));
    assert_eq!(known.merged(map(5, 7, 0, 11)).unwrap().leadership(&topic(7), 0), leads(0, 11));
}

#[test]
fn an_older_version_teaches_leaders_but_not_topics() {
    let known = view(5, 7, 1, 10);
    let mut old = map(4, 7, 2, 11);
    old.topics[0].max_message_bytes = 1;
    let merged = known.merged(old).unwrap();
    assert_eq!(merged.version, 5);
    assert_eq!(merged.topic("t").unwrap().max_message_bytes, 1000);
    assert_eq!(merged.leadership(&topic(7), 0), leads(2, 11));
}

#[test]
fn a_recreated_topic_inherits_nothing() {
    let known = view(5, 7, 1, 10);
    let merged = known.merged(map(6, 8, 3, 1)).unwrap();
    assert_eq!(merged.leadership(&topic(8), 0), leads(3, 1));
    assert_eq!(merged.leadership(&topic(7), 0), Leadership::default());
}

#[test]
fn a_hint_counts_only_if_its_term_is_news() {
    let known = view(5, 7, 1, 10);
    assert_eq!(known.hinted(&topic(7), 0, &hint(2, 11)).unwrap().leadership(&topic(7), 0), leads(2, 11));
    assert_eq!(known.hinted(&topic(7), 0, &hint(2, 9)), None);
    assert_eq!(known.hinted(&topic(8), 0, &hint(2, 11)), None);
    assert_eq!(known.hinted(&topic(7), 9, &hint(2, 11)), None);
}

#[test]
fn a_hint_introduces_a_node_that_the_map_does_not_have_yet() {
    let hinted = view(5, 7, 1, 10).hinted(&topic(7), 0, &hint(4, 11)).unwrap();
    assert_eq!(hinted.address(NodeId::new(4)), Some("node-4:1"));
}

#[test]
fn a_node_that_denies_leading_is_not_asked_again_until_somebody_says_otherwise() {
    let known = view(5, 7, 1, 10);
    assert_eq!(known.denied(&topic(7), 0, NodeId::new(2)), None);
    let denied = known.denied(&topic(7), 0, NodeId::new(1)).unwrap();
    assert_eq!(denied.leadership(&topic(7), 0), leads(0, 10));
    assert_eq!(denied.merged(map(5, 7, 2, 11)).unwrap().leadership(&topic(7), 0), leads(2, 11));
}

#[test]
fn an_answer_from_another_cluster_is_refused() {
    let stranger = pb::ClusterMap { cluster: "other".to_owned(), ..map(9, 7, 1, 99) };
    assert_eq!(view(5, 7, 1, 10).merged(stranger).unwrap_err().reason(), "CLUSTER_MISMATCH");
}

#[test]
fn a_hint_is_read_from_the_facts_of_the_error() {
    let facts = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let full = facts(&[("leader_node_id", "2"), ("address", "node-2:1"), ("term", "11")]);
    assert_eq!(LeaderHint::from_metadata(&full), Some(hint(2, 11)));
    assert_eq!(LeaderHint::from_metadata(&facts(&[("leader_node_id", "0"), ("term", "11")])), None);
    assert_eq!(LeaderHint::from_metadata(&facts(&[("term", "11")])), None);
}

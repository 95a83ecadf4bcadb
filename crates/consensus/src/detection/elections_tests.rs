//! Stories about the groups of node 1 in a cluster of three.

use std::collections::BTreeSet;
use std::time::Duration;

use quorate_model::GroupId;
use tokio::time::Instant;

use super::elections::{ELECTIONS_AT_ONCE, Elections};
use super::suspicions::Nodes;

const NOBODY: Nodes = Nodes::new();

struct Story {
    began: Instant,
    now_ms: u64,
    elections: Elections,
    down: Nodes,
}

impl Story {
    /// `groups` groups, led by node 3, with the replica of node 1 in the place `rank`.
    fn begin(groups: u64, rank: usize) -> Self {
        let mut nodes = vec![2, 3];
        nodes.insert(rank, 1);
        let mut elections = Elections::new(1);
        for group in 0..groups {
            elections.leader_is(GroupId::new(group), &nodes, Some(3));
        }
        Self { began: Instant::now(), now_ms: 0, elections, down: NOBODY }
    }

    fn now(&self) -> Instant {
        self.began + Duration::from_millis(self.now_ms)
    }

    fn review(&mut self, changed: &[u64]) {
        let changed: BTreeSet<GroupId> = changed.iter().copied().map(GroupId::new).collect();
        self.elections.review(self.now(), &changed, &self.down, &self.down);
    }

    fn node_3_goes_down(&mut self) {
        self.down = Nodes::from([3]);
        self.review(&[]);
    }

    fn leader_is(&mut self, group: u64, leader: Option<u64>) {
        self.elections.leader_is(GroupId::new(group), &[1, 2, 3], leader);
        self.review(&[group]);
    }

    /// Groups for which node 1 stands within the next `ms`, and when.
    fn stands_within(&mut self, ms: u64) -> Vec<(u64, u64)> {
        let end = self.now_ms + ms;
        let mut all = Vec::new();
        while self.now_ms < end {
            self.now_ms += 1;
            let due = self.elections.due(self.now(), &self.down, |_| Duration::ZERO);
            all.extend(due.into_iter().map(|group| (self.now_ms, group.get())));
        }
        all
    }
}

#[test]
fn nobody_stands_while_there_is_a_leader() {
    let mut story = Story::begin(3, 0);
    story.review(&[0, 1, 2]);
    assert_eq!(story.stands_within(10_000), []);
    assert_eq!(story.elections.next_due(story.now()), None, "an idle node has nothing to wake for");
}

#[test]
fn the_first_replica_that_is_up_stands_at_once_and_the_next_a_little_later() {
    let mut first = Story::begin(1, 0);
    first.node_3_goes_down();
    assert_eq!(first.stands_within(100), [(5, 0)]);
    let mut second = Story::begin(1, 1);
    second.node_3_goes_down();
    assert_eq!(second.stands_within(100), [(65, 0)]);
    // Third in the order, but the second is the one that died.
    let mut third = Story::begin(1, 2);
    third.node_3_goes_down();
    assert_eq!(third.stands_within(100), [(65, 0)]);
}

#[test]
fn a_lost_election_is_repeated_after_a_pause_that_grows() {
    let mut story = Story::begin(1, 0);
    story.node_3_goes_down();
    let attempts: Vec<u64> = story.stands_within(9_000).into_iter().map(|(at, _)| at).collect();
    assert_eq!(attempts, [5, 205, 605, 1405, 3005, 5005, 7005]);
    story.leader_is(0, Some(2));
    assert_eq!(story.stands_within(10_000), [], "a leader was found");
}

#[test]
fn a_group_without_any_leader_is_an_orphan_too() {
    let mut story = Story::begin(1, 0);
    story.leader_is(0, None);
    assert_eq!(story.stands_within(100), [(5, 0)]);
    story.leader_is(0, Some(1));
    assert_eq!(story.stands_within(10_000), []);
}

#[test]
fn only_so_many_elections_are_under_way_at_once() {
    let at_once = ELECTIONS_AT_ONCE as u64;
    let mut story = Story::begin(3 * at_once, 0);
    story.node_3_goes_down();
    let first: Vec<u64> = story.stands_within(100).into_iter().map(|(_, group)| group).collect();
    assert_eq!(first, (0..at_once).collect::<Vec<_>>());
    assert!(story.elections.next_due(story.now()).is_some_and(|next| next > story.now()), "no spinning while full");
    // Ten are won: so many others may follow.
    for group in 0..10 {
        story.leader_is(group, Some(1));
    }
    let next: Vec<u64> = story.stands_within(10).into_iter().map(|(_, group)| group).collect();
    assert_eq!(next, (at_once..at_once + 10).collect::<Vec<_>>());
    // The others go on in turn: everyone has had one when the first pauses are over.
    let later: BTreeSet<u64> = story.stands_within(1_000).into_iter().map(|(_, group)| group).collect();
    assert!(later.is_superset(&(at_once + 10..3 * at_once).collect()), "{later:?}");
}

#[test]
fn nobody_stands_without_a_majority_and_everybody_does_when_it_is_back() {
    let mut story = Story::begin(2, 0);
    story.down = Nodes::from([2, 3]);
    story.review(&[]);
    assert_eq!(story.stands_within(5_000), []);
    story.down = Nodes::from([3]);
    story.review(&[]);
    let stood: Vec<u64> = story.stands_within(200).into_iter().map(|(_, group)| group).collect();
    assert_eq!(stood, [0, 1]);
}

#[test]
fn a_leader_that_is_heard_again_keeps_its_groups() {
    let mut story = Story::begin(1, 1);
    story.node_3_goes_down();
    story.down = NOBODY;
    story.review(&[]);
    assert_eq!(story.stands_within(10_000), []);
}

#[test]
fn a_closed_group_is_forgotten() {
    let mut story = Story::begin(2, 0);
    story.node_3_goes_down();
    story.elections.closed(GroupId::new(0));
    assert_eq!(story.stands_within(100), [(5, 1)]);
    assert_eq!(story.elections.led_by(3), [GroupId::new(1)]);
    assert_eq!(story.elections.led_here_with(2), []);
    story.leader_is(1, Some(1));
    assert_eq!(story.elections.led_here_with(2), [GroupId::new(1)]);
}

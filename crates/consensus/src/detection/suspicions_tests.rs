//! Stories about three nodes, told by node 1.

use std::time::Duration;

use tokio::time::Instant;

use super::suspicions::{Nodes, Suspicions, Word};

const SUSPECT_AFTER: Duration = Duration::from_millis(500);
const STEP: u64 = 50;

/// Node 1, and a clock that moves in steps.
struct Story {
    began: Instant,
    now_ms: u64,
    node: Suspicions,
}

/// What a node says that hears everybody but `unheard`.
fn word(unheard: &[u64]) -> Word {
    let unheard: Nodes = unheard.iter().copied().collect();
    Word { suspected: unheard.clone(), unheard }
}

impl Story {
    fn begin() -> Self {
        let began = Instant::now();
        let mut node = Suspicions::new(1, SUSPECT_AFTER, began);
        node.set_peers(began, &Nodes::from([2, 3]));
        Self { began, now_ms: 0, node }
    }

    fn now(&self) -> Instant {
        self.began + Duration::from_millis(self.now_ms)
    }

    /// Time passes; each node of `heard` says every 100 ms whom it doesn't hear.
    fn pass(&mut self, ms: u64, heard: &[(u64, &[u64])]) {
        let end = self.now_ms + ms;
        while self.now_ms < end {
            self.now_ms += STEP;
            if self.now_ms.is_multiple_of(100) {
                for (node, unheard) in heard {
                    self.node.heartbeat(self.now(), *node, word(unheard));
                }
            }
            self.node.step(self.now());
        }
    }

    fn down(&self) -> Vec<u64> {
        self.node.down(self.now()).into_iter().collect()
    }

    fn suspected(&self) -> Vec<u64> {
        self.node.word(self.now()).suspected.into_iter().collect()
    }

    fn unheard(&self) -> Vec<u64> {
        self.node.word(self.now()).unheard.into_iter().collect()
    }
}

#[test]
fn a_silent_node_is_down_once_another_says_so_too() {
    let mut story = Story::begin();
    story.pass(1_000, &[(2, &[]), (3, &[])]);
    assert_eq!(story.suspected(), []);
    story.pass(450, &[(2, &[])]);
    assert_eq!(story.suspected(), [], "one step before the bound");
    story.pass(50, &[(2, &[])]);
    assert_eq!((story.suspected(), story.down()), (vec![3], vec![]), "nobody else has said anything yet");
    story.pass(100, &[(2, &[3])]);
    assert_eq!(story.down(), [3]);
}

#[test]
fn a_process_that_died_is_down_as_soon_as_another_node_agrees() {
    let mut story = Story::begin();
    story.pass(1_000, &[(2, &[]), (3, &[])]);
    story.node.gone(3);
    assert_eq!((story.suspected(), story.down()), (vec![3], vec![]));
    assert!(story.node.heartbeat(story.now(), 2, word(&[3])), "that is news");
    assert_eq!(story.down(), [3]);
    assert!(!story.node.heartbeat(story.now(), 2, word(&[3])), "that is not");
}

#[test]
fn a_cut_link_between_two_nodes_takes_neither_of_them_down() {
    let mut story = Story::begin();
    // 1 and 3 don't hear each other; 2 hears both, and says nothing of them.
    story.pass(5_000, &[(2, &[])]);
    assert_eq!((story.suspected(), story.down()), (vec![3], vec![]));
    // The third node's view: each of the others complains of the other one.
    let mut third = Story::begin();
    third.pass(5_000, &[(2, &[3]), (3, &[2])]);
    assert_eq!((third.suspected(), third.down()), (vec![], vec![]));
}

#[test]
fn a_node_that_hears_nobody_is_down_although_everybody_hears_it() {
    let mut story = Story::begin();
    story.pass(1_000, &[(2, &[]), (3, &[1, 2])]);
    assert_eq!((story.unheard(), story.suspected()), (vec![], vec![3]));
    assert_eq!(story.down(), [], "2 hasn't noticed yet");
    story.pass(100, &[(2, &[3]), (3, &[1, 2])]);
    assert_eq!(story.down(), [3]);
    story.pass(100, &[(2, &[]), (3, &[])]);
    assert_eq!((story.suspected(), story.down()), (vec![], vec![]), "the cut has healed");
}

#[test]
fn a_suspicion_doesnt_feed_on_being_suspected_in_return() {
    let mut story = Story::begin();
    // 3 suspects us only because we once didn't hear it; we hear it now.
    let suspicious = Word { unheard: Nodes::new(), suspected: Nodes::from([1]) };
    story.node.heartbeat(story.now(), 3, suspicious);
    assert_eq!(story.suspected(), []);
}

#[test]
fn a_node_that_stood_still_itself_suspects_nobody() {
    let mut story = Story::begin();
    story.pass(1_000, &[(2, &[]), (3, &[])]);
    story.now_ms += 60_000;
    story.node.step(story.now());
    assert_eq!(story.suspected(), []);
    story.pass(500, &[(2, &[3])]);
    assert_eq!(story.down(), [3], "but silence counts from then on");
}

#[test]
fn a_flapping_link_is_suspected_only_while_it_is_silent() {
    let mut story = Story::begin();
    for _ in 0..5 {
        story.pass(600, &[(2, &[])]);
        assert_eq!((story.suspected(), story.down()), (vec![3], vec![]));
        story.pass(100, &[(2, &[]), (3, &[])]);
        assert_eq!(story.suspected(), []);
    }
}

#[test]
fn the_word_of_a_node_that_is_itself_suspected_counts_for_nothing() {
    let mut story = Story::begin();
    story.pass(100, &[(2, &[3]), (3, &[])]);
    story.pass(600, &[]);
    assert_eq!((story.suspected(), story.down()), (vec![2, 3], vec![]), "an isolated node declares nobody down");
}

#[test]
fn a_node_that_left_the_cluster_is_no_witness_and_no_suspect() {
    let mut story = Story::begin();
    story.pass(1_000, &[(2, &[3])]);
    assert_eq!(story.down(), [3]);
    story.node.set_peers(story.now(), &Nodes::from([2]));
    assert_eq!((story.suspected(), story.down()), (vec![], vec![]));
    assert!(story.node.next_silence(story.now()).is_some());
}

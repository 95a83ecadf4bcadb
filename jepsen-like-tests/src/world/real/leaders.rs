//! Who leads, as the nodes themselves say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use quorate_client::{Client, ClusterView, Leadership};

use super::RealWorld;

/// How long a node's answer is waited for.
const ANSWER_PATIENCE: Duration = Duration::from_secs(1);

/// A partition that has a leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Led {
    /// Name of its topic.
    pub topic: String,
    /// Its number.
    pub partition: u32,
    /// The node that leads it.
    pub leader: u64,
}

impl RealWorld {
    /// The partitions that somebody leads. All nodes are asked, because one that was away may know an old leader only.
    #[must_use]
    pub fn led(&self) -> Vec<Led> {
        let Some(runtime) = &self.runtime else { return Vec::new() };
        let asked = self.nodes.iter().filter(|node| node.process.is_some()).map(|node| ask(node.client.clone()));
        // On a thread of the runtime, because those alone are where clients are.
        let views = runtime.block_on(runtime.spawn(join_all(asked.collect::<Vec<_>>()))).unwrap_or_default();
        known_best(views.iter().flatten().map(AsRef::as_ref))
    }
}

/// The cluster as a node sees it. `None`: it didn't answer.
async fn ask(server: String) -> Option<Arc<ClusterView>> {
    let cluster = Client::builder().servers(vec![server]).build().ok()?.cluster();
    tokio::time::timeout(ANSWER_PATIENCE, cluster.get()).await.ok()?.ok()
}

/// The highest term that any of them knows is right, also if nobody leads in it yet.
fn known_best<'a>(views: impl Iterator<Item = &'a ClusterView>) -> Vec<Led> {
    let mut known: BTreeMap<(&str, u32), Leadership> = BTreeMap::new();
    for (name, topic) in views.flat_map(|view| &view.topics) {
        for (partition, number) in topic.partitions.iter().zip(0..) {
            let best = known.entry((name, number)).or_default();
            *best = partition.leadership.max(*best);
        }
    }
    let led = known.into_iter().filter_map(|((topic, partition), leadership)| {
        let leader = leadership.node?.get();
        Some(Led { topic: topic.to_owned(), partition, leader })
    });
    led.collect()
}

#[cfg(test)]
mod tests {
    use quorate_client::{ClusterView, Leadership, NodeId, PartitionView, TopicView};
    use quorate_model::TopicId;

    use super::{Led, known_best};

    /// What a node knows of the leadership of the one partition that there is.
    fn view(term: u64, leader: Option<u64>) -> ClusterView {
        let leadership = Leadership { term, node: leader.map(NodeId::new) };
        let partitions = vec![PartitionView { replicas: Vec::new(), leadership }];
        let topic = TopicView { id: TopicId::new(1), partitions, max_message_bytes: 0 };
        ClusterView { topics: [("log".to_owned(), topic)].into(), ..ClusterView::default() }
    }

    #[test]
    fn the_highest_term_is_right() {
        let leader = |views: &[ClusterView]| known_best(views.iter()).first().map(|led| led.leader);
        assert_eq!(leader(&[view(3, Some(1)), view(4, Some(2)), view(3, Some(1))]), Some(2), "two are behind");
        assert_eq!(leader(&[view(4, None), view(4, Some(2))]), Some(2), "one doesn't know yet");
        assert_eq!(leader(&[view(3, Some(1)), view(4, None)]), None, "there is an election");
        assert_eq!(leader(&[]), None, "nobody answers");
        let led = Led { topic: "log".to_owned(), partition: 0, leader: 1 };
        assert_eq!(known_best([view(1, Some(1))].iter()), [led]);
    }
}

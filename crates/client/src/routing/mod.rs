//! Who leads what, and how to reach them: the one cluster map of a client.
//!
//! ```text
//!   WatchCluster ──┐
//!   NOT_LEADER  ───┼──▶ ClusterView (pure rules) ──▶ watch<Arc<ClusterView>> ──▶ Router::partition / Router::any
//!   hints          │                                                              direct to the leader, else
//!   GetTopic ──────┘                                                              forwarded by any reachable node
//! ```

mod choice;
mod router;
mod view;
mod watcher;

pub(crate) use router::{Route, Router, RoutingMode};
pub(crate) use view::TopicRef;
pub use view::{ClusterView, Leadership, NodeView, PartitionView, TopicView};

//! The node: everything between a listening socket and a Raft group.
//!
//! ```text
//!  clients ─► api ─► admission ─► router ─► this node's group, or one hop to the node that leads
//!                                   ▲
//!  metadata group ─► map ─► reconcile ─► groups opened and destroyed
//! ```
//!
//! This crate decides nothing that lasts: every durable change is a command that a group replicates and the model
//! applies. It holds no second copy of the cluster map, and makes a `tonic::Status` in one file only.
//!
//! | module | what it does |
//! |---|---|
//! | [`config`] | the settings of a node: file, environment, flags |
//! | [`node`] | composition: set-up in order, shutdown in reverse |
//! | [`run`] | the node as a process: runtimes, signals, logs |
//! | [`env`] | the real network, disk and clock |
//! | [`identity`] | whose disk this is |
//! | `api` | the services: publisher, reader, topics, subscriptions, cluster, other nodes; their errors |
//! | `deadline`, `connections`, `requests`, `limits` | bounds on what callers may ask |
//! | `dispatch` | who gets which message of a subscription: the work of a partition's leader |
//! | `filter` | which messages a subscription gets: an expression, compiled and evaluated |
//! | `map`, `reconcile`, `registration` | the cluster map, and the groups that follow from it |
//! | `retention`, `endings` | old records go, as the topics say; what deleted subscriptions had settled goes |
//! | `router`, `leaders`, `hearsay`, `peers`, `fetch`, `reads`, `front` | the way to the replica that leads |
//! | `metrics`, `readiness`, [`telemetry`] | what operators see |

mod api;
pub mod config;
mod connections;
mod deadline;
mod dispatch;
mod endings;
pub mod env;
mod fetch;
mod filter;
mod front;
mod hearsay;
pub mod identity;
mod leaders;
mod limits;
mod map;
mod metrics;
pub mod node;
mod peers;
mod readiness;
mod reads;
mod reconcile;
mod registration;
mod requests;
mod retention;
mod router;
pub mod run;
pub mod telemetry;

pub use config::{Config, ConfigError};
pub use env::SystemEnv;
pub use node::{Addresses, Node, NodeFailure, Runtimes, StartError};
pub use run::{RunError, check, run};

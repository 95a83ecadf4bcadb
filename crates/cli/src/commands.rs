//! The commands, one file per noun.

pub(crate) mod bench;
pub(crate) mod cluster;
pub(crate) mod completion;
pub(crate) mod context;
pub(crate) mod dev;
pub(crate) mod dlq;
pub(crate) mod explain;
pub(crate) mod message;
pub(crate) mod publish;
pub(crate) mod read;
pub(crate) mod server;
pub(crate) mod subscribe;
pub(crate) mod subscription;
pub(crate) mod topic;

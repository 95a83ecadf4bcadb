//! Whose disk this is. A folder remembers its cluster, its node and a number of its own, so that a disk that
//! was swapped, copied or emptied is refused instead of voting with the wrong memory.

use std::path::PathBuf;

use quorate_model::NodeId;
use quorate_storage::{NodeIdentity, Storage, StorageError};

use crate::config::Config;

/// Why a folder can't be used by this node.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The folder was made by a node of another cluster.
    #[error(
        "{} belongs to cluster {holds:?}, but cluster.name is {configured:?}: \
         name another folder in node.data_dir, or correct cluster.name", data_dir.display()
    )]
    OtherCluster {
        /// The folder.
        data_dir: PathBuf,
        /// The cluster that it belongs to.
        holds: String,
        /// The cluster of the configuration.
        configured: String,
    },
    /// The folder was made by another node of this cluster.
    #[error(
        "{} belongs to node {holds}, but node.id is {configured}: \
         name another folder in node.data_dir, or correct node.id", data_dir.display()
    )]
    OtherNode {
        /// The folder.
        data_dir: PathBuf,
        /// The node that it belongs to.
        holds: NodeId,
        /// The node of the configuration.
        configured: NodeId,
    },
    /// The identity could not be read or written.
    #[error("cannot read or write the identity of the store: {0}")]
    Storage(#[from] StorageError),
}

/// Compares the folder's identity with the configuration; gives a fresh folder its identity, durably.
///
/// # Errors
/// [`IdentityError`] if the folder belongs to someone else.
pub(crate) async fn settle(storage: &Storage, config: &Config) -> Result<NodeIdentity, IdentityError> {
    let cluster = &config.cluster.name;
    match storage.load_identity().await? {
        None => {
            let identity = NodeIdentity {
                cluster: cluster.clone(),
                node: config.node.id,
                // 0 means "unknown" on the wire.
                store_id: fastrand::u64(1..),
            };
            storage.save_identity(&identity).await?;
            Ok(identity)
        }
        Some(identity) if identity.cluster != *cluster => Err(IdentityError::OtherCluster {
            data_dir: config.node.data_dir.clone(),
            holds: identity.cluster,
            configured: cluster.clone(),
        }),
        Some(identity) if identity.node != config.node.id => Err(IdentityError::OtherNode {
            data_dir: config.node.data_dir.clone(),
            holds: identity.node,
            configured: config.node.id,
        }),
        Some(identity) => Ok(identity),
    }
}

use bytes::{BufMut, Bytes, BytesMut};
use quorate_model::NodeId;

use crate::engine::Table;
use crate::error::StorageError;

/// Whose disk this is. A node refuses to start on a disk that belongs to another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeIdentity {
    /// The name of the cluster.
    pub cluster: String,
    /// The node.
    pub node: NodeId,
    /// Drawn once when the folder was made, so that an emptied folder is told from the old one.
    pub store_id: u64,
}

const IDENTITY_FORMAT: u8 = 1;

impl NodeIdentity {
    pub(crate) fn to_row(&self) -> Bytes {
        let mut row = BytesMut::with_capacity(17 + self.cluster.len());
        row.put_u8(IDENTITY_FORMAT);
        row.put_u64_le(self.node.get());
        row.put_u64_le(self.store_id);
        row.put_slice(self.cluster.as_bytes());
        row.freeze()
    }

    pub(crate) fn from_row(row: &[u8]) -> Result<NodeIdentity, StorageError> {
        let malformed = |why| StorageError::malformed(Table::Node, why);
        let short = malformed("an identity shorter than its fields");
        let (format, rest) = row.split_first().ok_or(short.clone())?;
        if *format != IDENTITY_FORMAT {
            return Err(malformed("unknown identity format"));
        }
        let (node, rest) = rest.split_first_chunk().ok_or(short.clone())?;
        let (store_id, cluster) = rest.split_first_chunk().ok_or(short)?;
        let cluster = std::str::from_utf8(cluster).map_err(|_| malformed("the cluster's name is not UTF-8"))?;
        Ok(NodeIdentity {
            cluster: cluster.to_owned(),
            node: NodeId::new(u64::from_le_bytes(*node)),
            store_id: u64::from_le_bytes(*store_id),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
    use super::*;

    #[test]
    fn the_row_of_an_identity_is_fixed_for_ever() {
        let identity = NodeIdentity { cluster: "blå".to_owned(), node: NodeId::new(2), store_id: 0x0a0b };
        let row = identity.to_row();
        let golden = [&[1, 2, 0, 0, 0, 0, 0, 0, 0, 0x0b, 0x0a, 0, 0, 0, 0, 0, 0][..], "blå".as_bytes()].concat();
        assert_eq!(row, golden);
        assert_eq!(NodeIdentity::from_row(&row).unwrap(), identity);
    }

    #[test]
    fn a_row_that_is_no_identity_is_refused() {
        for row in [&[][..], &[9], &[1, 0, 0], &[1; 16], &[&[1; 17][..], &[0xff]].concat()] {
            assert!(NodeIdentity::from_row(row).is_err());
        }
    }
}

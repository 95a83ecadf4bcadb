use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::engine::Table;
use crate::entry::EntryId;
use crate::error::StorageError;

/// The state of a replica's machine after one log entry. Kilobytes: messages stay in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The last entry that the state contains; none for a fresh machine.
    pub last_applied: Option<EntryId>,
    /// The group's membership at that entry, in the consensus crate's encoding.
    pub membership: Bytes,
    /// The machine, in the model's encoding.
    pub machine: Bytes,
}

const CHECKPOINT_FORMAT: u8 = 1;

impl Checkpoint {
    /// `[format u8][applied? u8][entry id 16, if applied][membership length u32][membership][machine]`
    pub(crate) fn to_row(&self) -> Bytes {
        let mut row = BytesMut::with_capacity(30 + self.membership.len() + self.machine.len());
        row.put_u8(CHECKPOINT_FORMAT);
        row.put_u8(u8::from(self.last_applied.is_some()));
        if let Some(id) = self.last_applied {
            row.put_slice(&id.to_bytes());
        }
        let membership_len = u32::try_from(self.membership.len()).expect("a membership lists a handful of replicas");
        row.put_u32_le(membership_len);
        row.put_slice(&self.membership);
        row.put_slice(&self.machine);
        row.freeze()
    }

    pub(crate) fn from_row(row: &Bytes) -> Result<Checkpoint, StorageError> {
        let malformed = |why| StorageError::malformed(Table::State, why);
        let short = |_| malformed("a checkpoint shorter than its fields");
        let mut rest = row.clone();
        if rest.try_get_u8().map_err(short)? != CHECKPOINT_FORMAT {
            return Err(malformed("unknown checkpoint format"));
        }
        let last_applied = match rest.try_get_u8().map_err(short)? {
            0 => None,
            1 => {
                let mut id = [0; EntryId::BYTES];
                rest.try_copy_to_slice(&mut id).map_err(short)?;
                EntryId::from_bytes(&id)
            }
            _ => return Err(malformed("neither applied nor not applied")),
        };
        let membership_len = rest.try_get_u32_le().map_err(short)? as usize;
        if rest.len() < membership_len {
            return Err(malformed("a membership shorter than its length"));
        }
        let membership = rest.split_to(membership_len);
        Ok(Checkpoint { last_applied, membership, machine: rest })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_row_of_a_checkpoint_is_fixed_for_ever() {
        let checkpoint = Checkpoint {
            last_applied: Some(EntryId { term: 1, index: 3 }),
            membership: Bytes::from_static(b"mm"),
            machine: Bytes::from_static(b"state"),
        };
        let id = [1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0];
        let golden = [&[1, 1][..], &id, &[2, 0, 0, 0], b"mm", b"state"].concat();
        assert_eq!(checkpoint.to_row(), golden);
    }

    proptest! {
        #[test]
        fn a_checkpoint_survives_its_row(
            id: Option<(u64, u64)>, membership: Vec<u8>, machine: Vec<u8>,
        ) {
            let checkpoint = Checkpoint {
                last_applied: id.map(|(term, index)| EntryId { term, index }),
                membership: membership.into(),
                machine: machine.into(),
            };
            prop_assert_eq!(Checkpoint::from_row(&checkpoint.to_row()).unwrap(), checkpoint);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = Checkpoint::from_row(&bytes.into());
        }
    }
}

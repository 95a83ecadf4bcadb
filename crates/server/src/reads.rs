//! How much may be read at the same time, and how much of what was read may wait for readers that are slower than the
//! disk.

use std::sync::Arc;

use quorate_consensus::Overload;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::LimitsConfig;
use crate::limits::READ_BYTES_MIN;

/// The node's bounds on reading; clones share them.
#[derive(Clone)]
pub(crate) struct Reads {
    places: Arc<Semaphore>,
    ahead: Arc<Semaphore>,
    limit: usize,
}

/// Bytes that may be read at once, and the room that they have until they are delivered.
pub(crate) struct Ahead {
    pub(crate) bytes: u64,
    room: Option<OwnedSemaphorePermit>,
}

impl Reads {
    pub(crate) fn new(limits: &LimitsConfig) -> Self {
        Self {
            places: Arc::new(Semaphore::new(limits.readers)),
            ahead: Arc::new(Semaphore::new(limits.read_ahead_bytes)),
            limit: limits.readers,
        }
    }

    /// A place for one more reader of one partition, given back on drop.
    pub(crate) fn enter(&self) -> Result<OwnedSemaphorePermit, Overload> {
        let full = |_| Overload::new("limits.readers", self.limit);
        Arc::clone(&self.places).try_acquire_owned().map_err(full)
    }

    /// Room for up to `wanted` bytes. When there is none a reader still gets small pieces: it is never kept waiting
    /// by others who don't take what was read for them.
    pub(crate) fn ahead(&self, wanted: u64) -> Ahead {
        let asked = u32::try_from(wanted).unwrap_or(u32::MAX);
        match Arc::clone(&self.ahead).try_acquire_many_owned(asked) {
            Ok(room) => Ahead { bytes: wanted, room: Some(room) },
            Err(_) => Ahead { bytes: READ_BYTES_MIN.min(wanted), room: None },
        }
    }
}

impl Ahead {
    /// Gives back what wasn't used.
    pub(crate) fn keep(&mut self, bytes: u64) {
        let Some(room) = &mut self.room else { return };
        let spare = room.num_permits().saturating_sub(usize::try_from(bytes).unwrap_or(usize::MAX));
        drop(room.split(spare));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn reads(settings: &[&str]) -> Reads {
        let least = ["node.id=1", "node.data_dir=here", "cluster.voters=1=127.0.0.1:1"];
        let flags: Vec<String> = least.iter().chain(settings).map(|&setting| setting.to_owned()).collect();
        Reads::new(&Config::load(None, [], &flags).expect("a configuration").limits)
    }

    #[test]
    fn readers_are_counted() {
        let reads = reads(&["limits.readers=2"]);
        let inside = [(); 2].map(|()| reads.enter());
        assert!(inside.iter().all(Result::is_ok), "at the bound");
        assert_eq!(reads.enter().err(), Some(Overload::new("limits.readers", 2)), "one past it");
        drop(inside);
        assert!(reads.enter().is_ok());
    }

    #[test]
    fn without_room_ahead_readers_get_small_pieces() {
        let reads = reads(&["limits.read_ahead_bytes=1000000"]);
        let mut large = reads.ahead(1_000_000);
        assert_eq!(large.bytes, 1_000_000);
        assert_eq!(reads.ahead(500_000).bytes, READ_BYTES_MIN);
        // Less was found than was asked for.
        large.keep(400_000);
        assert_eq!(reads.ahead(600_000).bytes, 600_000);
        drop(large);
        assert_eq!(reads.ahead(1_000_000).bytes, 1_000_000);
    }
}

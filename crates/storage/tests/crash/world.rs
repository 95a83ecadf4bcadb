//! Several replicas on one storage, each with its reference, and the history of all of them together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use fastrand::Rng;
use futures::FutureExt as _;
use quorate_model::{Offset, ReplicaId};
use quorate_storage::{Completion, RaftLog, StateStore, Storage, StorageError, TailCacheLimits};

use crate::reference::{Op, Reference};

pub(crate) type References = BTreeMap<ReplicaId, Reference>;

/// Three groups, so that their writes share commits.
const REPLICAS: [u64; 3] = [1, 65_536, 65_537];

/// All replicas as they should be after each write that was issued since the storage was opened.
pub(crate) struct History {
    states: Vec<References>,
    /// How many of those writes have been acknowledged as durable; writes complete in order.
    acknowledged: Arc<AtomicUsize>,
}

impl History {
    pub(crate) fn new() -> History {
        let empty = REPLICAS.map(|replica| (ReplicaId::new(replica), Reference::default()));
        History { states: vec![empty.into()], acknowledged: Arc::default() }
    }

    pub(crate) fn latest(&self) -> &References {
        self.states.last().unwrap()
    }

    /// For a disk that lied.
    pub(crate) fn forget_acknowledgements(&mut self) {
        self.acknowledged = Arc::default();
    }

    /// How many writes have been issued.
    fn issued(&self) -> usize {
        self.states.len() - 1
    }

    /// Recovery must give the state after some prefix of the writes, with all acknowledged ones in it.
    /// The history goes on from there. The answer is how many writes were lost.
    pub(crate) fn recovered(&mut self, found: &References) -> usize {
        let acknowledged = self.acknowledged.load(Ordering::SeqCst);
        let survivors = (acknowledged..=self.issued()).rev().find(|prefix| self.states[*prefix] == *found);
        let Some(survivors) = survivors else {
            let earlier = self.states.iter().rposition(|state| state == found);
            panic!(
                "the recovered state is after none of the writes {acknowledged}..={}, \
                 where {acknowledged} were acknowledged (but after {earlier:?}): {found:#?}",
                self.issued()
            );
        };
        let lost = self.issued() - survivors;
        self.states = vec![self.states.swap_remove(survivors)];
        self.acknowledged = Arc::default();
        lost
    }
}

/// The replicas of one opening of a storage.
pub(crate) struct World {
    storage: Storage,
    replicas: BTreeMap<ReplicaId, (RaftLog, StateStore)>,
}

impl World {
    pub(crate) async fn open(storage: &Storage) -> Result<World, StorageError> {
        let mut replicas = BTreeMap::new();
        // Small, so that reads come from memory, from disk, and from both.
        let cache = TailCacheLimits { bytes: 4096 };
        for replica in REPLICAS.map(ReplicaId::new) {
            let log = RaftLog::open(storage, replica, cache).await?;
            replicas.insert(replica, (log, StateStore::new(storage, replica)));
        }
        Ok(World { storage: storage.clone(), replicas })
    }

    /// Everything that can be read, in the form of the references.
    pub(crate) async fn found(&self) -> References {
        let mut found = References::new();
        for (replica, (log, state)) in &self.replicas {
            let segments = state.segments_from(Offset::new(0), usize::MAX).await.unwrap();
            let reference = Reference {
                vote: log.vote(),
                committed: log.committed(),
                purged: log.bounds().purged,
                entries: log.read(0..u64::MAX, u64::MAX).await.unwrap(),
                checkpoint: state.load_checkpoint().await.unwrap(),
                segments: segments.into_iter().map(|segment| (segment.base_offset, segment)).collect(),
            };
            assert_eq!(log.bounds().last, reference.last());
            found.insert(*replica, reference);
        }
        found
    }

    /// Issues one random write.
    pub(crate) fn write(&self, history: &mut History, rng: &mut Rng) -> ReplicaId {
        let replica = ReplicaId::new(*rng.choice(&REPLICAS).unwrap());
        let mut next = history.latest().clone();
        let reference = next.get_mut(&replica).unwrap();
        let op = reference.random_op(rng);
        reference.perform(&op);
        let (log, state) = &self.replicas[&replica];
        self.issue(log, state, op, history);
        history.states.push(next);
        replica
    }

    /// Issues one random write, and checks that what must be readable at once is.
    pub(crate) async fn step(&self, history: &mut History, rng: &mut Rng) {
        let replica = self.write(history, rng);
        let reference = &history.latest()[&replica];
        let (log, state) = &self.replicas[&replica];
        let range = rng.u64(0..30)..rng.u64(0..60);
        let expected: Vec<_> =
            reference.entries.iter().filter(|entry| range.contains(&entry.id.index)).cloned().collect();
        assert_eq!(log.read(range.clone(), u64::MAX).await.unwrap(), expected);
        if let Some(cached) = log.cached(range, u64::MAX) {
            assert_eq!(cached, expected);
        }
        if let Some((offset, segment)) = reference.segments.last_key_value() {
            assert_eq!(state.find_segment(*offset).await.unwrap(), Some(*segment));
        }
    }

    fn issue(&self, log: &RaftLog, state: &StateStore, op: Op, history: &History) {
        let acknowledged = Arc::clone(&history.acknowledged);
        let number = history.issued() + 1;
        let acknowledge = move |result: Result<(), StorageError>| {
            if result.is_ok() {
                let before = acknowledged.swap(number, Ordering::SeqCst);
                assert!(before < number, "completions run in the order of the writes");
            }
        };
        match op {
            Op::Append(entries) => log.append(entries, Completion::call(acknowledge)),
            // Polled once: enqueued, and then forgotten by its caller.
            Op::SaveVote(vote) => drop(log.save_vote(vote).now_or_never()),
            Op::InstallCheckpoint(checkpoint) => {
                drop(state.install_checkpoint(log, &checkpoint).now_or_never());
            }
            Op::SaveCommitted(id) => log.save_committed(Some(id)),
            Op::TruncateAfter(last) => log.truncate_after(last),
            Op::Purge(upto) => drop(log.purge(upto)),
            Op::SaveCheckpoint(checkpoint) => state.save_checkpoint(&checkpoint),
            Op::PutSegment(segment) => state.put_segments(vec![segment]),
        }
    }

    /// Waits until all that was issued is durable.
    pub(crate) async fn settle(&self, history: &History) {
        self.storage.commit(vec![]).await.unwrap();
        history.acknowledged.store(history.issued(), Ordering::SeqCst);
    }

    /// Something that a vote's caller relies on: it waits, and then the vote is durable.
    pub(crate) async fn vote_and_wait(&self, history: &mut History, rng: &mut Rng) {
        let replica = ReplicaId::new(*rng.choice(&REPLICAS).unwrap());
        let vote = Bytes::from(vec![rng.u8(..); 9]);
        let mut next = history.latest().clone();
        next.get_mut(&replica).unwrap().vote = Some(vote.clone());
        history.states.push(next);
        self.replicas[&replica].0.save_vote(vote).await.unwrap();
        history.acknowledged.store(history.issued(), Ordering::SeqCst);
    }
}

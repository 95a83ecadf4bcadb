//! openraft's own conformance suite over our log store and state machine, on both engines.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use quorate_model::{MachineKind, ReplicaId};
use quorate_storage::{RaftLog, RocksOptions, SimDisk, StateStore, Storage, TailCacheLimits};

use crate::apply::{Published, StateMachine};
use crate::log_store::LogStore;
use crate::snapshot::{Cut, CutPoint};
use crate::types::Types;

async fn stores(storage: &Storage) -> (LogStore, StateMachine) {
    let replica = ReplicaId::new(1);
    let log = RaftLog::open(storage, replica, TailCacheLimits::default()).await.unwrap();
    let store = StateStore::new(storage, replica);
    let published = Arc::new(Published::new(MachineKind::Meta));
    let cut = Arc::new(Cut::default());
    let opening = StateMachine::open(MachineKind::Meta, log.clone(), store.clone(), Arc::clone(&cut), published);
    let machine = opening.await.unwrap();
    // The suite purges what no snapshot contains.
    cut.set(Some(CutPoint { index: u64::MAX, log_start: None }));
    (LogStore::new(log, store, cut), machine)
}

struct OnRocks;

impl StoreBuilder<Types, LogStore, StateMachine, tempfile::TempDir> for OnRocks {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, StateMachine), StorageError<Types>> {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open_rocks(dir.path(), &RocksOptions::default()).unwrap();
        let (log, machine) = stores(&storage).await;
        Ok((dir, log, machine))
    }
}

struct OnSimulatedDisk;

impl StoreBuilder<Types, LogStore, StateMachine, SimDisk> for OnSimulatedDisk {
    async fn build(&self) -> Result<(SimDisk, LogStore, StateMachine), StorageError<Types>> {
        let disk = SimDisk::new(|| Duration::ZERO);
        let (log, machine) = stores(&disk.open(Path::new("simulated")).unwrap()).await;
        Ok((disk, log, machine))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn suite_passes_on_rocksdb() {
    Suite::test_all(OnRocks).await.unwrap();
}

#[tokio::test]
async fn suite_passes_on_the_simulated_disk() {
    Suite::test_all(OnSimulatedDisk).await.unwrap();
}

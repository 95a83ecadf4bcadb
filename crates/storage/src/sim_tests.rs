#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
use super::*;
use crate::log_writer::Completion;

fn disk(latency_ms: u64) -> SimDisk {
    SimDisk::new(move || Duration::from_millis(latency_ms))
}

fn open(disk: &SimDisk) -> Storage {
    disk.open(Path::new("sim")).unwrap()
}

fn put(number: u8) -> Vec<RowOp> {
    vec![RowOp::Put { table: Table::Raft, key: vec![number], value: Bytes::from(vec![number]) }]
}

/// The keys of all rows, which are numbers here.
async fn rows(storage: &Storage) -> Vec<u8> {
    let all = vec![0]..vec![0xff];
    let limit = ScanLimit { rows: usize::MAX, bytes: u64::MAX };
    let rows = storage.reader().scan(Table::Raft, all, limit, Direction::Forward).await.unwrap();
    rows.iter().map(|(key, _)| key[0]).collect()
}

#[tokio::test(start_paused = true)]
async fn a_power_loss_takes_a_suffix_of_what_was_not_synced() {
    let mut kept = std::collections::BTreeSet::new();
    for seed in 0..100 {
        fastrand::seed(seed);
        let disk = disk(1);
        let storage = open(&disk);
        storage.commit(put(1)).await.unwrap();
        for number in 2..=5 {
            storage.write_ordered(put(number), Completion::None);
            tokio::task::yield_now().await;
        }
        assert_eq!(rows(&storage).await, [1, 2, 3, 4, 5], "what is not synced can be read");

        disk.crash();
        let survivors = rows(&open(&disk)).await;
        assert_eq!(survivors, (1..=survivors.len() as u8).collect::<Vec<_>>(), "a prefix");
        kept.insert(survivors.len());
    }
    assert_eq!(kept.into_iter().collect::<Vec<_>>(), [1, 2, 3, 4, 5], "every prefix happens, and 1 always stays");
}

#[tokio::test(start_paused = true)]
async fn a_killed_process_leaves_its_writes_in_the_page_cache() {
    let disk = disk(1);
    let storage = open(&disk);
    storage.write_ordered(put(1), Completion::None);
    tokio::task::yield_now().await;
    disk.kill();
    assert_eq!(storage.commit(put(2)).await, Err(StorageError::Closed), "the dead write nothing");

    // Whoever has read it can rely on it.
    assert_eq!(rows(&open(&disk)).await, [1]);
    disk.crash();
    assert_eq!(rows(&open(&disk)).await, [1]);
}

#[tokio::test(start_paused = true)]
async fn a_commit_resolves_after_the_latency_and_a_crash_before_that_is_not_acknowledged() {
    let disk = disk(10);
    let storage = open(&disk);
    let started = tokio::time::Instant::now();
    storage.commit(put(1)).await.unwrap();
    assert_eq!(started.elapsed().as_millis(), 10);

    let pending = tokio::spawn({
        let storage = storage.clone();
        async move { storage.commit(put(2)).await }
    });
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
    disk.crash();
    assert_eq!(pending.await.unwrap(), Err(StorageError::Closed));
}

#[tokio::test(start_paused = true)]
async fn an_injected_failure_stops_the_storage() {
    let disk = disk(1);
    let storage = open(&disk);
    disk.fail_after(1);
    storage.commit(put(1)).await.unwrap();
    let injected = StorageError::Io { detail: "injected failure".to_owned() };
    assert_eq!(storage.commit(put(2)).await, Err(injected.clone()));
    assert_eq!(storage.commit(put(3)).await, Err(injected.clone()), "failed once, failed for ever");
    assert_eq!(storage.failed().await, injected);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_lies_loses_what_it_acknowledged() {
    let disk = disk(1);
    disk.acknowledge_early(Duration::from_millis(50));
    let storage = open(&disk);
    storage.commit(put(1)).await.unwrap();
    tokio::task::yield_now().await;
    tokio::time::advance(Duration::from_millis(51)).await;
    storage.commit(put(2)).await.unwrap();
    assert_eq!(disk.crash(), 1);
    assert_eq!(rows(&open(&disk)).await, [1], "the first was synced in the end");
}

#[tokio::test(start_paused = true)]
async fn a_disk_is_open_once_at_a_time() {
    let disk = disk(1);
    let storage = open(&disk);
    assert!(matches!(disk.open(Path::new("sim")), Err(OpenError::InUse { dir }) if dir == Path::new("sim")));
    storage.commit(put(1)).await.unwrap();
    storage.close().await;
    assert_eq!(rows(&open(&disk)).await, [1]);
}

#[tokio::test(start_paused = true)]
async fn scans_obey_range_limits_and_direction() {
    let disk = disk(0);
    let storage = open(&disk);
    storage.commit((1..=5).flat_map(put).collect()).await.unwrap();
    let scan = |range: Range<Vec<u8>>, rows, bytes, direction| {
        let rows = storage.reader().scan(Table::Raft, range, ScanLimit { rows, bytes }, direction);
        async { rows.await.unwrap().iter().map(|(key, _)| key[0]).collect::<Vec<_>>() }
    };
    let all = usize::MAX;
    assert_eq!(scan(vec![2]..vec![5], all, u64::MAX, Direction::Forward).await, [2, 3, 4]);
    assert_eq!(scan(vec![2]..vec![5], all, u64::MAX, Direction::Backward).await, [4, 3, 2]);
    assert_eq!(scan(vec![2]..vec![5], 2, u64::MAX, Direction::Forward).await, [2, 3]);
    assert_eq!(scan(vec![2]..vec![5], all, 2, Direction::Forward).await, [2, 3]);
    assert_eq!(scan(vec![2]..vec![5], all, 0, Direction::Forward).await, [2], "one row at least");
    assert_eq!(scan(vec![5]..vec![2], all, u64::MAX, Direction::Forward).await, [0; 0]);
}

//! What a subscription costs that has one message never acknowledged, and one that has as many intervals as may be.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use quorate_model::partition::subscription::{Lane, Place, Settled, Settlement, SubscriptionState};
use quorate_model::{Machine, MachineKind, Offset, PartitionCommand, PartitionId, Reply, SubscriptionId, TopicId};

const SUBSCRIPTION: SubscriptionId = SubscriptionId::new(7);
/// As the server bounds it (`DISPATCH_INTERVALS`).
const INTERVALS: u64 = 100_000;

/// A partition with a subscription that settled these places, so many intervals in each command.
fn settled(lane: Lane, intervals: impl Iterator<Item = (Place, Place)>, at_a_time: usize) -> Machine {
    let mut machine = Machine::new(MachineKind::Partition(PartitionId::new(TopicId::new(1), 0)));
    let begin = PartitionCommand::BeginSubscription { subscription: SUBSCRIPTION, start: Offset::ZERO };
    machine.apply(0, &begin.encode());
    let mut intervals = intervals.peekable();
    for index in 1.. {
        if intervals.peek().is_none() {
            break;
        }
        let mut settled = Settled::default();
        intervals.by_ref().take(at_a_time).for_each(|(start, end)| settled.insert(start..end));
        let settlement = Settlement {
            subscription: SUBSCRIPTION,
            generation: 1,
            settled: BTreeMap::from([(lane, settled)]),
            retries: vec![],
            dead: vec![],
            acknowledged: 1,
            expired: 0,
        };
        let reply = machine.apply(index, &PartitionCommand::Settle(settlement).encode()).reply;
        assert!(matches!(reply, Reply::Subscription(Ok(_))), "{reply:?}");
    }
    machine
}

/// Intervals, and bytes of the checkpoint beyond those of a partition whose subscription has settled nothing.
fn size(machine: &Machine, lane: Lane) -> (usize, usize) {
    let none = settled(Lane::LOG, std::iter::empty(), 1).checkpoint().len();
    let state: &SubscriptionState = machine.as_partition().unwrap().subscriptions().get(SUBSCRIPTION).unwrap();
    (state.lanes()[&lane].len(), machine.checkpoint().len() - none)
}

#[test]
fn ten_million_acknowledged_behind_one_that_never_is_are_a_few_bytes() {
    let at = |offset| Place::at(Offset::new(offset));
    // Offset 7 is never acknowledged. A thousand messages in a row are an interval of one settlement.
    let before = [(at(0), at(7))].into_iter();
    let behind = (0..10_000).map(|batch| (at(8 + batch * 1_000), at(8 + (batch + 1) * 1_000)));
    let (intervals, bytes) = size(&settled(Lane::LOG, before.chain(behind), 1), Lane::LOG);
    println!("{intervals} intervals, {bytes} bytes");
    assert_eq!(intervals, 2);
    assert!(bytes < 32, "{bytes}");
}

#[test]
fn every_second_one_acknowledged_up_to_the_bound_is_a_few_megabytes() {
    let far = 1 << 40;
    let log = (0..INTERVALS).map(|n| (Place::at(Offset::new(far + 2 * n)), Place::at(Offset::new(far + 2 * n + 1))));
    let (intervals, bytes) = size(&settled(Lane::LOG, log, 1_000), Lane::LOG);
    println!("{intervals} intervals, {bytes} bytes");
    assert!(intervals as u64 == INTERVALS && bytes <= 20 * intervals + 100, "{intervals}, {bytes}");
    // Places of delayed messages are the largest.
    let lane = Lane { priority: 9, delayed: true };
    let due = |n| Place { due_ms: 1_800_000_000_000 + n, offset: Offset::new(far + n) };
    let delayed = (0..INTERVALS).map(|n| (due(2 * n), due(2 * n).next()));
    let (intervals, bytes) = size(&settled(lane, delayed, 1_000), lane);
    println!("{intervals} intervals, {bytes} bytes");
    assert!(intervals as u64 == INTERVALS && bytes <= 36 * intervals + 100, "{intervals}, {bytes}");
}

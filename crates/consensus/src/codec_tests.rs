//! Persisted bytes are for ever: golden tests, and round trips through disk and wire forms.

#![allow(clippy::unwrap_used)]

use super::*;

fn membership() -> Membership {
    let nodes = [(1, Member { node: 10 }), (2, Member { node: 20 }), (7, Member { node: 30 })];
    Membership::new(vec![BTreeSet::from([1, 2])], BTreeMap::from(nodes)).unwrap()
}

#[test]
fn vote_bytes_are_golden() {
    let vote = Vote::new_committed(3, 65_536);
    let golden = [1, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    assert_eq!(vote_to_bytes(&vote).as_ref(), golden);
    assert_eq!(vote_from_bytes(&golden).unwrap(), vote);
    let uncommitted = Vote::new(3, 65_536);
    assert_eq!(vote_from_bytes(&vote_to_bytes(&uncommitted)).unwrap(), uncommitted);
}

#[test]
fn membership_bytes_are_golden() {
    let bytes = membership_to_bytes(&membership());
    let mut golden = vec![1, 1, 0, 0, 0, 2, 0, 0, 0];
    for voter in [1u64, 2] {
        golden.extend(voter.to_le_bytes());
    }
    golden.extend(3u32.to_le_bytes());
    for (replica, node) in [(1u64, 10u64), (2, 20), (7, 30)] {
        golden.extend(replica.to_le_bytes());
        golden.extend(node.to_le_bytes());
    }
    assert_eq!(bytes.as_ref(), golden);
    assert_eq!(membership_from_bytes(&bytes).unwrap(), membership());
}

#[test]
fn stored_membership_round_trips_with_and_without_a_log_id() {
    for stored in [
        StoredMembership::default(),
        StoredMembership::new(None, membership()),
        StoredMembership::new(Some(log_id(4, 6)), membership()),
    ] {
        let bytes = stored_membership_to_bytes(&stored);
        assert_eq!(stored_membership_from_bytes(&bytes).unwrap(), stored);
    }
}

#[test]
fn entries_round_trip_through_disk_and_wire() {
    let payloads = [
        EntryPayload::Blank,
        EntryPayload::Normal(Command(Bytes::from_static(b"hello"))),
        EntryPayload::Membership(membership()),
    ];
    for payload in payloads {
        let entry = Entry { log_id: log_id(1, 3), payload };
        let shown = format!("{:?}", entry.payload);
        let through_disk = stored_to_entry(entry_to_stored(entry.clone())).unwrap();
        let through_wire = wire_to_entry(entry_to_wire(entry)).unwrap();
        assert_eq!((through_disk.log_id, format!("{:?}", through_disk.payload)), (log_id(1, 3), shown.clone()));
        assert_eq!((through_wire.log_id, format!("{:?}", through_wire.payload)), (log_id(1, 3), shown));
    }
}

#[test]
fn truncated_and_foreign_bytes_are_named_errors() {
    let whole = stored_membership_to_bytes(&StoredMembership::new(Some(log_id(4, 6)), membership()));
    for len in 0..whole.len() {
        let error = stored_membership_from_bytes(&whole[..len]).unwrap_err().to_string();
        assert!(error.contains("membership"), "{error}");
    }
    assert!(vote_from_bytes(&[9, 0]).unwrap_err().to_string().contains("format version 9"));
    let unknown_kind = wire::Entry { log_id: Some(log_id_to_wire(&log_id(1, 1))), kind: 9, body: Bytes::new() };
    assert!(wire_to_entry(unknown_kind).unwrap_err().to_string().contains("unknown kind 9"));
}

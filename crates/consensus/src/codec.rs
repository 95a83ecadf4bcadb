//! Our own bytes for openraft's types, on disk and on the wire. openraft's serde forms change between
//! releases; these don't. Byte layouts are listed in `docs/data-layout.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::EntryPayload;
use openraft::vote::leader_id_std::CommittedLeaderId;
use quorate_proto::internal as wire;
use quorate_storage::{EntryId, EntryKind, LogEntry};

use crate::types::{Command, Entry, LogId, Member, Membership, StoredMembership, Vote};

const FORMAT_VERSION: u8 = 1;

// --- log ids ---

pub(crate) fn log_id_to_entry_id(id: &LogId) -> EntryId {
    EntryId { term: id.leader_id.term, index: id.index }
}

pub(crate) fn entry_id_to_log_id(id: EntryId) -> LogId {
    log_id(id.term, id.index)
}

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term), index)
}

pub(crate) fn log_id_to_wire(id: &LogId) -> wire::LogId {
    wire::LogId { term: id.leader_id.term, index: id.index }
}

pub(crate) fn wire_to_log_id(id: wire::LogId) -> LogId {
    log_id(id.term, id.index)
}

// --- votes ---

pub(crate) fn vote_to_bytes(vote: &Vote) -> Bytes {
    let mut out = BytesMut::with_capacity(18);
    out.put_u8(FORMAT_VERSION);
    out.put_u64_le(vote.leader_id.term);
    out.put_u64_le(vote.leader_id.voted_for);
    out.put_u8(u8::from(vote.committed));
    out.freeze()
}

pub(crate) fn vote_from_bytes(bytes: &[u8]) -> io::Result<Vote> {
    let mut input = versioned("vote", bytes)?;
    let (term, voted_for, committed) =
        (u64_le("vote", &mut input)?, u64_le("vote", &mut input)?, byte("vote", &mut input)?);
    Ok(if committed == 1 { Vote::new_committed(term, voted_for) } else { Vote::new(term, voted_for) })
}

pub(crate) fn vote_to_wire(vote: &Vote) -> wire::RaftVote {
    wire::RaftVote { term: vote.leader_id.term, voted_for: vote.leader_id.voted_for, committed: vote.committed }
}

pub(crate) fn wire_to_vote(vote: wire::RaftVote) -> Vote {
    if vote.committed { Vote::new_committed(vote.term, vote.voted_for) } else { Vote::new(vote.term, vote.voted_for) }
}

// --- memberships ---

pub(crate) fn membership_to_bytes(membership: &Membership) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(FORMAT_VERSION);
    let configs = membership.get_joint_config();
    put_len(&mut out, configs.len());
    for config in configs {
        put_len(&mut out, config.len());
        for replica in config {
            out.put_u64_le(*replica);
        }
    }
    put_len(&mut out, membership.nodes().count());
    for (replica, member) in membership.nodes() {
        out.put_u64_le(*replica);
        out.put_u64_le(member.node);
    }
    out.freeze()
}

pub(crate) fn membership_from_bytes(bytes: &[u8]) -> io::Result<Membership> {
    const WHAT: &str = "membership";
    let mut input = versioned(WHAT, bytes)?;
    let mut configs = Vec::new();
    for _ in 0..u32_le(WHAT, &mut input)? {
        let mut config = BTreeSet::new();
        for _ in 0..u32_le(WHAT, &mut input)? {
            config.insert(u64_le(WHAT, &mut input)?);
        }
        configs.push(config);
    }
    let mut nodes = BTreeMap::new();
    for _ in 0..u32_le(WHAT, &mut input)? {
        let replica = u64_le(WHAT, &mut input)?;
        nodes.insert(replica, Member { node: u64_le(WHAT, &mut input)? });
    }
    // An initial, empty membership has no configuration at all; openraft builds it by default.
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes).map_err(|error| invalid(WHAT, &error.to_string()))
}

/// Log id (absent: flag 0) followed by the membership.
pub(crate) fn stored_membership_to_bytes(stored: &StoredMembership) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(FORMAT_VERSION);
    match stored.log_id() {
        None => out.put_u8(0),
        Some(id) => {
            out.put_u8(1);
            out.put_u64_le(id.leader_id.term);
            out.put_u64_le(id.index);
        }
    }
    out.put(membership_to_bytes(stored.membership()));
    out.freeze()
}

pub(crate) fn stored_membership_from_bytes(bytes: &[u8]) -> io::Result<StoredMembership> {
    const WHAT: &str = "stored membership";
    let mut input = versioned(WHAT, bytes)?;
    let log_id = if byte(WHAT, &mut input)? == 0 {
        None
    } else {
        let (term, index) = (u64_le(WHAT, &mut input)?, u64_le(WHAT, &mut input)?);
        Some(log_id(term, index))
    };
    Ok(StoredMembership::new(log_id, membership_from_bytes(input)?))
}

// --- entries ---

pub(crate) fn entry_to_stored(entry: Entry) -> LogEntry {
    let id = log_id_to_entry_id(&entry.log_id);
    let (kind, body) = match entry.payload {
        EntryPayload::Blank => (EntryKind::Blank, Bytes::new()),
        EntryPayload::Normal(Command(bytes)) => (EntryKind::Command, bytes),
        EntryPayload::Membership(membership) => (EntryKind::Membership, membership_to_bytes(&membership)),
    };
    LogEntry { id, kind, body }
}

pub(crate) fn stored_to_entry(stored: LogEntry) -> io::Result<Entry> {
    let payload = match stored.kind {
        EntryKind::Blank => EntryPayload::Blank,
        EntryKind::Command => EntryPayload::Normal(Command(stored.body)),
        EntryKind::Membership => EntryPayload::Membership(membership_from_bytes(&stored.body)?),
    };
    Ok(Entry { log_id: entry_id_to_log_id(stored.id), payload })
}

pub(crate) fn entry_to_wire(entry: Entry) -> wire::Entry {
    let log_id = Some(log_id_to_wire(&entry.log_id));
    let stored = entry_to_stored(entry);
    wire::Entry { log_id, kind: u32::from(stored.kind as u8), body: stored.body }
}

pub(crate) fn wire_to_entry(entry: wire::Entry) -> io::Result<Entry> {
    let id = entry.log_id.ok_or_else(|| invalid("entry", "log id is absent"))?;
    let kind = u8::try_from(entry.kind)
        .ok()
        .and_then(EntryKind::from_byte)
        .ok_or_else(|| invalid("entry", &format!("unknown kind {}", entry.kind)))?;
    stored_to_entry(LogEntry { id: log_id_to_entry_id(&wire_to_log_id(id)), kind, body: entry.body })
}

// --- reading ---

fn invalid(what: &str, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what}: {why}"))
}

fn versioned<'a>(what: &str, bytes: &'a [u8]) -> io::Result<&'a [u8]> {
    match bytes.split_first() {
        Some((&FORMAT_VERSION, rest)) => Ok(rest),
        Some((other, _)) => Err(invalid(what, &format!("format version {other}, this build knows {FORMAT_VERSION}"))),
        None => Err(invalid(what, "empty")),
    }
}

fn byte(what: &str, input: &mut &[u8]) -> io::Result<u8> {
    input.try_get_u8().map_err(|_| invalid(what, "truncated"))
}

fn u32_le(what: &str, input: &mut &[u8]) -> io::Result<u32> {
    input.try_get_u32_le().map_err(|_| invalid(what, "truncated"))
}

fn u64_le(what: &str, input: &mut &[u8]) -> io::Result<u64> {
    input.try_get_u64_le().map_err(|_| invalid(what, "truncated"))
}

#[expect(clippy::cast_possible_truncation, reason = "a membership has a handful of replicas")]
fn put_len(out: &mut BytesMut, len: usize) {
    out.put_u32_le(len as u32);
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;

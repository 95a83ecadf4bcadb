//! Bugs that are planted on purpose, so that the tests can show what they would notice.
//!
//! A test that has never failed proves nothing. `cargo xtask sabotage` builds the workspace with the feature `sabotage`,
//! switches on one bug after another through the environment variable `QUORATE_SABOTAGE`, and expects the test that is
//! named for it to fail. Without the feature [`is_planted`] is a constant `false`, and the compiler removes every
//! planted line; a release build with the feature doesn't compile.
//!
//! Each bug is one that somebody might have written. Where it is planted stands `is_planted(Bug::…)`.

#[cfg(all(feature = "sabotage", not(debug_assertions)))]
compile_error!("planted bugs are for tests: a release build must not be able to contain them");

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A write is acknowledged when the operating system has it, before the disk has.
    AckBeforeFsync,
    /// A vote is given before it is durable: after a power loss the node votes again in the same term.
    VoteNotSynced,
    /// A write or fsync that failed is taken for done.
    FsyncErrorIgnored,
    /// Entries that were taken back can still be read from memory.
    TruncatedEntriesCached,
    /// A leader's checkpoint is installed in two writes; what comes between them leaves a state ahead of its log.
    CheckpointInTwoSteps,
    /// Recovery believes that a write-ahead log ends where its first damaged record is.
    FlipTakenForTornTail,
    /// A reader that comes to the end of an index segment begins the next one a record late.
    RecordSkippedAtBorder,
    /// The checkpoint at which a log is cut goes with what lies before it: nothing is left to follow the rest from.
    PurgeTakesCheckpoint,
    /// The state in a snapshot is the one before the entry that the snapshot claims to end with.
    SnapshotLacksLastEntry,
    /// A follower acknowledges entries that it hasn't synced: they are on one disk fewer than a quorum.
    FollowersDoNotSync,
    /// A leader counts what it has sent as what a follower has on disk, and so commits on one replica too few.
    SentCountedAsStored,
    /// A follower takes what it received for committed: it applies and serves what may yet be taken back.
    ReceivedTakenForCommitted,
    /// A leader answers reads without asking a majority whether it still leads.
    StaleLeaderReads,
    /// A forwarded write is answered when the leader has taken it in, before a quorum has it.
    AnswerBeforeCommit,
    /// A disk that isn't the one that was registered may speak for its node: a wiped replica votes again.
    WipedDiskWelcome,
    /// What waits for a leader's disk has no bound.
    UnboundedDiskQueue,
    /// Partitions that the cluster map doesn't mention are deleted, also while it isn't known yet.
    UnmentionedDataDeleted,
    /// A partition's checkpoint lacks the table that recognises repeated batches.
    DedupMissingInCheckpoint,
    /// Only the replica that took a batch in remembers its producer: after a failover repeats are appended again.
    DedupLostAtFailover,
    /// A client that lost its connection sends what was not answered under a new producer epoch.
    RepeatUnderNewEpoch,
    /// A client reports a batch as failed although an attempt may have been appended.
    UnknownReportedAsFailed,
    /// Retention removes the stretch of the log that a bound runs through, rather than the one before it.
    RetentionTrimsTooMuch,
    /// Only the leader remembers what a subscription has settled: after a failover all of it is delivered again.
    AckLostAtFailover,
    /// A subscriber is told that its acknowledgement is certain before a quorum has it.
    AckBeforeCommit,
    /// A message that was returned lets the next one of its key go, rather than hold it up until it is settled.
    OrderBrokenByNack,
    /// A delayed message is delivered when it is nearly due.
    EarlyDelivery,
    /// A dead letter is published without a stamp: who publishes it again, or in a fallen leader's place, publishes another.
    DeadLetterTwice,
}

impl Bug {
    /// Every bug.
    pub const ALL: [Bug; 27] = [
        Bug::AckBeforeFsync,
        Bug::VoteNotSynced,
        Bug::FsyncErrorIgnored,
        Bug::TruncatedEntriesCached,
        Bug::CheckpointInTwoSteps,
        Bug::FlipTakenForTornTail,
        Bug::RecordSkippedAtBorder,
        Bug::PurgeTakesCheckpoint,
        Bug::SnapshotLacksLastEntry,
        Bug::FollowersDoNotSync,
        Bug::SentCountedAsStored,
        Bug::ReceivedTakenForCommitted,
        Bug::StaleLeaderReads,
        Bug::AnswerBeforeCommit,
        Bug::WipedDiskWelcome,
        Bug::UnboundedDiskQueue,
        Bug::UnmentionedDataDeleted,
        Bug::DedupMissingInCheckpoint,
        Bug::DedupLostAtFailover,
        Bug::RepeatUnderNewEpoch,
        Bug::UnknownReportedAsFailed,
        Bug::RetentionTrimsTooMuch,
        Bug::AckLostAtFailover,
        Bug::AckBeforeCommit,
        Bug::OrderBrokenByNack,
        Bug::EarlyDelivery,
        Bug::DeadLetterTwice,
    ];

    /// As the environment variable names it: the variant's words with hyphens between them.
    pub fn name(self) -> String {
        let mut name = String::new();
        for character in format!("{self:?}").chars() {
            if character.is_ascii_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(character.to_ascii_lowercase());
        }
        name
    }
}

/// Whether this bug is planted in this process.
#[cfg(not(feature = "sabotage"))]
#[inline(always)]
pub const fn is_planted(_: Bug) -> bool {
    false
}

/// Whether this bug is planted in this process.
#[cfg(feature = "sabotage")]
pub fn is_planted(bug: Bug) -> bool {
    planted() == Some(bug)
}

/// What a program must say before it does anything; none of an honest build.
pub fn warning() -> Option<String> {
    #[cfg(feature = "sabotage")]
    return Some(match planted() {
        Some(bug) => format!("SABOTAGED on purpose, with the bug {}: everything in here may be lost", bug.name()),
        None => "SABOTAGED: this build contains planted bugs, none of which is switched on".to_owned(),
    });
    #[cfg(not(feature = "sabotage"))]
    None
}

/// The bug that the environment names.
///
/// # Panics
/// If there is no such bug: a test with a bug that isn't there would pass and seem to have missed it.
#[cfg(feature = "sabotage")]
#[expect(clippy::disallowed_methods, reason = "which bug is planted is the same for every replica of the process")]
fn planted() -> Option<Bug> {
    static PLANTED: std::sync::OnceLock<Option<Bug>> = std::sync::OnceLock::new();
    *PLANTED.get_or_init(|| {
        let name = std::env::var("QUORATE_SABOTAGE").ok()?;
        let known = Bug::ALL.into_iter().find(|bug| bug.name() == name);
        Some(known.unwrap_or_else(|| panic!("QUORATE_SABOTAGE={name}: there is no such bug")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_variant_in_words() {
        assert_eq!(Bug::AckBeforeFsync.name(), "ack-before-fsync");
        let mut names = Bug::ALL.map(Bug::name).to_vec();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), Bug::ALL.len(), "every bug is listed once");
    }

    #[cfg(not(feature = "sabotage"))]
    #[test]
    fn an_honest_build_has_no_bug_planted() {
        const { assert!(!is_planted(Bug::AckBeforeFsync)) };
        assert_eq!(warning(), None);
    }
}

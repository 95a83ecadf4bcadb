//! Which test catches which bug, by what words in its output, and within what time.

use std::fmt;
use std::time::Duration;

/// A bug and what catches it. A bug may have several rows: each must catch it.
pub(crate) struct Row {
    pub(crate) bug: &'static str,
    pub(crate) rung: Rung,
    /// Must be in the output: the property that doesn't hold, or the assertion that fails. Anything else that goes wrong
    /// is no proof.
    pub(crate) caught_by: &'static str,
    seconds: u64,
}

/// What runs.
pub(crate) enum Rung {
    /// One test of the workspace.
    Test {
        /// Its rung in docs/testing.md.
        rung: u8,
        /// The program that it is in: a file of integration tests, or a crate.
        target: &'static str,
        /// Its name within the program.
        test: &'static str,
    },
    /// The simulation, one seed after the other until one notices.
    Simulation { seeds: &'static [u64], options: &'static [&'static str] },
}

impl Row {
    /// A run that takes longer shows nothing. Several times what it takes on an idle machine of two cores.
    pub(crate) fn limit(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

impl Rung {
    /// The target of integration tests that has to be built for it.
    pub(crate) fn integration_test(&self) -> Option<&'static str> {
        match self {
            Rung::Test { target, .. } if !target.starts_with("quorate_") => Some(target),
            _ => None,
        }
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rung::Test { rung, target, test } => write!(out, "{rung}, {target}: `{test}`"),
            Rung::Simulation { options, .. } => write!(out, "4, simulation `{}`", options.join(" ")),
        }
    }
}

const fn test(
    bug: &'static str,
    (rung, target, test): (u8, &'static str, &'static str),
    caught_by: &'static str,
    seconds: u64,
) -> Row {
    Row { bug, rung: Rung::Test { rung, target, test }, caught_by, seconds }
}

const fn simulation(
    bug: &'static str,
    (seeds, options): (&'static [u64], &'static [&'static str]),
    caught_by: &'static str,
    seconds: u64,
) -> Row {
    Row { bug, rung: Rung::Simulation { seeds, options }, caught_by, seconds }
}

/// In these seeds retention removes the head of the log, so that nodes come back through snapshots.
const WITH_RETENTION: &[u64] = &[3, 6, 9, 12, 15];
const SEEDS: &[u64] = &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

const CRASH: (u8, &str, &str) = (2, "crash", "a_simulated_disk_crashed_at_any_step_recovers_a_prefix");
const PREFIX: &str = "the recovered state is after none of the writes";

pub(crate) const ROWS: &[Row] = &[
    test("ack-before-fsync", CRASH, PREFIX, 60),
    test("vote-not-synced", CRASH, PREFIX, 60),
    test(
        "fsync-error-ignored",
        (2, "quorate_storage", "log_writer::tests::after_a_failure_nothing_is_written_and_everything_fails"),
        "the loop ends",
        20,
    ),
    test("truncated-entries-cached", CRASH, "assertion `left == right` failed", 60),
    test("checkpoint-in-two-steps", CRASH, "assertion `left == right` failed", 60),
    test(
        "flip-taken-for-torn-tail",
        (2, "disk", "damage::damage_before_a_later_commit_is_proved_by_that_commit"),
        "was acknowledged",
        120,
    ),
    test(
        "record-skipped-at-border",
        (2, "records", "every_offset_is_read_with_every_bound"),
        "assertion `left == right` failed",
        60,
    ),
    test(
        "purge-takes-checkpoint",
        (3, "quorate_consensus", "retention_tests::a_follower_behind_the_log_start_comes_back_to_the_same_state"),
        "replica did not catch up",
        120,
    ),
    test(
        "snapshot-lacks-last-entry",
        (3, "quorate_consensus", "retention_tests::a_follower_behind_the_log_start_comes_back_to_the_same_state"),
        "assertion `left == right` failed",
        120,
    ),
    simulation(
        "snapshot-lacks-last-entry",
        (WITH_RETENTION, &["--workload", "log", "--faults", "crash,power,partition", "--seconds", "40"]),
        "StateMachineSafety",
        60,
    ),
    simulation(
        "followers-do-not-sync",
        (SEEDS, &["--workload", "log", "--faults", "blackout", "--seconds", "40"]),
        "CommittedOnQuorum",
        60,
    ),
    simulation(
        "sent-counted-as-stored",
        (SEEDS, &["--workload", "log", "--faults", "blackout", "--seconds", "40"]),
        "CommittedOnQuorum",
        60,
    ),
    test(
        "received-taken-for-committed",
        (3, "quorate_consensus", "flow_tests::a_follower_shows_nothing_that_no_quorum_has"),
        "a follower shows what one of three disks has",
        90,
    ),
    simulation(
        "received-taken-for-committed",
        (SEEDS, &["--workload", "log", "--faults", "all", "--seconds", "20"]),
        "CommittedOnQuorum",
        60,
    ),
    simulation(
        "stale-leader-reads",
        (SEEDS, &["--workload", "log", "--faults", "partition", "--seconds", "40"]),
        "stale read:",
        60,
    ),
    test(
        "answer-before-commit",
        (
            3,
            "quorate_consensus",
            "flow_tests::a_leader_without_a_quorum_gives_the_room_back_when_the_sender_has_given_up",
        ),
        "`Result::unwrap_err()` on an `Ok` value",
        90,
    ),
    simulation(
        "answer-before-commit",
        (SEEDS, &["--workload", "log", "--faults", "all", "--seconds", "20"]),
        "lost write:",
        60,
    ),
    test(
        "wiped-disk-welcome",
        (3, "quorate_consensus", "cluster_tests::a_node_whose_disk_was_replaced_is_not_heard"),
        "groups.reachable(NodeId::new(",
        90,
    ),
    test(
        "unbounded-disk-queue",
        (3, "quorate_consensus", "flow_tests::a_leader_whose_own_disk_falls_behind_takes_no_more_than_its_queue"),
        "limits.queued_bytes",
        90,
    ),
    test(
        "unmentioned-data-deleted",
        (5, "three_nodes", "what_was_acknowledged_survives_the_stop_of_any_node_and_of_all"),
        "assertion `left == right` failed",
        180,
    ),
    test(
        "dedup-missing-in-checkpoint",
        (1, "partition_reference", "the_machine_agrees_with_the_reference"),
        "Test failed: assertion failed: `(left == right)`",
        120,
    ),
    simulation(
        "dedup-missing-in-checkpoint",
        (WITH_RETENTION, &["--workload", "log", "--faults", "all", "--seconds", "20"]),
        "duplicate:",
        60,
    ),
    simulation(
        "dedup-lost-at-failover",
        (SEEDS, &["--workload", "log", "--faults", "all", "--seconds", "20"]),
        "duplicate:",
        60,
    ),
    simulation(
        "repeat-under-new-epoch",
        (SEEDS, &["--workload", "log", "--faults", "all", "--seconds", "20"]),
        "duplicate:",
        60,
    ),
    simulation(
        "unknown-reported-as-failed",
        (SEEDS, &["--workload", "log", "--faults", "all", "--seconds", "20"]),
        "aborted read:",
        60,
    ),
    test(
        "retention-trims-too-much",
        (1, "quorate_model", "partition::stretches::tests::each_bound_keeps_at_least_what_it_says"),
        "assertion `left == right` failed",
        20,
    ),
    simulation(
        "retention-trims-too-much",
        (WITH_RETENTION, &["--workload", "log", "--faults", "all", "--seconds", "20"]),
        "trimmed too much:",
        60,
    ),
    simulation(
        "ack-lost-at-failover",
        (SEEDS, &["--workload", "queue", "--faults", "all", "--seconds", "20"]),
        "redelivered:",
        60,
    ),
    simulation(
        "ack-before-commit",
        (SEEDS, &["--workload", "queue", "--faults", "all", "--seconds", "20"]),
        "redelivered:",
        60,
    ),
    simulation(
        "order-broken-by-nack",
        (SEEDS, &["--workload", "queue", "--faults", "all", "--seconds", "20"]),
        "key order:",
        60,
    ),
    simulation("early-delivery", (SEEDS, &["--workload", "queue", "--faults", "all", "--seconds", "20"]), "early:", 60),
    simulation(
        "dead-letter-twice",
        (SEEDS, &["--workload", "queue", "--faults", "all", "--seconds", "20"]),
        "dead letter twice:",
        60,
    ),
];

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use super::{Effect, Lane, LaneSettings, Outcome, Queued};
use crate::error::{Cause, ClientError};
use bytes::Bytes;
use quorate_model::{Executed, Reason, Record};
use std::time::Duration;
use tokio::time::Instant;

const LINGER: Duration = Duration::from_millis(5);
const PAUSE: Duration = Duration::from_millis(20);
const ATTEMPT: Duration = Duration::from_secs(10);
const DELIVERY: Duration = Duration::from_secs(60);

/// A lane on a clock that stands still until told otherwise. Tickets are the records' names.
struct Story {
    lane: Lane<&'static str>,
    now: Instant,
}

impl Story {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut LaneSettings)) -> Self {
        let mut settings = LaneSettings {
            batch_records: 2,
            batch_bytes: 1000,
            linger: LINGER,
            in_flight: 3,
            attempt: ATTEMPT,
            idempotent: true,
        };
        change(&mut settings);
        Self { lane: Lane::new(settings), now: Instant::now() }
    }

    fn push(&mut self, names: &[&'static str]) {
        for name in names {
            self.push_bytes(name, 10);
        }
    }

    fn push_bytes(&mut self, ticket: &'static str, bytes: usize) {
        let record = Record { data: Bytes::from_static(ticket.as_bytes()), ..Record::default() };
        let queued = Queued { record, bytes, accepted_at: self.now, deadline: self.now + DELIVERY, ticket };
        self.lane.push(queued);
    }

    fn poll(&mut self) -> Vec<Effect<&'static str>> {
        self.lane.poll(self.now, true)
    }

    fn appended(&mut self, batch: u64, attempt: u32, base_offset: u64) -> Vec<Effect<&'static str>> {
        self.lane.answered(self.now, batch, attempt, Ok((base_offset, false)), |_| PAUSE)
    }

    fn refused(&mut self, batch: u64, attempt: u32, reason: Reason) -> Vec<Effect<&'static str>> {
        self.lane.answered(self.now, batch, attempt, Err(error(reason)), |_| PAUSE)
    }

    fn cut_off(&mut self) -> Vec<Effect<&'static str>> {
        self.lane.disconnected(self.now, &ClientError::new(Cause::ConnectionLost, ""), PAUSE)
    }

    /// Epoch, sequence and contents under which a batch would be encoded.
    fn stamp(&mut self, batch: u64) -> (u32, u64, String) {
        let mut seen = None;
        let _ = self.lane.encoded(batch, |stamp, records| {
            let names: Vec<_> =
                records.iter().map(|record| String::from_utf8_lossy(&record.data).into_owned()).collect();
            seen = Some((stamp.epoch, stamp.sequence, names.join(" ")));
            // An encoding that failed is not kept, so that the next look sees the stamp again.
            Err::<Bytes, ()>(())
        });
        seen.unwrap()
    }
}

fn error(reason: Reason) -> ClientError {
    ClientError::known(reason, "")
}

fn send(batch: u64, attempt: u32) -> Effect<&'static str> {
    Effect::Transmit { batch, attempt }
}

fn done(tickets: &[&'static str], base_offset: u64) -> Effect<&'static str> {
    Effect::Resolve { tickets: tickets.to_vec(), outcome: Outcome::Appended { base_offset, duplicate: false } }
}

fn failed(tickets: &[&'static str], reason: Reason) -> Effect<&'static str> {
    Effect::Resolve { tickets: tickets.to_vec(), outcome: Outcome::Failed(error(reason).with_executed(Executed::No)) }
}

fn unknown(tickets: &[&'static str], cause: Cause) -> Effect<&'static str> {
    let error = ClientError::new(cause, "").with_executed(Executed::Maybe);
    Effect::Resolve { tickets: tickets.to_vec(), outcome: Outcome::Unknown(error) }
}

#[test]
fn batches_end_at_the_count_and_a_lone_message_on_an_idle_partition_goes_at_once() {
    let mut story = Story::new();
    story.push(&["a", "b", "c"]);
    // Full; and c behind it waits for company.
    assert_eq!(story.poll(), [send(0, 1)]);
    assert_eq!(story.stamp(0), (0, 0, "a b".to_owned()));
    assert_eq!(story.appended(0, 1, 40), [done(&["a", "b"], 40)]);
    // Nothing is under way any more, so waiting would only cost time.
    assert_eq!(story.poll(), [send(1, 1)]);
    assert_eq!(story.stamp(1), (0, 2, "c".to_owned()));
}

#[test]
fn behind_a_batch_in_flight_a_message_waits_for_the_linger_and_no_longer() {
    let mut story = Story::new();
    story.push(&["a"]);
    assert_eq!(story.poll(), [send(0, 1)]);
    story.push(&["b"]);
    assert_eq!(story.poll(), []);
    assert_eq!(story.lane.wakeup(true), Some(story.now + LINGER));
    story.now += LINGER;
    assert_eq!(story.poll(), [send(1, 1)]);
}

#[test]
fn batches_end_at_the_bytes_and_a_larger_message_travels_alone() {
    let mut story = Story::with(|settings| settings.batch_records = 100);
    story.push_bytes("a", 600);
    story.push_bytes("b", 400);
    story.push_bytes("c", 1);
    story.push_bytes("d", 5000);
    story.lane.flush();
    assert_eq!(story.poll(), [send(0, 1), send(1, 1), send(2, 1)]);
    assert_eq!(story.stamp(0).2, "a b");
    assert_eq!(story.stamp(1).2, "c");
    assert_eq!(story.stamp(2).2, "d");
}

#[test]
fn a_flush_sends_what_is_queued_without_lingering_but_not_what_comes_after() {
    let mut story = Story::new();
    story.push(&["a", "b", "c"]);
    story.lane.flush();
    assert_eq!(story.poll(), [send(0, 1), send(1, 1)]);
    story.push(&["d"]);
    assert_eq!(story.poll(), []);
    assert_eq!(story.lane.settled(), 0);
    story.appended(1, 1, 2);
    // c is on disk, but a and b before it are not known to be.
    assert_eq!(story.lane.settled(), 0);
    story.appended(0, 1, 0);
    assert_eq!(story.lane.settled(), 3);
}

#[test]
fn no_more_batches_are_in_flight_than_the_window_allows() {
    let mut story = Story::new();
    story.push(&["a", "b", "c", "d", "e", "f", "g", "h"]);
    assert_eq!(story.poll(), [send(0, 1), send(1, 1), send(2, 1)]);
    assert!(story.lane.is_stalled());
    assert_eq!(story.lane.wakeup(true), Some(story.now + ATTEMPT));
    story.appended(0, 1, 0);
    assert_eq!(story.poll(), [send(3, 1)]);
    assert_eq!(story.stamp(3), (0, 6, "g h".to_owned()));
}

#[test]
fn after_a_refusal_the_batches_are_sent_again_in_order_the_first_one_alone() {
    let mut story = Story::new();
    story.push(&["a", "b", "c", "d", "e", "f"]);
    story.poll();
    assert_eq!(story.refused(0, 1, Reason::NoLeader), []);
    // The others fail for the same reason, or because the first is missing. Neither is news.
    assert_eq!(story.refused(1, 1, Reason::NoLeader), []);
    assert_eq!(story.refused(2, 1, Reason::SequenceGap), []);
    assert_eq!(story.poll(), []);
    assert_eq!(story.lane.wakeup(true), Some(story.now + PAUSE));
    story.now += PAUSE;
    assert_eq!(story.poll(), [send(0, 2)]);
    assert_eq!(story.appended(0, 2, 0), [done(&["a", "b"], 0)]);
    assert_eq!(story.poll(), [send(1, 2), send(2, 2)]);
    assert_eq!(story.stamp(1), (0, 2, "c d".to_owned()));
}

#[test]
fn a_refusal_in_the_middle_leaves_its_predecessor_under_way() {
    let mut story = Story::new();
    story.push(&["a", "b", "c", "d", "e", "f"]);
    story.poll();
    story.refused(1, 1, Reason::Overloaded);
    story.now += PAUSE;
    // Nothing overtakes the first batch, whose answer is still to come.
    assert_eq!(story.poll(), []);
    story.appended(0, 1, 0);
    assert_eq!(story.poll(), [send(1, 2), send(2, 2)]);
}

#[test]
fn a_better_way_ends_the_pause() {
    let mut story = Story::new();
    story.push(&["a"]);
    story.poll();
    story.refused(0, 1, Reason::NoLeader);
    assert_eq!(story.poll(), []);
    story.lane.resume();
    assert_eq!(story.poll(), [send(0, 2)]);
}

#[test]
fn after_a_lost_connection_the_same_stamps_are_sent_again_and_a_late_answer_still_counts() {
    let mut story = Story::new();
    story.push(&["a", "b", "c", "d"]);
    story.poll();
    assert_eq!(story.cut_off(), []);
    story.now += PAUSE;
    assert_eq!(story.poll(), [send(0, 2)]);
    assert_eq!(story.stamp(0), (0, 0, "a b".to_owned()));
    let duplicate = story.lane.answered(story.now, 0, 2, Ok((7, true)), |_| PAUSE);
    let outcome = Outcome::Appended { base_offset: 7, duplicate: true };
    assert_eq!(duplicate, [Effect::Resolve { tickets: vec!["a", "b"], outcome }]);
    assert_eq!(story.poll(), [send(1, 2)]);
    assert_eq!(story.appended(1, 1, 9), [done(&["c", "d"], 9)]);
    assert_eq!(story.appended(1, 2, 9), []);
    assert!(story.lane.is_empty());
}

#[test]
fn at_the_deadline_what_was_only_refused_has_failed_and_the_rest_moves_to_the_next_epoch() {
    let mut story = Story::new();
    story.push(&["a", "b"]);
    story.poll();
    story.now += Duration::from_secs(1);
    story.push(&["c", "d"]);
    story.poll();
    story.refused(0, 1, Reason::NoLeader);
    story.refused(1, 1, Reason::SequenceGap);
    story.now += DELIVERY - Duration::from_secs(1);
    let failed = Outcome::Failed(ClientError::deadline("", Executed::No));
    // Nothing behind the failed batch can have been appended: it is numbered anew and sent.
    assert_eq!(story.poll(), [Effect::Resolve { tickets: vec!["a", "b"], outcome: failed }, send(1, 2)]);
    assert_eq!(story.stamp(1), (1, 0, "c d".to_owned()));
}

#[test]
fn at_the_deadline_what_was_sent_without_an_answer_is_unknown_and_the_next_epoch_begins_at_zero() {
    let mut story = Story::new();
    story.push(&["a", "b", "c", "d"]);
    story.poll();
    story.cut_off();
    story.now += DELIVERY;
    let effects = story.poll();
    assert_eq!(effects, [unknown(&["a", "b"], Cause::Deadline), unknown(&["c", "d"], Cause::Deadline)]);
    story.push(&["e"]);
    assert_eq!(story.poll(), [send(2, 1)]);
    let (epoch, sequence, names) = story.stamp(2);
    assert!(epoch > 0);
    assert_eq!((sequence, names.as_str()), (0, "e"));
}

#[test]
fn behind_an_unknown_batch_one_that_never_went_out_is_numbered_anew() {
    let mut story = Story::new();
    story.push(&["a", "b"]);
    story.poll();
    story.now += Duration::from_secs(1);
    story.cut_off();
    story.push(&["c", "d"]);
    story.now += DELIVERY - Duration::from_secs(1);
    assert_eq!(story.poll(), [unknown(&["a", "b"], Cause::Deadline), send(1, 1)]);
    assert_eq!(story.stamp(1), (1, 0, "c d".to_owned()));
}

#[test]
fn an_answer_to_the_old_numbering_says_nothing_about_the_new_one() {
    let mut story = Story::new();
    story.push(&["a", "b", "c", "d"]);
    story.poll();
    let effects = story.refused(0, 1, Reason::MessageTooLarge);
    assert_eq!(effects, [failed(&["a", "b"], Reason::MessageTooLarge)]);
    assert_eq!(story.poll(), [send(1, 2)]);
    assert_eq!(story.stamp(1), (1, 0, "c d".to_owned()));
    assert_eq!(story.refused(1, 1, Reason::SequenceGap), []);
    assert_eq!(story.poll(), []);
    assert_eq!(story.appended(1, 2, 0), [done(&["c", "d"], 0)]);
}

#[test]
fn a_failed_batch_is_reported_after_its_predecessors() {
    let mut story = Story::new();
    story.push(&["a", "b", "c", "d"]);
    story.poll();
    assert_eq!(story.refused(1, 1, Reason::MessageTooLarge), []);
    let effects = story.appended(0, 1, 0);
    assert_eq!(effects, [done(&["a", "b"], 0), failed(&["c", "d"], Reason::MessageTooLarge)]);
}

#[test]
fn a_producer_that_was_forgotten_starts_afresh_unless_the_batch_may_be_there() {
    let mut story = Story::new();
    story.push(&["a", "b"]);
    story.poll();
    story.appended(0, 1, 0);
    story.push(&["c"]);
    story.poll();
    assert_eq!(story.refused(1, 1, Reason::UnknownProducer), []);
    story.now += PAUSE;
    assert_eq!(story.poll(), [send(1, 2)]);
    assert_eq!(story.stamp(1), (1, 0, "c".to_owned()));

    // The same, but an attempt was lost before: it may have been appended before the producer was forgotten.
    story.cut_off();
    story.now += PAUSE;
    assert_eq!(story.poll(), [send(1, 3)]);
    let effects = story.refused(1, 3, Reason::UnknownProducer);
    assert_eq!(effects, [unknown(&["c"], Cause::Known(Reason::UnknownProducer))]);
}

#[test]
fn a_sequence_that_the_broker_no_longer_remembers_is_unknown_because_its_offset_is() {
    let mut story = Story::new();
    story.push(&["a"]);
    story.poll();
    let effects = story.refused(0, 1, Reason::SequenceTooOld);
    assert_eq!(effects, [unknown(&["a"], Cause::Known(Reason::SequenceTooOld))]);
}

#[test]
fn an_unclear_commit_is_repeated_with_a_producer_id_and_unknown_without_one() {
    let mut story = Story::new();
    story.push(&["a"]);
    story.poll();
    assert_eq!(story.refused(0, 1, Reason::CommitUnknown), []);
    story.now += PAUSE;
    assert_eq!(story.poll(), [send(0, 2)]);

    let mut story = Story::with(|settings| settings.idempotent = false);
    story.push(&["a", "b", "c", "d"]);
    story.poll();
    assert_eq!(story.refused(0, 1, Reason::CommitUnknown), [unknown(&["a", "b"], Cause::Known(Reason::CommitUnknown))]);
    assert_eq!(story.cut_off(), [unknown(&["c", "d"], Cause::ConnectionLost)]);
}

#[test]
fn once_fenced_nothing_is_published_any_more() {
    let mut story = Story::new();
    story.push(&["a", "b", "c"]);
    story.poll();
    let effects = story.refused(0, 1, Reason::ProducerFenced);
    assert_eq!(effects, [failed(&["a", "b"], Reason::ProducerFenced), failed(&["c"], Reason::ProducerFenced)]);
    story.push(&["d"]);
    assert_eq!(story.poll(), [failed(&["d"], Reason::ProducerFenced)]);
}

#[test]
fn silence_is_reported_so_that_another_way_is_tried() {
    let mut story = Story::new();
    story.push(&["a"]);
    story.poll();
    story.now += ATTEMPT;
    assert_eq!(story.poll(), [Effect::Silence]);
}

#[test]
fn without_a_way_nothing_is_sent_and_the_deadline_still_holds() {
    let mut story = Story::new();
    story.push(&["a"]);
    assert_eq!(story.lane.poll(story.now, false), []);
    assert_eq!(story.lane.wakeup(false), Some(story.now + DELIVERY));
    story.now += DELIVERY;
    let failed = Outcome::Failed(ClientError::deadline("", Executed::No));
    assert_eq!(story.lane.poll(story.now, false), [Effect::Resolve { tickets: vec!["a"], outcome: failed }]);
    assert_eq!(story.lane.wakeup(false), None);
}

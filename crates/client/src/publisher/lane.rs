//! [`Lane`]: one partition's side of a publisher, as plain data. Events in, effects out; no IO, no clock.
//!
//! ```text
//!   push ─▶ queue ──cut──▶ window (at most `in_flight` batches) ──settled──▶ outcomes, in order
//!                          │ head │ … │ … │
//!                             └── every batch is waiting, outstanding, done or refused
//! ```
//!
//! A record gets its sequence number when its batch is cut, and a batch keeps its stamp (epoch and base
//! sequence) through every attempt: that is what lets the broker recognise a repeat. The stamp of a
//! batch may change in one case only: when it is certain that no attempt under the old one was appended
//! or ever will be. Otherwise the outcome is *unknown*, and the lane goes on under the next epoch, which
//! shuts out whatever is still under way from the old one.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use quorate_model::sabotage::{Bug, is_planted};
use quorate_model::{Executed, Reason, Record, RetryAdvice};
use tokio::time::Instant;

use super::batch::{Batch, Stamp, State};
use crate::error::ClientError;

/// The bounds of a lane.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LaneSettings {
    pub(crate) batch_records: usize,
    pub(crate) batch_bytes: usize,
    pub(crate) linger: Duration,
    pub(crate) in_flight: usize,
    /// Without an answer for this long, the attempt is given up.
    pub(crate) attempt: Duration,
    /// Without a producer id, a batch that may have been appended must not be sent again.
    pub(crate) idempotent: bool,
}

/// A record on its way in. `T` is whatever waits for the outcome.
#[derive(Debug)]
pub(crate) struct Queued<T> {
    pub(crate) record: Record,
    pub(crate) bytes: usize,
    pub(crate) accepted_at: Instant,
    pub(crate) deadline: Instant,
    pub(crate) ticket: T,
}

/// What the lane wants done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Effect<T> {
    /// Send this batch; answer with its id and attempt.
    Transmit { batch: u64, attempt: u32 },
    /// Tell the waiting ones, in the order of their records.
    Resolve { tickets: Vec<T>, outcome: Outcome },
    /// No answer for too long: stop waiting for this one, look for another way.
    Silence,
}

/// How a batch ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// On disk on a majority; the records have consecutive offsets from here.
    Appended { base_offset: u64, duplicate: bool },
    /// Certainly not appended, now or later.
    Failed(ClientError),
    /// Appended or not: nobody can tell.
    Unknown(ClientError),
}

#[derive(Debug)]
pub(crate) struct Lane<T> {
    settings: LaneSettings,
    queue: VecDeque<Queued<T>>,
    queue_bytes: usize,
    /// Records at the front of the queue that don't wait for company.
    urgent: usize,
    window: VecDeque<Batch<T>>,
    next_batch: u64,
    next_stamp: Stamp,
    /// After a failure the head goes alone until it is settled; then the pipeline opens again.
    probing: bool,
    /// Nothing is sent before this.
    resume_at: Option<Instant>,
    /// Another producer took over this producer id: nothing can be published any more.
    fenced: Option<ClientError>,
    settled: u64,
}

impl<T> Lane<T> {
    pub(crate) fn new(settings: LaneSettings) -> Self {
        Self {
            settings,
            queue: VecDeque::new(),
            queue_bytes: 0,
            urgent: 0,
            window: VecDeque::new(),
            next_batch: 0,
            next_stamp: Stamp { epoch: 0, sequence: 0 },
            probing: false,
            resume_at: None,
            fenced: None,
            settled: 0,
        }
    }

    pub(crate) fn push(&mut self, queued: Queued<T>) {
        self.queue_bytes += queued.bytes;
        self.queue.push_back(queued);
    }

    /// What is queued now goes out without waiting for more.
    pub(crate) fn flush(&mut self) {
        self.urgent = self.queue.len();
    }

    /// Records settled in order, from the first ever pushed.
    pub(crate) fn settled(&self) -> u64 {
        self.settled
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.window.is_empty()
    }

    /// Whether an answer is awaited. While it is, the way to the partition should not change: a batch
    /// must not overtake its predecessor.
    pub(crate) fn awaits_answers(&self) -> bool {
        self.window.iter().any(|batch| matches!(batch.state, State::Outstanding { .. }))
    }

    /// Whether new records would wait: behind a failure, or behind a full window.
    pub(crate) fn is_stalled(&self) -> bool {
        self.probing || self.resume_at.is_some() || self.window.len() >= self.settings.in_flight
    }

    /// A better way has appeared: don't wait out the pause.
    pub(crate) fn resume(&mut self) {
        self.resume_at = None;
    }

    /// The encoded batch. `encode` runs once per stamp.
    pub(crate) fn encoded<E>(
        &mut self,
        batch: u64,
        encode: impl FnOnce(Stamp, &[Record]) -> Result<Bytes, E>,
    ) -> Option<Result<Bytes, E>> {
        let batch = self.window.iter_mut().find(|candidate| candidate.id == batch)?;
        if let Some(wire) = &batch.wire {
            return Some(Ok(wire.clone()));
        }
        let encoded = encode(batch.stamp, &batch.records);
        batch.wire = encoded.as_ref().ok().cloned();
        Some(encoded)
    }

    /// An attempt was answered. `pause` says how long to wait, and is asked only if something must be repeated.
    pub(crate) fn answered(
        &mut self,
        now: Instant,
        batch: u64,
        attempt: u32,
        answer: Result<(u64, bool), ClientError>,
        pause: impl FnOnce(&ClientError) -> Duration,
    ) -> Vec<Effect<T>> {
        let mut effects = Vec::new();
        let Some(index) = self.window.iter().position(|candidate| candidate.id == batch) else { return effects };
        if !self.window[index].take_answer(attempt) {
            return effects;
        }
        match answer {
            Ok((base_offset, duplicate)) => self.appended(index, base_offset, duplicate, &mut effects),
            Err(error) => self.refused(now, index, attempt, error, pause),
        }
        self.settle(&mut effects);
        effects
    }

    /// The stream ended, or is too slow: awaited answers are not waited for any more.
    pub(crate) fn disconnected(&mut self, now: Instant, error: &ClientError, pause: Duration) -> Vec<Effect<T>> {
        let mut effects = Vec::new();
        if self.awaits_answers() {
            self.pause(now, pause);
        }
        for batch in &mut self.window {
            batch.lose_answers();
        }
        if is_planted(Bug::RepeatUnderNewEpoch) {
            self.next_epoch(0, None);
        }
        if !self.settings.idempotent {
            for batch in self.window.iter_mut().filter(|batch| batch.may_be_appended() && !batch.is_settled()) {
                batch.state = State::Refused(error.clone());
            }
        }
        self.settle(&mut effects);
        effects
    }

    /// Does what time or room allows. `may_send`: there is a way to the partition.
    pub(crate) fn poll(&mut self, now: Instant, may_send: bool) -> Vec<Effect<T>> {
        let mut effects = Vec::new();
        self.expire(now, &mut effects);
        if let Some(error) = self.fenced.clone() {
            self.fail_queue(&error, &mut effects);
        }
        if self.resume_at.is_some_and(|at| at <= now) {
            self.resume_at = None;
        }
        if self.first_unanswered_since().is_some_and(|since| now >= since + self.settings.attempt) {
            effects.push(Effect::Silence);
            return effects;
        }
        if may_send && self.resume_at.is_none() {
            self.transmit(now, &mut effects);
        }
        effects
    }

    /// When [`poll`](Self::poll) would next do something by itself.
    pub(crate) fn wakeup(&self, may_send: bool) -> Option<Instant> {
        let deadline = self.window.iter().find(|batch| !batch.is_settled()).map(|batch| batch.deadline);
        let deadline = deadline.or_else(|| self.queue.front().map(|queued| queued.deadline));
        let answer = self.first_unanswered_since().map(|since| since + self.settings.attempt);
        let resume = self.resume_at.filter(|_| may_send && !self.is_empty());
        let linger = self.queue.front().map(|queued| queued.accepted_at + self.settings.linger);
        let linger = linger.filter(|_| may_send && !self.is_stalled());
        [deadline, answer, resume, linger].into_iter().flatten().min()
    }

    fn appended(&mut self, index: usize, base_offset: u64, duplicate: bool, effects: &mut Vec<Effect<T>>) {
        let batch = &mut self.window[index];
        batch.state = State::Done;
        let tickets = std::mem::take(&mut batch.tickets);
        effects.push(Effect::Resolve { tickets, outcome: Outcome::Appended { base_offset, duplicate } });
    }

    fn refused(
        &mut self,
        now: Instant,
        index: usize,
        attempt: u32,
        error: ClientError,
        pause: impl FnOnce(&ClientError) -> Duration,
    ) {
        let is_head = !self.window.iter().take(index).any(|batch| !batch.is_settled());
        let batch = &mut self.window[index];
        batch.lost |= error.executed() == Executed::Maybe;
        if !batch.is_current(attempt) {
            return;
        }
        let may_be_appended = batch.may_be_appended();
        match verdict(&error) {
            Verdict::Repeat if !self.settings.idempotent && may_be_appended => batch.state = State::Refused(error),
            Verdict::Repeat => self.rewind(now, index, pause(&error)),
            // Behind a predecessor that wasn't appended, a gap is no news: the repeat comes after it.
            Verdict::OutOfSequence if !is_head => self.rewind(now, index, Duration::ZERO),
            // The broker forgot what came before. A batch that certainly wasn't appended can start afresh.
            Verdict::OutOfSequence if !may_be_appended => {
                self.rewind(now, index, pause(&error));
                self.next_epoch(index, None);
            }
            Verdict::OutOfSequence => batch.state = State::Refused(error),
            Verdict::AppendedSomewhere => {
                batch.lost = true;
                batch.state = State::Refused(error);
            }
            Verdict::Fenced => {
                self.fenced = Some(error.clone());
                batch.state = State::Refused(error);
            }
            Verdict::Never => batch.state = State::Refused(error),
        }
    }

    /// Everything from this batch on that isn't done is sent again, in order, the first one alone.
    fn rewind(&mut self, now: Instant, index: usize, pause: Duration) {
        for batch in self.window.iter_mut().skip(index).filter(|batch| !batch.is_settled()) {
            batch.state = State::Waiting;
        }
        self.pause(now, pause);
    }

    fn pause(&mut self, now: Instant, pause: Duration) {
        self.probing = true;
        if !pause.is_zero() {
            let at = now + pause;
            self.resume_at = Some(self.resume_at.map_or(at, |earlier| earlier.max(at)));
        }
    }

    /// Outcomes leave in order: whatever stands at the head and is decided.
    fn settle(&mut self, effects: &mut Vec<Effect<T>>) {
        while let Some(head) = self.window.front_mut() {
            match std::mem::replace(&mut head.state, State::Waiting) {
                State::Done => {
                    self.pop_settled();
                    self.probing = false;
                }
                State::Refused(error) => self.give_up_head(&error, effects),
                undecided => {
                    head.state = undecided;
                    break;
                }
            }
        }
        if self.window.is_empty() {
            self.probing = false;
        }
        if let Some(error) = self.fenced.clone() {
            self.fail_queue(&error, effects);
        }
    }

    /// The head will not be sent again. What follows it carries sequences that the broker can't accept
    /// any more, so it moves to the next epoch, or shares the head's uncertainty.
    fn give_up_head(&mut self, error: &ClientError, effects: &mut Vec<Effect<T>>) {
        let Some(head) = self.pop_settled() else { return };
        let unknown = head.may_be_appended() && !is_planted(Bug::UnknownReportedAsFailed);
        let error = error.clone().with_executed(if unknown { Executed::Maybe } else { Executed::No });
        let outcome = if unknown { Outcome::Unknown(error.clone()) } else { Outcome::Failed(error.clone()) };
        effects.push(Effect::Resolve { tickets: head.tickets, outcome });
        if !self.settings.idempotent {
            return;
        }
        if self.fenced.is_some() {
            for batch in self.window.iter_mut().filter(|batch| !batch.is_settled()) {
                batch.state = State::Refused(error.clone());
            }
            return;
        }
        // If the head was certainly not appended, nothing behind it in its epoch was, or ever can be.
        self.next_epoch(0, unknown.then_some(&error));
    }

    /// Stamps everything from `index` on anew. With `doubt`, what may have been appended is unknown too.
    fn next_epoch(&mut self, index: usize, doubt: Option<&ClientError>) {
        self.next_stamp = self.next_stamp.next_epoch();
        for batch in self.window.iter_mut().skip(index).filter(|batch| !batch.is_settled()) {
            match doubt {
                Some(error) if batch.may_be_appended() => batch.state = State::Refused(error.clone()),
                _ => self.next_stamp = batch.restamp(self.next_stamp),
            }
        }
        self.probing = !self.window.is_empty();
    }

    fn expire(&mut self, now: Instant, effects: &mut Vec<Effect<T>>) {
        let expired = |deadline: Instant| deadline <= now;
        while let Some(head) = self.window.front_mut().filter(|head| expired(head.deadline)) {
            let why = if head.may_be_appended() { "no answer" } else { "not accepted by the partition's leader" };
            head.state =
                State::Refused(ClientError::deadline(format!("{why} before the delivery deadline"), Executed::No));
            self.settle(effects);
        }
        while self.queue.front().is_some_and(|queued| expired(queued.deadline)) {
            let error = ClientError::deadline("not sent before the delivery deadline", Executed::No);
            self.fail_front(error, effects);
        }
    }

    fn transmit(&mut self, now: Instant, effects: &mut Vec<Effect<T>>) {
        let mut first = true;
        for batch in self.window.iter_mut().filter(|batch| !batch.is_settled()) {
            if batch.state == State::Waiting && (first || !self.probing) {
                let attempt = batch.begin_attempt(now);
                effects.push(Effect::Transmit { batch: batch.id, attempt });
            }
            first = false;
        }
        while !self.probing && self.window.len() < self.settings.in_flight && self.should_cut(now) {
            // The oldest record's deadline is the batch's: nobody waits longer than was promised.
            let Some(deadline) = self.queue.front().map(|queued| queued.deadline) else { break };
            let mut batch = self.cut(deadline);
            let attempt = batch.begin_attempt(now);
            effects.push(Effect::Transmit { batch: batch.id, attempt });
            self.window.push_back(batch);
        }
    }

    /// A full batch goes at once, and so does any batch when nothing is under way: waiting for company
    /// pays only while an earlier batch is being written.
    fn should_cut(&self, now: Instant) -> bool {
        let Some(front) = self.queue.front() else { return false };
        self.queue.len() >= self.settings.batch_records
            || self.queue_bytes >= self.settings.batch_bytes
            || self.urgent > 0
            || self.window.is_empty()
            || now >= front.accepted_at + self.settings.linger
    }

    fn cut(&mut self, deadline: Instant) -> Batch<T> {
        let mut batch = Batch::new(self.next_batch, self.next_stamp, deadline);
        self.next_batch += 1;
        let mut bytes = 0;
        while let Some(front) = self.queue.front() {
            let full =
                batch.records.len() >= self.settings.batch_records || bytes + front.bytes > self.settings.batch_bytes;
            if full && !batch.records.is_empty() {
                break;
            }
            bytes += front.bytes;
            if let Some(queued) = self.pop_queue() {
                batch.push(queued);
            }
        }
        self.next_stamp = batch.stamp_after();
        batch
    }

    fn pop_queue(&mut self) -> Option<Queued<T>> {
        let queued = self.queue.pop_front()?;
        self.queue_bytes -= queued.bytes;
        self.urgent = self.urgent.saturating_sub(1);
        Some(queued)
    }

    fn pop_settled(&mut self) -> Option<Batch<T>> {
        let batch = self.window.pop_front()?;
        self.settled += batch.records.len() as u64;
        Some(batch)
    }

    fn fail_queue(&mut self, error: &ClientError, effects: &mut Vec<Effect<T>>) {
        while !self.queue.is_empty() {
            self.fail_front(error.clone().with_executed(Executed::No), effects);
        }
    }

    fn fail_front(&mut self, error: ClientError, effects: &mut Vec<Effect<T>>) {
        if let Some(queued) = self.pop_queue() {
            self.settled += 1;
            effects.push(Effect::Resolve { tickets: vec![queued.ticket], outcome: Outcome::Failed(error) });
        }
    }

    fn first_unanswered_since(&self) -> Option<Instant> {
        self.window.iter().find_map(|batch| match batch.state {
            State::Outstanding { since } => Some(since),
            _ => None,
        })
    }
}

/// What an error means to a batch.
enum Verdict {
    Repeat,
    /// The broker expected another sequence, or doesn't know this producer.
    OutOfSequence,
    /// The broker knows that it appended this sequence, but no longer where.
    AppendedSomewhere,
    Fenced,
    Never,
}

fn verdict(error: &ClientError) -> Verdict {
    match error.cause() {
        crate::error::Cause::Known(Reason::SequenceGap | Reason::UnknownProducer) => Verdict::OutOfSequence,
        crate::error::Cause::Known(Reason::SequenceTooOld) => Verdict::AppendedSomewhere,
        crate::error::Cause::Known(Reason::ProducerFenced) => Verdict::Fenced,
        _ if error.executed() == Executed::Maybe => Verdict::Repeat,
        _ if error.advice() == RetryAdvice::Surface => Verdict::Never,
        _ => Verdict::Repeat,
    }
}

#[cfg(test)]
#[path = "lane_tests.rs"]
mod tests;

//! What subscribers say, and what of it must outlive the leader.

use std::collections::BTreeSet;

use super::leases::Lease;
use super::pending::{Answer, Outcome, Pending, Then};
use super::{Dispatcher, KeyHash, Lane, LeaseId, Parcel, Place, Position, Return, SessionId, WaiterId};
use crate::ids::Offset;
use crate::partition::subscription::{DeadLetter, Retry, Settlement};
use crate::sabotage::{Bug, is_planted};

impl Dispatcher {
    /// A message is done. `lease` names its delivery, if that was one of this dispatcher's. One that came back counts
    /// until the message is delivered again, and never after: whoever has been told that its lease is lost can rely on
    /// it, also if an earlier copy of its request is still under way.
    pub fn acknowledge(&mut self, lease: Option<LeaseId>, position: Position, waiter: WaiterId) {
        if self.is_settled(position) {
            return self.answer_when_certain(waiter, Outcome::AlreadySettled);
        }
        let key = match lease {
            Some(lease) if self.holds(lease, position) => self.take_back(lease).and_then(|lease| lease.key),
            Some(lease) => match self.came_back.get(&position) {
                Some((last, key)) if *last == lease => self.withdraw(position, *key),
                _ => return self.answer(waiter, Outcome::LeaseLost),
            },
            None => return self.answer(waiter, Outcome::LeaseLost),
        };
        self.done_with(position, key);
        self.pending.acknowledged += 1;
        self.answer_when_certain(waiter, Outcome::Done);
    }

    /// Messages were deleted: of those that came back nobody waits for the next attempt. What is in flight may be
    /// acknowledged, and what wasn't delivered is found when its turn comes.
    pub fn delete(&mut self, is_deleted: impl Fn(Offset) -> bool) {
        let waits = |position: &Position| is_deleted(position.offset()) && self.leases.at(*position).is_none();
        let waiting = self.retries.iter().filter(|(position, _)| waits(position));
        let waiting: Vec<_> = waiting.map(|(position, retry)| (*position, retry.key)).collect();
        waiting.into_iter().for_each(|(position, key)| self.withdraw_for_good(position, key));
    }

    /// A message that isn't in flight was deleted. Its key goes on when that is certain.
    pub(super) fn withdraw_for_good(&mut self, position: Position, key: Option<KeyHash>) {
        let key = self.withdraw(position, key.filter(|_| self.rules.ordered));
        self.done_with(position, key);
        self.pending.urgent = true;
    }

    fn done_with(&mut self, position: Position, key: Option<KeyHash>) {
        self.came_back.remove(&position);
        self.retries.remove(&position);
        let Position { lane, place } = position;
        self.settled.entry(lane).or_default().insert(place..place.next());
        self.pending.settle(lane, place..place.next());
        self.pending.then.freed.extend(key.map(|key| (key, position)));
    }

    /// A message is returned. `chance` is a random number, for the retry policy.
    pub fn give_back(
        &mut self,
        lease: Option<LeaseId>,
        position: Position,
        returned: Return,
        (now_ms, chance): (u64, u64),
        waiter: WaiterId,
    ) {
        if self.is_settled(position) {
            return self.answer_when_certain(waiter, Outcome::AlreadySettled);
        }
        match lease.filter(|lease| self.holds(*lease, position)) {
            Some(lease) => {
                self.comes_back(lease, returned, now_ms, chance);
                self.answer_when_certain(waiter, Outcome::Done);
            }
            None => self.answer(waiter, Outcome::LeaseLost),
        }
    }

    /// A message stays in flight until `deadline_ms`.
    pub fn extend(&mut self, lease: Option<LeaseId>, position: Position, deadline_ms: u64, waiter: WaiterId) {
        let held = lease.filter(|lease| self.holds(*lease, position));
        if held.is_some_and(|lease| self.leases.extend(lease, deadline_ms)) {
            return self.answer(waiter, Outcome::Done);
        }
        if self.is_settled(position) {
            return self.answer_when_certain(waiter, Outcome::AlreadySettled);
        }
        self.answer(waiter, Outcome::LeaseLost);
    }

    /// A subscriber is gone. What it had in hand is delivered again at once; it counts as an attempt, or a message that
    /// kills its subscribers would be tried for ever.
    pub fn leave(&mut self, session: SessionId, now_ms: u64) {
        for lease in self.sessions.remove(session) {
            let returned = Return::Failed { pause_ms: Some(0), error: String::new() };
            self.comes_back(lease, returned, now_ms, 0);
        }
    }

    /// A subscriber is gone and keeps what it has in hand, until the time for that is over.
    pub fn detach(&mut self, session: SessionId) {
        self.sessions.remove(session);
    }

    /// Retention removed what lies before `log_start`.
    pub fn trim_to(&mut self, log_start: Offset) {
        self.floor = self.floor.max(log_start);
        self.settled.entry(Lane::LOG).or_default().insert(Place::FIRST..Place::at(log_start));
        let is_gone = |position: &Position| position.offset() < log_start;
        self.came_back.retain(|position, _| !is_gone(position));
        let known = self.retries.keys().chain(self.leases.positions());
        let lost: BTreeSet<Position> = known.copied().filter(is_gone).collect();
        lost.into_iter().for_each(|position| self.let_go(position));
        self.pass_over_before_the_floor();
    }

    /// Where the machine was told of a lane only after retention had removed messages of it, those aren't settled there.
    pub(super) fn pass_over_before_the_floor(&mut self) {
        let lanes = self.settled.keys().chain(self.read.keys()).copied().filter(|lane| !lane.delayed);
        let lanes: BTreeSet<Lane> = lanes.collect();
        lanes.into_iter().for_each(|lane| self.pass_over(lane, Place::FIRST..Place::at(self.floor)));
    }

    /// A message was removed by retention: nobody has it in hand any more, and nobody waits for it.
    pub(super) fn let_go(&mut self, position: Position) {
        let lease = self.leases.at(position).and_then(|lease| self.take_back(lease));
        self.came_back.remove(&position);
        let retry = self.retries.remove(&position);
        if let Some(retry) = &retry {
            self.schedule.remove(&(retry.due_ms, position));
        }
        let Position { lane, place } = position;
        self.pass_over(lane, place..place.next());
        let key = lease.and_then(|lease| lease.key).or(retry.and_then(|retry| retry.key));
        if let Some(key) = key.filter(|_| self.rules.ordered) {
            self.lines.comes_back(key, position);
            self.move_up(key);
        }
    }

    /// Takes back what was kept for too long.
    pub fn expire(&mut self, now_ms: u64, mut chance: impl FnMut() -> u64) {
        while let Some(lease) = self.leases.overdue(now_ms) {
            let returned = Return::Failed { pause_ms: None, error: String::new() };
            self.comes_back(lease, returned, now_ms, chance());
        }
    }

    fn holds(&self, lease: LeaseId, position: Position) -> bool {
        self.leases.get(lease).is_some_and(|lease| lease.position == position)
    }

    fn take_back(&mut self, lease: LeaseId) -> Option<Lease> {
        let held = self.leases.remove(lease)?;
        self.sessions.took_back(held.session, lease);
        self.came_back.insert(held.position, (lease, held.key.filter(|_| self.rules.ordered)));
        Some(held)
    }

    /// Takes a message that isn't in flight out of wherever it waits. Its key waits for it.
    fn withdraw(&mut self, position: Position, key: Option<KeyHash>) -> Option<KeyHash> {
        self.ready.remove(position);
        if let Some(retry) = self.retries.get(&position) {
            self.schedule.remove(&(retry.due_ms, position));
        }
        if let Some(key) = key {
            self.lines.leaves(key, position);
            self.lines.goes_out(key, position, None);
        }
        key
    }

    fn comes_back(&mut self, lease: LeaseId, returned: Return, now_ms: u64, chance: u64) {
        let Some(held) = self.take_back(lease) else { return };
        let Lease { position, attempt: attempts, first_delivered_ms, parcel, key, .. } = held;
        let key = key.filter(|_| self.rules.ordered);
        if let Some(key) = key {
            self.call_back_those_behind(key, lease);
        }
        match returned {
            Return::Failed { pause_ms, error } => {
                let pause_ms = pause_ms.unwrap_or_else(|| self.rules.retry.pause_ms(attempts, chance));
                let earlier = self.retries.remove(&position).map(|retry| retry.error);
                let error = if error.is_empty() { earlier.unwrap_or_default() } else { error };
                self.pending.urgent = true;
                let tried_enough = self.rules.max_attempts.is_some_and(|most| attempts >= most);
                if tried_enough && self.has_room_for_a_letter() {
                    let (offset, returned_ms) = (position.offset(), now_ms);
                    let letter = DeadLetter { offset, attempts, first_delivered_ms, returned_ms, error };
                    return self.bury(position, letter, key);
                }
                let due_ms = now_ms.saturating_add(pause_ms);
                let Parcel { bytes, expires_ms } = parcel;
                let retry = Retry { attempts, due_ms, first_delivered_ms, bytes, expires_ms, key, error };
                self.retries.insert(position, retry.clone());
                self.pending.retries.push((position, retry));
                self.pending.then.scheduled.push(position);
                if let Some(key) = key.filter(|_| is_planted(Bug::OrderBrokenByNack)) {
                    self.lines.comes_back(key, position);
                    self.move_up(key);
                }
            }
            Return::Untouched => self.lie_ready(position, parcel, key),
        }
    }

    fn has_room_for_a_letter(&self) -> bool {
        let proposed = self.proposed.as_ref().map_or(0, |then| then.dead_letters);
        self.dead_letters + proposed + self.pending.then.dead_letters < self.bounds.dead_letters
    }

    /// A message was tried often enough. Its key waits no longer for it.
    fn bury(&mut self, position: Position, letter: DeadLetter, key: Option<KeyHash>) {
        self.pending.then.dead_letters += 1;
        self.came_back.remove(&position);
        let Position { lane, place } = position;
        self.settled.entry(lane).or_default().insert(place..place.next());
        // Also if retention removes it before it is a letter.
        self.pending.settle(lane, place..place.next());
        self.pending.dead.push((position, letter));
        self.pending.then.freed.extend(key.map(|key| (key, position)));
    }

    /// What was delivered behind a message of the same key must not overtake it. That may be of another lane.
    fn call_back_those_behind(&mut self, key: KeyHash, lease: LeaseId) {
        for out in self.lines.out(key) {
            let behind = self.leases.at(out).filter(|behind| *behind > lease);
            if let Some(held) = behind.and_then(|behind| self.take_back(behind)) {
                self.lines.comes_back(key, out);
                self.lines.wait(key, out, held.parcel);
            }
        }
    }

    /// A message goes back to where it was before it was delivered.
    fn lie_ready(&mut self, position: Position, parcel: Parcel, key: Option<KeyHash>) {
        if let Some(key) = key {
            self.lines.comes_back(key, position);
        }
        self.make_ready(position, parcel, key);
    }

    fn answer(&mut self, waiter: WaiterId, outcome: Outcome) {
        self.answers.push(Answer { waiter, outcome });
    }

    /// Answers with what is to be proposed, or is being proposed; at once if that is nothing.
    fn answer_when_certain(&mut self, waiter: WaiterId, outcome: Outcome) {
        let answer = Answer { waiter, outcome };
        if is_planted(Bug::AckBeforeCommit) {
            self.pending.urgent = true;
            self.answers.push(answer);
        } else if !self.pending.is_empty() {
            self.pending.urgent = true;
            self.pending.then.answers.push(answer);
        } else if let Some(then) = &mut self.proposed {
            then.answers.push(answer);
        } else {
            self.answers.push(answer);
        }
    }
}

impl Dispatcher {
    /// What is to be proposed now, if nothing is being proposed. Messages that were passed over go with the next thing
    /// that somebody waits for, unless `all` is asked for.
    pub fn settlement(&mut self, all: bool) -> Option<Settlement> {
        if self.proposed.is_some() || self.pending.is_empty() || !(all || self.pending.urgent) {
            return None;
        }
        let Pending { settled, retries, dead, acknowledged, expired, then, .. } = std::mem::take(&mut self.pending);
        self.proposed = Some(then);
        let (subscription, generation) = (self.subscription, self.generation);
        Some(Settlement { subscription, generation, settled, retries, dead, acknowledged, expired })
    }

    /// What was proposed is certain.
    pub fn confirmed(&mut self) {
        let Some(Then { scheduled, freed, answers, .. }) = self.proposed.take() else { return };
        for position in scheduled {
            if let Some(retry) = self.retries.get(&position) {
                self.schedule.insert((retry.due_ms, position));
            }
        }
        for (key, position) in freed {
            self.lines.comes_back(key, position);
            self.move_up(key);
        }
        self.answers.extend(answers);
    }

    /// What can be told to those who wait.
    pub fn answers(&mut self) -> Vec<Answer> {
        std::mem::take(&mut self.answers)
    }

    /// Whether something is to be proposed, urgent or not.
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Who waits for an answer that won't come, because the dispatcher is given up.
    pub fn unanswered(self) -> impl Iterator<Item = WaiterId> {
        let proposed = self.proposed.into_iter().flat_map(|then| then.answers);
        proposed.chain(self.pending.then.answers).map(|answer| answer.waiter)
    }
}

//! What a leader does with one subscription of the transcript's partition. Time stands still unless it is advanced, and
//! nothing is certain until `commit`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use quorate_model::partition::subscription::deliver::{
    Answer, Bounds, Candidate, Credits, Delivery, Dispatcher, KeyBounds, LeaseId, Outcome, Parcel, Return, Rules,
    SessionId, WaiterId, Want,
};
use quorate_model::partition::subscription::{
    KeyHash, Lane, Place, Position, Settled, SubscriptionChanged, SubscriptionRejected, SubscriptionState,
};
use quorate_model::{DeliveryOptions, Offset, PartitionCommand, PartitionMachine, RetryPolicy, SubscriptionId};

use super::Line;

pub(crate) const SUBSCRIPTION: SubscriptionId = SubscriptionId::new(7);

/// Messages and bytes that each session still takes.
#[derive(Default)]
struct Purses(BTreeMap<SessionId, (u64, u64)>);

impl Credits for Purses {
    fn spend(&mut self, session: SessionId, bytes: u32) -> bool {
        let Some((messages, left)) = self.0.get_mut(&session) else { return false };
        if *messages == 0 || *left == 0 {
            return false;
        }
        *messages -= 1;
        *left = left.saturating_sub(bytes.into());
        true
    }
}

struct Message {
    key: String,
    options: DeliveryOptions,
}

#[derive(Default)]
pub(crate) struct Leader {
    now_s: u64,
    /// The messages published so far; their order is that of offsets.
    messages: Vec<Message>,
    /// Those with an order of their own.
    places: BTreeMap<Lane, BTreeSet<Place>>,
    /// Only messages with this key are wanted.
    filter: Option<String>,
    dispatcher: Option<Dispatcher>,
    credits: Purses,
    /// Messages delivered so far → their last delivery.
    leases: BTreeMap<Offset, (LeaseId, Position)>,
    /// Those of the last `deliver`.
    last: Vec<(Position, LeaseId)>,
    /// Who asked what, by the number of the request.
    asked: Vec<String>,
    /// How often somebody took the lead: each numbers its deliveries from the next hundred on.
    leads: u64,
}

impl Leader {
    pub(crate) fn published(&mut self, line: &Line<'_>) {
        let count = line.number("records").unwrap_or(1);
        self.messages.extend((0..count).map(|_| Message { key: line.text("key"), options: options(line) }));
    }

    pub(crate) fn placed(&mut self, positions: &[Position]) {
        for Position { lane, place } in positions {
            self.places.entry(*lane).or_default().insert(*place);
        }
    }

    pub(crate) fn trimmed(&mut self, trimmed: &[(Lane, Place)]) {
        for (lane, end) in trimmed {
            let places = self.places.entry(*lane).or_default();
            *places = places.split_off(end);
        }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.now_s * 1_000
    }

    /// Commands that only a leader obeys; `None` if it isn't one.
    pub(crate) fn obey(&mut self, line: &Line<'_>, partition: &PartitionMachine) -> Option<String> {
        let now_ms = self.now_s * 1_000;
        match line.word(0) {
            "advance" => {
                self.now_s += line.word(1).parse::<u64>().unwrap();
                let now_ms = self.now_s * 1_000;
                self.dispatcher.iter_mut().for_each(|dispatcher| dispatcher.expire(now_ms, || 0));
                return Some(format!("it is {} s\n", self.now_s));
            }
            "lead" => {
                let state = partition.subscriptions().get(SUBSCRIPTION).unwrap();
                self.leases.clear();
                self.credits = Purses::default();
                let first_lease = LeaseId(1 + 100 * self.leads);
                self.leads += 1;
                self.dispatcher = Some(Dispatcher::new(SUBSCRIPTION, rules(line), bounds(line), state, first_lease));
                return Some(String::new());
            }
            "filter" => {
                self.filter = line.values.get("key").map(|key| (*key).to_owned());
                return Some(String::new());
            }
            "deliver" => return Some(self.deliver(partition)),
            _ => {}
        }
        let session = || SessionId(line.word(1).parse().unwrap());
        match line.word(0) {
            "grant" => {
                let (messages, bytes) = (line.number("messages").unwrap_or(0), line.number("bytes").unwrap_or(1 << 20));
                self.dispatcher().join(session());
                let held = self.credits.0.entry(session()).or_default();
                *held = (held.0 + messages, held.1 + bytes);
            }
            "leave" => self.dispatcher().leave(session(), now_ms),
            "ack" | "nack" | "release" | "extend" => self.say(line, now_ms),
            _ => return None,
        }
        Some(self.answers())
    }

    fn say(&mut self, line: &Line<'_>, now_ms: u64) {
        for word in &line.words[1..] {
            let offset = Offset::new(word.parse().unwrap());
            let known = self.leases.get(&offset).copied();
            // A delivery of an earlier leader has no lease here.
            let lease = line.number("lease").map(LeaseId).or(known.map(|(lease, _)| lease));
            let waiter = WaiterId(self.asked.len() as u64);
            self.asked.push(format!("{} {offset}", line.word(0)));
            let position = known.map_or(Position::at(offset), |(_, position)| position);
            let dispatcher = self.dispatcher.as_mut().unwrap();
            let pause_ms = line.number("pause").map(|pause_s| pause_s * 1_000);
            match line.word(0) {
                "ack" => dispatcher.acknowledge(lease, position, waiter),
                "nack" => {
                    let returned = Return::Failed { pause_ms, error: line.text("error") };
                    dispatcher.give_back(lease, position, returned, (now_ms, 0), waiter);
                }
                "release" => dispatcher.give_back(lease, position, Return::Untouched, (now_ms, 0), waiter),
                _ => dispatcher.extend(lease, position, now_ms + line.number("by").unwrap() * 1_000, waiter),
            }
        }
    }

    /// Reads what is wanted, and hands out what is ready.
    fn deliver(&mut self, partition: &PartitionMachine) -> String {
        let now_ms = self.now_s * 1_000;
        self.last.clear();
        let mut out = String::new();
        self.dispatcher().trim_to(partition.log_start());
        self.dispatcher().delete(|offset| partition.deleted().contains(offset));
        self.dispatcher().set_end(Lane::LOG, Place::at(partition.next_offset()));
        partition.lanes().ends().for_each(|(lane, end)| self.dispatcher().set_end(lane, end));
        while let Some(want) = self.dispatcher().wants() {
            // Few at a time, so that reading goes on in the middle of things.
            const AT_A_TIME: u64 = 4;
            match want {
                Want::Lane { from, upto } => {
                    let some = upto.min(Place { offset: Offset::new(from.offset().get() + AT_A_TIME), ..from.place });
                    let some = if from.lane.delayed { upto } else { some };
                    let mut candidates = self.candidates(from, some);
                    candidates.retain(|candidate| !partition.deleted().contains(candidate.place.offset));
                    self.dispatcher().offer(from.lane, from.place..some, &candidates);
                }
                Want::Key { key, from, upto } => {
                    let some = upto.min(Place { offset: Offset::new(from.offset().get() + AT_A_TIME), ..from.place });
                    let candidates = self.candidates(from, some);
                    let more = (some < upto).then_some(some);
                    writeln!(out, "read again {}..{} for one key", from.place, some).unwrap();
                    self.dispatcher().offer_key(key, from.lane, &candidates, more);
                }
            }
        }
        for Delivery { session, lease, position, attempt, error } in self.take(now_ms, partition) {
            let offset = position.offset();
            self.leases.insert(offset, (lease, position));
            self.last.push((position, lease));
            let key = &self.messages[offset.get() as usize].key;
            let key = if key.is_empty() { String::new() } else { format!(" ({key})") };
            let error = if error.is_empty() { error } else { format!(", after {error:?}") };
            writeln!(out, "{offset}{key} to {}, attempt {attempt}{error}", session.0).unwrap();
        }
        out
    }

    fn take(&mut self, now_ms: u64, partition: &PartitionMachine) -> Vec<Delivery> {
        let is_deleted = |offset| partition.deleted().contains(offset);
        self.dispatcher.as_mut().unwrap().take(now_ms, &mut self.credits, is_deleted)
    }

    fn candidates(&self, Position { lane, place: from }: Position, upto: Place) -> Vec<Candidate> {
        let log = (from.offset.get()..upto.offset.get()).map(|offset| Place::at(Offset::new(offset)));
        let in_log = |place: &Place| !self.messages[place.offset.get() as usize].options.leaves_the_log();
        let places: Vec<Place> = match self.places.get(&lane) {
            Some(places) => places.range(from..upto).copied().collect(),
            None => log.filter(in_log).collect(),
        };
        let wanted = |key: &String| self.filter.as_ref().is_none_or(|filter| filter == key);
        let candidates = places.into_iter().map(|place| (place, &self.messages[place.offset.get() as usize]));
        candidates
            .filter(|(_, message)| wanted(&message.key))
            .map(|(place, Message { key, options })| Candidate {
                place,
                parcel: Parcel { bytes: 10, expires_ms: options.expire_at_ms },
                key: (!key.is_empty()).then(|| KeyHash(key.bytes().map(u64::from).sum())),
            })
            .collect()
    }

    /// Takes what was delivered last as done; which messages those were.
    pub(crate) fn acknowledge_all(&mut self) -> Vec<Offset> {
        let delivered = std::mem::take(&mut self.last);
        for (position, lease) in &delivered {
            let waiter = WaiterId(self.asked.len() as u64);
            self.asked.push(format!("ack {}", position.offset()));
            self.dispatcher().acknowledge(Some(*lease), *position, waiter);
        }
        delivered.into_iter().map(|(position, _)| position.offset()).collect()
    }

    /// What the leader proposes now; `None`: nothing.
    pub(crate) fn proposal(&mut self) -> Option<PartitionCommand> {
        self.dispatcher().settlement(true).map(PartitionCommand::Settle)
    }

    /// The proposal was carried out.
    pub(crate) fn committed(&mut self) -> String {
        self.dispatcher().confirmed();
        self.answers()
    }

    fn answers(&mut self) -> String {
        let mut out = String::new();
        for Answer { waiter, outcome } in self.dispatcher().answers() {
            let outcome = match outcome {
                Outcome::Done => "done",
                Outcome::AlreadySettled => "had been settled before",
                Outcome::LeaseLost => "that delivery counts no more",
            };
            writeln!(out, "{}: {outcome}", self.asked[waiter.0 as usize]).unwrap();
        }
        out
    }

    fn dispatcher(&mut self) -> &mut Dispatcher {
        self.dispatcher.as_mut().expect("`lead` comes first")
    }
}

/// Times are in seconds.
pub(crate) fn options(line: &Line<'_>) -> DeliveryOptions {
    DeliveryOptions {
        priority: line.number("priority").unwrap_or(0) as u8,
        deliver_at_ms: line.number("due").unwrap_or(0) * 1_000,
        expire_at_ms: line.number("expires").unwrap_or(0) * 1_000,
    }
}

fn rules(line: &Line<'_>) -> Rules {
    let retry = match line.number("pause") {
        Some(pause_s) => RetryPolicy::Fixed { pause_ms: pause_s * 1_000 },
        None => RetryPolicy::Immediate,
    };
    let ack_deadline_ms = line.number("deadline").unwrap_or(30) * 1_000;
    let max_attempts = line.number("attempts").map(|attempts| attempts as u32);
    Rules { ack_deadline_ms, retry, max_attempts, ordered: line.words.contains(&"ordered") }
}

fn bounds(line: &Line<'_>) -> Bounds {
    let bound = |key| line.number(key).unwrap_or(1_000) as usize;
    Bounds {
        unsettled: bound("unsettled"),
        intervals: bound("intervals"),
        read_ahead: bound("read_ahead"),
        dead_letters: bound("dead_letters"),
        keys: KeyBounds {
            line: line.number("line").map_or(KeyBounds::LIMITS.line, |most| most as usize),
            lines_total: line.number("lines_total").map_or(KeyBounds::LIMITS.lines_total, |most| most as usize),
            batch: line.number("batch").map_or(KeyBounds::LIMITS.batch, |most| most as usize),
        },
    }
}

pub(crate) fn state_text(state: &SubscriptionState) -> String {
    let mut out = String::new();
    for (lane, settled) in state.lanes() {
        let ranges = settled.intervals().map(|range| format!("{}..{}", range.start, range.end));
        let delayed = if lane.delayed { " delayed" } else { "" };
        let name = if *lane == Lane::LOG { String::new() } else { format!("in priority {}{delayed} ", lane.priority) };
        writeln!(out, "settled {name}{}", ranges.collect::<Vec<_>>().join(" ")).unwrap();
        assert!(Settled::len(settled) < 100);
    }
    for (position, retry) in state.retries() {
        let error = if retry.error.is_empty() { String::new() } else { format!(", {:?}", retry.error) };
        writeln!(out, "{} after {} attempts, due at {} ms{error}", position.place, retry.attempts, retry.due_ms)
            .unwrap();
    }
    for (number, letter) in state.outbox().letters() {
        let error = if letter.error.is_empty() { String::new() } else { format!(", {:?}", letter.error) };
        writeln!(out, "dead letter {number}: {} after {} attempts{error}", letter.offset, letter.attempts).unwrap();
    }
    let tally = state.tally();
    write!(out, "{} acknowledged, {} returned", tally.acknowledged, tally.returned).unwrap();
    if tally.expired > 0 {
        write!(out, ", {} expired", tally.expired).unwrap();
    }
    writeln!(out, ", {} dead-lettered, {} lost", tally.dead_lettered, tally.lost).unwrap();
    out
}

pub(crate) fn reply_text(reply: &Result<SubscriptionChanged, SubscriptionRejected>) -> String {
    match reply {
        Ok(changed) => format!("generation {}\n", changed.generation),
        Err(rejected) => format!("refused: {rejected}\n"),
    }
}

//! Ordering keys: while a message of a key is out, the later ones wait in line.
//!
//! A line holds a few messages. How many more there are isn't noted, only where the first of them is: when the line
//! has moved up, the log is read again from there. So a key that waits for hours costs no memory, and holds up no other.

use std::collections::{BTreeMap, BTreeSet};

use super::{KeyBounds, KeyHash, Lane, Parcel, Place, Position, SessionId};

#[derive(Clone, Debug)]
pub(super) struct Lines {
    bounds: KeyBounds,
    lines: BTreeMap<KeyHash, Line>,
    /// Messages that wait, over all keys.
    waiting: usize,
    /// Keys whose line has moved up and goes on in the log.
    short: BTreeSet<KeyHash>,
}

/// A key of which something is out, or waits.
#[derive(Clone, Debug, Default)]
struct Line {
    /// In flight, scheduled for another attempt, or settled but not yet certainly so.
    out: BTreeSet<Position>,
    /// Next.
    waiting: BTreeMap<Position, Parcel>,
    /// From here on messages of the key wait that aren't in the line.
    behind: BTreeMap<Lane, Place>,
    /// Who got what is out, and in which round.
    batch: Option<(SessionId, u64)>,
}

impl Lines {
    pub(super) fn new(bounds: KeyBounds) -> Self {
        Self { bounds, lines: BTreeMap::new(), waiting: 0, short: BTreeSet::new() }
    }

    /// Whether nothing is known of the key, so that whoever comes is next.
    pub(super) fn is_unknown(&self, key: KeyHash) -> bool {
        !self.lines.contains_key(&key)
    }

    /// Whether nothing of the key is out, so that its next message may go to anybody.
    pub(super) fn is_free(&self, key: KeyHash) -> bool {
        self.lines.get(&key).is_none_or(|line| line.out.is_empty())
    }

    /// Who may have the key's next message although others are out: whoever got those in the same round.
    pub(super) fn batch(&self, key: KeyHash, round: u64) -> Option<SessionId> {
        let line = self.lines.get(&key).filter(|line| line.out.len() < self.bounds.batch)?;
        line.batch.filter(|(_, of)| *of == round).map(|(session, _)| session)
    }

    /// A message of the key goes out. Without a batch no other may go with it.
    pub(super) fn goes_out(&mut self, key: KeyHash, position: Position, batch: Option<(SessionId, u64)>) {
        let line = self.lines.entry(key).or_default();
        line.out.insert(position);
        line.batch = batch;
    }

    /// A message is out no more, whatever became of it.
    pub(super) fn comes_back(&mut self, key: KeyHash, position: Position) {
        if let Some(line) = self.lines.get_mut(&key) {
            line.out.remove(&position);
        }
    }

    /// Whether this message of the key is out.
    pub(super) fn is_out(&self, key: KeyHash, position: Position) -> bool {
        self.lines.get(&key).is_some_and(|line| line.out.contains(&position))
    }

    /// Messages of the key that are out.
    pub(super) fn out(&self, key: KeyHash) -> Vec<Position> {
        self.lines.get(&key).map(|line| line.out.iter().copied().collect()).unwrap_or_default()
    }

    /// A message gets into line, if there is room; else it is found in the log later.
    pub(super) fn wait(&mut self, key: KeyHash, position: Position, parcel: Parcel) {
        if self.is_forgotten(key, position) {
            return;
        }
        let line = self.lines.entry(key).or_default();
        let most = if self.waiting < self.bounds.lines_total { self.bounds.line } else { 1 };
        self.waiting += usize::from(line.waiting.insert(position, parcel).is_none());
        if line.waiting.len() > most
            && let Some((last, _)) = line.waiting.pop_last()
        {
            self.waiting -= 1;
            line.behind.insert(last.lane, last.place);
        }
    }

    /// A message that waited was settled meanwhile.
    pub(super) fn leaves(&mut self, key: KeyHash, position: Position) {
        if let Some(line) = self.lines.get_mut(&key) {
            self.waiting -= usize::from(line.waiting.remove(&position).is_some());
        }
    }

    /// Who is next, all of the line, unless something is still out.
    pub(super) fn move_up(&mut self, key: KeyHash) -> BTreeMap<Position, Parcel> {
        let Some(line) = self.lines.get_mut(&key).filter(|line| line.out.is_empty()) else { return BTreeMap::new() };
        let next = std::mem::take(&mut line.waiting);
        self.waiting -= next.len();
        if line.behind.is_empty() {
            self.lines.remove(&key);
        } else {
            self.short.insert(key);
        }
        next
    }

    /// Whether no line goes on in the log.
    pub(super) fn is_complete(&self) -> bool {
        self.short.is_empty()
    }

    /// Where the log is to be read again, and for which key, if that may be.
    pub(super) fn wanted(&self, may_be: impl Fn(KeyHash, Lane) -> bool) -> Option<(KeyHash, Position)> {
        self.short.iter().find_map(|key| {
            let mut behind = self.lines.get(key)?.behind.iter().rev();
            let (lane, place) = behind.find(|(lane, _)| may_be(*key, **lane))?;
            Some((*key, Position { lane: *lane, place: *place }))
        })
    }

    /// Whether a message of the key is among those that wait in the log.
    pub(super) fn is_forgotten(&self, key: KeyHash, position: Position) -> bool {
        self.behind(key, position.lane).is_some_and(|behind| position.place >= behind)
    }

    /// From where on messages of a key wait in the log.
    pub(super) fn behind(&self, key: KeyHash, lane: Lane) -> Option<Place> {
        self.lines.get(&key)?.behind.get(&lane).copied()
    }

    /// A lane was read again for a key, from where its line ended. `found` is what is of the key, in order; what lies
    /// behind `more` is still to be read.
    pub(super) fn refill(&mut self, key: KeyHash, lane: Lane, found: &[(Place, Parcel)], more: Option<Place>) {
        let Some(line) = self.lines.get_mut(&key) else { return };
        let (next, rest) = found.split_at(found.len().min(self.bounds.line));
        for (place, parcel) in next {
            let position = Position { lane, place: *place };
            self.waiting += usize::from(line.waiting.insert(position, *parcel).is_none());
        }
        match rest.first().map(|(place, _)| *place).or(more) {
            Some(place) => line.behind.insert(lane, place),
            None => line.behind.remove(&lane),
        };
        if !next.is_empty() || line.behind.is_empty() {
            self.short.remove(&key);
        }
        if line.out.is_empty() && line.waiting.is_empty() && line.behind.is_empty() {
            self.lines.remove(&key);
        }
    }
}

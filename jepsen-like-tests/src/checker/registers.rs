//! A topic's name is a register, and what is done to it is linearizable: all operations seem to happen one after another,
//! each at a moment between its beginning and its end.
//!
//! The search is that of Wing and Gong (Testing and Verifying Concurrent Objects, 1993) with the memory of Lowe (Testing for
//! linearizability, 2017): a set of operations that have happened and the state after them is tried once.

use std::collections::{BTreeMap, HashSet};

use crate::history::{Action, History, Phase, TopicOperation};

/// The topic's value, if it is there.
type State = Option<u64>;

/// Something that was done or found out, at some moment of an interval.
#[derive(Clone, Copy, Debug)]
struct Step {
    began: usize,
    /// `usize::MAX`: perhaps not before the end of the history.
    ended: usize,
    /// It may never have happened.
    optional: bool,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Operation(TopicOperation),
    Refused { exists: bool },
}

/// Steps of one register that are searched; a busier one must be shortened.
const STEPS_MAX: usize = 2_000;

/// States that are tried before the search gives up: it says so, and never that all is well.
const TRIED_MAX: usize = 5_000_000;

pub(super) fn check(history: &History) -> Vec<String> {
    let mut complaints = Vec::new();
    for (name, steps) in registers(history) {
        match linearizable(&steps) {
            Ok(true) => {}
            Ok(false) => {
                complaints.push(format!("no order of the {} operations on topic {name} explains them", steps.len()))
            }
            Err(why) => complaints.push(format!("topic {name} can't be judged: {why}")),
        }
    }
    complaints
}

fn registers(history: &History) -> BTreeMap<&str, Vec<Step>> {
    let mut open: BTreeMap<u64, (usize, &str, TopicOperation)> = BTreeMap::new();
    let mut registers: BTreeMap<&str, Vec<Step>> = BTreeMap::new();
    for (at, event) in history.events.iter().enumerate() {
        let Action::Topic { name, operation, exists, .. } = &event.action else { continue };
        if event.phase == Phase::Invoke {
            open.insert(event.op, (at, name, *operation));
            continue;
        }
        let began = open.remove(&event.op).map_or(at, |(began, ..)| began);
        let steps = registers.entry(name).or_default();
        let step = |what, optional, ended| Step { began, ended, optional, what };
        match (event.phase, exists) {
            (Phase::Ok, _) => steps.push(step(What::Operation(*operation), false, at)),
            (Phase::Fail, Some(exists)) => steps.push(step(What::Refused { exists: *exists }, false, at)),
            (Phase::Unknown, _) if !matches!(operation, TopicOperation::Look { .. }) => {
                steps.push(step(What::Operation(*operation), true, usize::MAX));
            }
            _ => {}
        }
    }
    for (began, name, operation) in open.into_values() {
        let what = What::Operation(operation);
        registers.entry(name).or_default().push(Step { began, ended: usize::MAX, optional: true, what });
    }
    registers
}

impl What {
    /// The state after it, if it can happen in `state`.
    fn after(self, state: State) -> Option<State> {
        match self {
            Self::Operation(TopicOperation::Create { value }) => state.is_none().then_some(Some(value)),
            Self::Operation(TopicOperation::Write { value }) => state.map(|_| Some(value)),
            // The answer to a first attempt may have been lost, and somebody else's delete been taken for its own.
            Self::Operation(TopicOperation::Delete) => Some(None),
            Self::Operation(TopicOperation::Look { value }) => (state == value).then_some(state),
            Self::Refused { exists } => (state.is_some() == exists).then_some(state),
        }
    }
}

/// Whether an order exists.
fn linearizable(steps: &[Step]) -> Result<bool, String> {
    if steps.len() > STEPS_MAX {
        return Err(format!("{} operations, at most {STEPS_MAX} can be searched", steps.len()));
    }
    let mut steps = steps.to_vec();
    steps.sort_unstable_by_key(|step| step.began);
    let mut search = Search { tried: HashSet::new(), steps };
    search.run()
}

struct Search {
    steps: Vec<Step>,
    tried: HashSet<(Vec<u64>, State)>,
}

impl Search {
    /// Depth first, without recursion: a history may be longer than the stack.
    fn run(&mut self) -> Result<bool, String> {
        let words = self.steps.len().div_ceil(64);
        let mut stack = vec![(vec![0_u64; words], None)];
        while let Some((happened, state)) = stack.pop() {
            let is_done = |step: usize| happened[step / 64] & (1 << (step % 64)) != 0;
            let left = || (0..self.steps.len()).filter(|step| !is_done(*step));
            if left().all(|step| self.steps[step].optional) {
                return Ok(true);
            }
            // Nothing can happen before something else that ended before it began.
            let first_end = left().map(|step| self.steps[step].ended).min().unwrap_or(usize::MAX);
            let next: Vec<_> = left()
                .take_while(|step| self.steps[*step].began <= first_end)
                .filter_map(|step| Some((step, self.steps[step].what.after(state)?)))
                .collect();
            for (step, state) in next.into_iter().rev() {
                let mut happened = happened.clone();
                happened[step / 64] |= 1 << (step % 64);
                if self.tried.insert((happened.clone(), state)) {
                    stack.push((happened, state));
                }
            }
            if self.tried.len() > TRIED_MAX {
                return Err(format!("{TRIED_MAX} states were tried"));
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::history::{Action, History, Phase, Recorder, TopicOperation as Op};
    use crate::trace::Trace;

    /// Operations as (begin, end, operation, how it ended, what a refusal says): begins and ends are moments.
    fn complaints(operations: &[(u32, u32, Op, Phase, Option<bool>)]) -> usize {
        let recorder = Recorder::new(Trace::new());
        let action = |operation, exists| Action::Topic { name: "a".to_owned(), operation, exists, why: String::new() };
        let mut moments: Vec<(u32, bool, usize)> = Vec::new();
        for (number, (began, ended, ..)) in operations.iter().enumerate() {
            moments.extend([(*began, false, number), (*ended, true, number)]);
        }
        moments.sort_unstable();
        let mut open = std::collections::BTreeMap::new();
        for (_, is_end, number) in moments {
            let (_, _, operation, phase, exists) = operations[number];
            if is_end {
                recorder.end(&open[&number], phase, action(operation, exists));
            } else {
                open.insert(number, recorder.invoke(&number.to_string(), action(operation, None)));
            }
        }
        let history: History = recorder.history();
        check(&history).len()
    }

    const CREATE: Op = Op::Create { value: 1 };
    const CREATE_2: Op = Op::Create { value: 2 };
    const WRITE: Op = Op::Write { value: 7 };
    const ABSENT: Op = Op::Look { value: None };

    fn look(value: u64) -> Op {
        Op::Look { value: Some(value) }
    }

    #[test]
    fn one_after_another() {
        let ok = |began, operation| (began, began + 1, operation, Phase::Ok, None);
        assert_eq!(complaints(&[ok(0, CREATE), ok(2, WRITE), ok(4, look(7)), ok(6, Op::Delete), ok(8, ABSENT)]), 0);
        assert_eq!(complaints(&[ok(0, CREATE), ok(2, CREATE_2)]), 1, "it was there");
        assert_eq!(complaints(&[ok(0, WRITE)]), 1, "it wasn't there");
        assert_eq!(complaints(&[ok(0, CREATE), ok(2, WRITE), ok(4, look(1))]), 1, "a lost write");
        assert_eq!(complaints(&[ok(0, CREATE), ok(2, ABSENT)]), 1, "a lost topic");
    }

    #[test]
    fn at_the_same_time_in_any_order() {
        let during = |began, ended, operation| (began, ended, operation, Phase::Ok, None);
        let both = [during(0, 9, CREATE), during(1, 8, Op::Delete), during(2, 7, CREATE_2)];
        assert_eq!(complaints(&both), 0);
        assert_eq!(complaints(&[both[0], both[2]]), 1, "both can't have made it");
    }

    #[test]
    fn what_nobody_knows_may_have_happened_or_not() {
        let unknown = |began, operation| (began, began + 1, operation, Phase::Unknown, None);
        let ok = |began, operation| (began, began + 1, operation, Phase::Ok, None);
        assert_eq!(complaints(&[unknown(0, CREATE), ok(2, look(1))]), 0);
        assert_eq!(complaints(&[unknown(0, CREATE), ok(2, ABSENT)]), 0);
        assert_eq!(complaints(&[unknown(0, CREATE), ok(2, ABSENT), ok(4, look(1))]), 0, "it may come late");
        assert_eq!(complaints(&[unknown(0, CREATE), ok(2, look(2))]), 1);
    }

    #[test]
    fn a_delete_that_is_executed_twice_is_noticed() {
        let ok = |began, ended, operation| (began, ended, operation, Phase::Ok, None);
        let refused = (6, 7, WRITE, Phase::Fail, Some(false));
        // The delete removes the first topic, and then, repeated, the second.
        assert_eq!(complaints(&[ok(0, 1, CREATE), ok(2, 9, Op::Delete), ok(3, 4, CREATE_2), refused]), 1);
    }
}

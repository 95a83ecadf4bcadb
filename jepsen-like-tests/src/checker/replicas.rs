//! After everything has come to rest, all replicas of a group hold the same log, and a restart would make the same state
//! of it on each: of the newest checkpoint, and of the log behind it.

use std::collections::BTreeMap;

use crate::history::{Action, History};

/// The logs of one group, as its disks have them.
#[derive(Clone, Debug)]
pub struct GroupLogs {
    /// Which group, for people.
    pub group: String,
    /// By node: the entries by index.
    pub replicas: BTreeMap<u64, BTreeMap<u64, LogLine>>,
    /// By node: a hash of the state after the last entry.
    pub states: BTreeMap<u64, u64>,
}

/// One entry of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Term in which it was proposed.
    pub term: u64,
    /// Hash of what it holds.
    pub content: u64,
}

pub(super) fn check(history: &History) -> Vec<String> {
    let found = history.events.iter().filter_map(|event| match &event.action {
        Action::Compared { differences, .. } => Some(differences.clone()),
        _ => None,
    });
    found.flatten().collect()
}

impl GroupLogs {
    /// What a comparison of the logs gives, for the history.
    #[must_use]
    pub fn compared(&self) -> Action {
        Action::Compared {
            group: self.group.clone(),
            replicas: self.replicas.len(),
            entries: self.replicas.values().map(BTreeMap::len).max().unwrap_or_default(),
            differences: differences(self),
        }
    }
}

fn differences(group: &GroupLogs) -> Vec<String> {
    let mut found = Vec::new();
    let mut replicas = group.replicas.iter();
    if let Some((first_node, first)) = replicas.next() {
        for (node, log) in replicas {
            let differs = first.keys().chain(log.keys()).find(|index| first.get(index) != log.get(index));
            found.extend(differs.map(|index| {
                format!(
                    "{}: entry {index} is {} on node {first_node} and {} on node {node}",
                    group.group,
                    described(first.get(index)),
                    described(log.get(index))
                )
            }));
        }
    }
    let mut states = group.states.iter();
    if found.is_empty()
        && let Some((first_node, first)) = states.next()
    {
        let others = states.filter(|(_, state)| *state != first);
        found.extend(others.map(|(node, state)| {
            format!("{}: the state is {first:016x} on node {first_node} and {state:016x} on node {node}", group.group)
        }));
    }
    found
}

fn described(line: Option<&LogLine>) -> String {
    line.map_or_else(|| "missing".to_owned(), |line| format!("{:016x} of term {}", line.content, line.term))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{GroupLogs, LogLine, check};
    use crate::checker::script::Script;

    fn complaints(logs: &[&[(u64, u64)]]) -> usize {
        let log = |lines: &[(u64, u64)]| {
            (0..).zip(lines.iter().map(|(term, content)| LogLine { term: *term, content: *content })).collect()
        };
        let replicas = (1..).zip(logs.iter().map(|lines| log(lines))).collect();
        told(&GroupLogs { group: "g".to_owned(), replicas, states: BTreeMap::new() })
    }

    fn told(logs: &GroupLogs) -> usize {
        check(&Script::new().remark(logs.compared()).history()).len()
    }

    #[test]
    fn equal_logs_are_equal_and_others_are_not() {
        assert_eq!(complaints(&[&[(1, 7), (2, 8)], &[(1, 7), (2, 8)], &[(1, 7), (2, 8)]]), 0);
        assert_eq!(complaints(&[&[(1, 7), (2, 8)], &[(1, 7), (2, 9)]]), 1, "other content");
        assert_eq!(complaints(&[&[(1, 7), (2, 8)], &[(1, 7), (3, 8)]]), 1, "another term");
        assert_eq!(complaints(&[&[(1, 7), (2, 8)], &[(1, 7)]]), 1, "an entry too few");
        assert_eq!(complaints(&[&[(1, 7)], &[(1, 7)], &[]]), 1, "an empty log");
    }

    #[test]
    fn equal_logs_make_equal_states() {
        let logs = |states: [(u64, u64); 3]| GroupLogs {
            group: "g".to_owned(),
            replicas: BTreeMap::new(),
            states: states.into(),
        };
        assert_eq!(told(&logs([(1, 7), (2, 7), (3, 7)])), 0);
        assert_eq!(told(&logs([(1, 7), (2, 8), (3, 7)])), 1);
    }
}

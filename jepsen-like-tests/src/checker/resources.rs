//! No node panics, and none uses more memory or more open files than it should.

use crate::history::{Action, History};

/// Memory that a process may hold: what `limits.memory_bytes` is unless set, with as much again for the rest.
const RESIDENT_KIB_MAX: u64 = 1 << 20;

/// Files and connections that a process may have open: some connections for each of its peers and clients, and the files
/// of a database of this size.
const OPEN_FILES_MAX: u64 = 600;

pub(super) fn check(history: &History) -> Vec<String> {
    history.events.iter().flat_map(|event| complaints(&event.action)).collect()
}

fn complaints(action: &Action) -> Vec<String> {
    let Action::Resources { node, resident_kib, open_files, panics } = action else { return Vec::new() };
    let above = |what: &str, used: u64, limit: u64| {
        (used > limit).then(|| format!("node {node}: {used} {what}, where {limit} are the limit"))
    };
    let used = [
        above("KiB of memory", *resident_kib, RESIDENT_KIB_MAX),
        above("open files", *open_files, OPEN_FILES_MAX),
        above("panics", *panics, 0),
    ];
    used.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::{OPEN_FILES_MAX, RESIDENT_KIB_MAX, check};
    use crate::checker::script::Script;
    use crate::history::Action;

    #[test]
    fn the_ceilings_are_allowed_and_one_past_them_is_not() {
        let found = |resident_kib, open_files, panics| {
            check(&Script::new().remark(Action::Resources { node: 1, resident_kib, open_files, panics }).history())
        };
        assert!(found(RESIDENT_KIB_MAX, OPEN_FILES_MAX, 0).is_empty());
        assert_eq!(found(RESIDENT_KIB_MAX + 1, 1, 0).len(), 1);
        assert_eq!(found(1, OPEN_FILES_MAX + 1, 0).len(), 1);
        assert_eq!(found(1, 1, 1).len(), 1);
    }
}

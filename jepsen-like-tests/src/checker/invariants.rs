//! At no moment did a replica do what Raft rules out. The simulation watches; here it is only read.

use crate::history::{Action, History};

pub(super) fn check(history: &History) -> Vec<String> {
    let broken = history.events.iter().filter_map(|event| match &event.action {
        Action::Invariant { broken } => Some(broken.clone()),
        _ => None,
    });
    broken.collect()
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::checker::script::Script;
    use crate::history::Action;

    #[test]
    fn what_was_seen_is_told() {
        assert!(check(&Script::new().published("m1", 0).history()).is_empty());
        let seen = Script::new().remark(Action::Invariant { broken: "two leaders".to_owned() });
        assert_eq!(check(&seen.history()), ["two leaders"]);
    }
}

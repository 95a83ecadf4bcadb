//! No node gives up, and the run comes to its end: the faults injected here are ones to survive.

use crate::history::{Action, History};

pub(super) fn check(history: &History) -> Vec<String> {
    let broken = history.events.iter().filter_map(|event| match &event.action {
        Action::Broken { what } => Some(format!("{} ms: {what}", event.at_ms)),
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
    fn a_node_that_gave_up_is_noticed() {
        assert!(check(&Script::new().published("m1", 0).history()).is_empty());
        let broken = Script::new().remark(Action::Broken { what: "node 1: the disk failed".to_owned() });
        assert_eq!(check(&broken.history()).len(), 1);
    }
}

//! A topic that is made anew under the name of an old one has nothing of it, and keeps what was published to itself.

use std::collections::BTreeSet;

use crate::history::{Action, History, Phase};

pub(super) fn check(history: &History) -> Vec<String> {
    let mut complaints = Vec::new();
    for event in history.events.iter().filter(|event| event.phase == Phase::Ok) {
        let Action::Found { name, topic: Some(topic), messages, .. } = &event.action else { continue };
        let found: BTreeSet<&str> = messages.iter().map(String::as_str).collect();
        let foreign = found.iter().filter(|message| message.split('/').next() != Some(&topic.to_string()));
        complaints.extend(foreign.map(|message| format!("topic {name} with id {topic} holds {message} of another")));
        if found.len() < messages.len() {
            complaints.push(format!("topic {name} with id {topic} holds a message twice"));
        }
        for earlier in history.events.iter().filter(|event| event.phase == Phase::Ok) {
            if let Action::PublishTo { topic: to, message, .. } = &earlier.action
                && to == topic
                && !found.contains(message.as_str())
            {
                complaints.push(format!("{message} was acknowledged by topic {name}, and is missing from it"));
            }
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::checker::script::Script;
    use crate::history::Action;

    fn published(message: &str, topic: u64) -> Action {
        Action::PublishTo { name: "a".to_owned(), topic, message: message.to_owned(), why: String::new() }
    }

    fn found(topic: u64, messages: &[&str]) -> Action {
        let messages = messages.iter().map(|message| (*message).to_owned()).collect();
        Action::Found { name: "a".to_owned(), topic: Some(topic), messages, why: String::new() }
    }

    #[test]
    fn a_topic_has_its_own_messages_and_all_of_them() {
        let complaints = |messages: &[&str]| {
            let script = Script::new().remark(published("7/1", 7)).remark(published("8/2", 8));
            check(&script.remark(found(8, messages)).history()).len()
        };
        assert_eq!(complaints(&["8/2"]), 0);
        assert_eq!(complaints(&["7/1", "8/2"]), 1, "of its predecessor");
        assert_eq!(complaints(&[]), 1, "lost");
        assert_eq!(complaints(&["8/2", "8/2"]), 1, "twice");
    }
}

//! The bugs that can be planted, as `quorate-model` lists them, and where they are planted.

use crate::steps::Failure;
use crate::tidy;
use std::path::Path;

/// Where they are listed.
const LIST: &str = "crates/model/src/sabotage.rs";

/// A bug that can be planted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Bug {
    /// As the table and the environment name it.
    pub(crate) name: String,
    /// What is broken.
    pub(crate) sentence: String,
    /// The files in which it is planted.
    pub(crate) places: Vec<String>,
}

/// Reads the list, and looks for each bug in the sources.
pub(crate) fn read(root: &Path) -> Result<Vec<Bug>, Failure> {
    let sources = tidy::sources(root)?;
    let list = sources.iter().find(|(path, _)| path == LIST);
    let (_, text) = list.ok_or_else(|| Failure::new(format!("{LIST} is not there."), "It lists the planted bugs."))?;
    let bug = |(variant, sentence): (String, String)| {
        let planted = format!("is_planted(Bug::{variant})");
        let places = sources.iter().filter(|(path, text)| path != LIST && text.contains(&planted));
        Bug { name: name_of(&variant), sentence, places: places.map(|(path, _)| path.clone()).collect() }
    };
    Ok(variants(text).into_iter().map(bug).collect())
}

/// What is wrong with the table.
pub(crate) fn complaints(bugs: &[Bug], rows: &[&str]) -> Vec<String> {
    let without_row = bugs.iter().filter(|bug| !rows.contains(&bug.name.as_str()));
    let without_row = without_row.map(|bug| format!("{LIST}: nothing is named that catches {}", bug.name));
    let nowhere = bugs.iter().filter(|bug| bug.places.is_empty());
    let nowhere = nowhere.map(|bug| format!("{LIST}: {} is planted nowhere", bug.name));
    let unknown = rows.iter().filter(|row| bugs.iter().all(|bug| bug.name != **row));
    let unknown = unknown.map(|row| format!("the table of rungs: there is no bug {row}"));
    without_row.chain(nowhere).chain(unknown).collect()
}

/// The variants of the enum with the sentences above them.
fn variants(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().skip_while(|line| *line != "pub enum Bug {").skip(1).take_while(|line| *line != "}");
    let mut found = Vec::new();
    let mut sentence = Vec::new();
    for line in lines.map(str::trim) {
        match line.strip_prefix("/// ") {
            Some(words) => sentence.push(words),
            None => found.push((line.trim_end_matches(',').to_owned(), std::mem::take(&mut sentence).join(" "))),
        }
    }
    found
}

fn name_of(variant: &str) -> String {
    let mut name = String::new();
    for character in variant.chars() {
        if character.is_ascii_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(character.to_ascii_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bug(name: &str, places: &[&str]) -> Bug {
        let places = places.iter().map(|place| (*place).to_owned()).collect();
        Bug { name: name.to_owned(), sentence: String::new(), places }
    }

    #[test]
    fn variants_are_read_with_their_sentences() {
        let text =
            "pub enum Bug {\n    /// One\n    /// sentence.\n    AckEarly,\n    /// Another.\n    X,\n}\nenum Y {\n";
        let expected = [("AckEarly", "One sentence."), ("X", "Another.")];
        assert_eq!(variants(text), expected.map(|(variant, sentence)| (variant.to_owned(), sentence.to_owned())));
        assert_eq!(name_of("AckEarly"), "ack-early");
    }

    #[test]
    fn a_bug_that_nothing_catches_or_that_is_nowhere_is_named() {
        assert_eq!(complaints(&[bug("a", &["x.rs"])], &["a"]), [""; 0]);
        assert_eq!(complaints(&[bug("a", &["x.rs"])], &[]).len(), 1, "no row");
        assert_eq!(complaints(&[bug("a", &[])], &["a"]).len(), 1, "planted nowhere");
        assert_eq!(complaints(&[], &["a"]).len(), 1, "no such bug");
    }
}

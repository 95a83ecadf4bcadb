//! Transcripts: each file under `tests/scenarios` tells a story as commands and what they answer.
//!
//! A command is one line, `----` follows, then the expected output up to an empty line. Lines that begin
//! with `#` are comment. After a change that was meant, `UPDATE_SCENARIOS=1 cargo test` rewrites the
//! answers; read the difference before it is committed.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod transcript;

use std::fs;
use std::path::PathBuf;

use transcript::World;

#[test]
fn every_transcript_tells_what_happens() {
    let update = std::env::vars().any(|(key, _)| key == "UPDATE_SCENARIOS");
    let mut files: Vec<PathBuf> = fs::read_dir("tests/scenarios")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    assert!(!files.is_empty());

    let mut different = Vec::new();
    for file in files {
        let expected = fs::read_to_string(&file).unwrap();
        let actual = retell(&expected);
        if actual == expected {
            continue;
        }
        if update {
            fs::write(&file, actual).unwrap();
        } else {
            different.push(format!("{}:\n{}", file.display(), first_difference(&expected, &actual)));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

/// The transcript with the answers that the machines give now.
fn retell(transcript: &str) -> String {
    let mut world = World::new();
    let mut out = String::new();
    let mut lines = transcript.lines();
    while let Some(line) = lines.next() {
        out.push_str(line);
        out.push('\n');
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        out.push_str("----\n");
        out.push_str(&world.run(line));
        out.push('\n');
        // The old answer, with its separator in front and its empty line behind.
        for old in lines.by_ref() {
            if old.is_empty() {
                break;
            }
        }
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn first_difference(expected: &str, actual: &str) -> String {
    let (number, (old, new)) =
        expected.lines().zip(actual.lines()).enumerate().find(|(_, (old, new))| old != new).unwrap_or((0, ("", "")));
    format!("  line {}\n  expected: {old}\n  actual:   {new}", number + 1)
}

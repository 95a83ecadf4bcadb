//! How long a source file may be, and what it may not be called.

/// Past this length a file has more than one subject.
const LINES_MAX: usize = 500;

/// Files that may be longer, each with the reason.
const LONGER: [(&str, &str); 0] = [];

/// Names that say nothing about what is inside, so that anything ends up there.
const FORBIDDEN: [&str; 9] = ["common", "util", "utils", "helper", "helpers", "misc", "base", "manager", "managers"];

pub(crate) fn length_complaint(path: &str, lines: usize) -> Option<String> {
    let excused = LONGER.iter().any(|(file, _)| *file == path);
    (lines > LINES_MAX && !excused).then(|| format!("{path}: {lines} lines, {LINES_MAX} are allowed"))
}

pub(crate) fn name_complaint(path: &str) -> Option<String> {
    let parts = path.split('/').map(|part| part.strip_suffix(".rs").unwrap_or(part));
    let forbidden = parts.into_iter().find(|part| FORBIDDEN.contains(part))?;
    Some(format!("{path}: `{forbidden}` says nothing about what is inside"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_itself_is_allowed_and_one_past_it_is_not() {
        assert_eq!(length_complaint("a.rs", LINES_MAX), None);
        assert!(length_complaint("a.rs", LINES_MAX + 1).is_some());
    }

    #[test]
    fn folders_and_files_are_both_named_after_something() {
        assert!(name_complaint("crates/common/src/lib.rs").is_some());
        assert!(name_complaint("crates/model/src/util.rs").is_some());
        assert!(name_complaint("crates/model/src/helpers/a.rs").is_some());
        assert_eq!(name_complaint("crates/model/src/baseline.rs"), None);
    }
}

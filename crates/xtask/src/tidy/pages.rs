//! Links and headings of a Markdown page.

/// A relative link of a page.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// Line of the page, from 1.
    pub(crate) line: usize,
    pub(crate) target: String,
}

/// The links of a page that lead to another file or heading of the repository.
pub(crate) fn links(text: &str) -> Vec<Link> {
    let mut found = Vec::new();
    for (line, content) in prose(text) {
        let content = without_code(content);
        let inline = content.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
        let definition = content.strip_prefix('[').and_then(|rest| rest.split_once("]: ")).map(|(_, target)| target);
        for target in inline.chain(definition) {
            // A title may follow the target: [text](target "title").
            let target = target.split_whitespace().next().unwrap_or_default();
            if !target.contains("://") && !target.starts_with("mailto:") {
                found.push(Link { line, target: target.to_owned() });
            }
        }
    }
    found
}

/// The anchors of a page's headings, as GitHub makes them. A repeated heading gets `-1`, `-2` and so on.
pub(crate) fn headings(text: &str) -> Vec<String> {
    let mut anchors: Vec<String> = Vec::new();
    for (_, content) in prose(text) {
        let title = content.trim_start_matches('#');
        if title.len() == content.len() || !title.starts_with(' ') {
            continue;
        }
        let anchor = anchor(title.trim());
        let earlier = anchors
            .iter()
            .filter(|known| **known == anchor || known.strip_prefix(&anchor).is_some_and(is_repetition))
            .count();
        anchors.push(if earlier == 0 { anchor } else { format!("{anchor}-{earlier}") });
    }
    anchors
}

fn anchor(title: &str) -> String {
    let kept = title.chars().filter(|character| character.is_alphanumeric() || matches!(character, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn is_repetition(suffix: &str) -> bool {
    suffix
        .strip_prefix('-')
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The lines of a page, numbered from 1, outside fenced blocks of code.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fence && !fenced).then_some((index + 1, line))
    })
}

/// The line without its `code spans`, in which brackets are no links.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("``")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(text: &str) -> Vec<String> {
        links(text).into_iter().map(|link| link.target).collect()
    }

    #[test]
    fn relative_links_are_found_and_absolute_ones_left_alone() {
        let text = "See [a](docs/a.md) and [b](https://example.org/b), [c](c.md#part \"title\").\n[d]: d.md\n";
        assert_eq!(targets(text), ["docs/a.md", "c.md#part", "d.md"]);
        assert_eq!(links(text)[2], Link { line: 2, target: "d.md".to_owned() });
    }

    #[test]
    fn a_link_whose_text_is_code_is_a_link_and_code_is_not() {
        assert_eq!(targets("[`model`](crates/model) but `[x](y)`\n```\n[z](z)\n```\n"), ["crates/model"]);
    }

    #[test]
    fn headings_become_anchors_as_on_github() {
        let text = "# Quorate: a broker\n## What `read` does\n```\n# not a heading\n```\n## Twice\n## Twice\n#no\n";
        assert_eq!(headings(text), ["quorate-a-broker", "what-read-does", "twice", "twice-1"]);
    }
}

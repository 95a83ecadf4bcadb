//! What goes to standard output: text for people, or one JSON object per line.

use crate::failure::Failure;
use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use std::io::{self, IsTerminal, Write};

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// One JSON object per line, with stable fields.
    Json,
    /// `read` only: the bytes of each message and a newline, nothing else.
    Raw,
}

/// Standard output in the format that was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    pub(crate) format: Format,
}

impl Output {
    /// Prints one result: an object in JSON, the text otherwise.
    pub(crate) fn result(self, object: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.object(object),
            Format::Text | Format::Raw => print_line(text().trim_end_matches('\n')),
        }
    }

    /// Prints a list: one object per line in JSON, a table otherwise.
    pub(crate) fn list<T: Serialize>(
        self,
        header: &[&str],
        items: &[T],
        row: impl Fn(&T) -> Vec<String>,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Json => items.iter().try_for_each(|item| self.object(item)),
            Format::Text | Format::Raw => print_line(&table(header, items.iter().map(row))),
        }
    }

    pub(crate) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    fn object(self, object: &impl Serialize) -> Result<(), Failure> {
        let line = serde_json::to_string(object).map_err(|error| Failure::new(error.to_string()))?;
        print_line(&line)
    }
}

/// Columns without borders, which a person reads and `awk` takes apart.
pub(crate) fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(|title| title.to_uppercase()));
    table.add_rows(rows);
    // The library pads both sides of a cell; blanks at the ends of a line would only be in the way.
    if let Some(first) = table.column_mut(0) {
        first.set_padding((0, 1));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// Prints a line, unless nobody reads any more.
pub(crate) fn print_line(line: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(())
}

/// Whether progress may be drawn: only for a person who looks at a terminal.
pub(crate) fn shows_progress() -> bool {
    io::stderr().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_aligned_columns_and_no_leading_blanks() {
        let rows = [vec!["books".to_owned(), "6".to_owned()], vec!["b".to_owned(), "1".to_owned()]];
        let text = table(&["name", "partitions"], rows.into_iter());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("NAME"), "{text}");
        assert_eq!(lines[0].find("PARTITIONS"), lines[1].find('6'), "{text}");
    }
}

//! Lays file, environment and flags over each other. Knows which keys exist, not what their values mean.

use std::collections::BTreeMap;
use std::path::Path;

use super::keys::{self, AUTO, KEYS, Key, Kind, VARIABLE_PREFIX};
use super::problem::{ConfigError, Origin, Problem};

/// A value as it was written, and where.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) text: String,
    pub(crate) origin: Origin,
}

/// The uppermost value of each key; every key that has a default is there.
pub(crate) struct Layers {
    values: BTreeMap<&'static str, Written>,
    pub(crate) problems: Vec<Problem>,
}

impl Layers {
    pub(crate) fn of_defaults() -> Self {
        let written = |text: &str| Written { text: text.to_owned(), origin: Origin::Default };
        let values = KEYS.iter().filter_map(|key| Some((key.name, written(key.default?)))).collect();
        Self { values, problems: Vec::new() }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Written> {
        self.values.get(name)
    }

    /// Puts a number in the place of a word that stands for it.
    pub(crate) fn resolve(&mut self, name: &str, number: u64) {
        if let Some(written) = self.values.get_mut(name) {
            written.text = number.to_string();
        }
    }

    /// Lays a file's text over what there is.
    pub(crate) fn add_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let document: toml::Table = text.parse().map_err(|error: toml::de::Error| ConfigError::NotToml {
            path: path.to_owned(),
            message: error.to_string().trim_end().to_owned(),
        })?;
        let origin = Origin::File(path.to_owned());
        for (section, content) in document {
            match content {
                toml::Value::Table(table) => {
                    for (field, value) in table {
                        self.add_file_value(&format!("{section}.{field}"), &value, &origin);
                    }
                }
                // A key outside any section: no such key exists, but the suggestion may still find it.
                _ => self.unknown(section, origin.clone()),
            }
        }
        Ok(())
    }

    /// Lays environment variables over what there is. Only names that start like a section of ours are looked
    /// at: other `QUORATE_…` variables belong to the command line.
    pub(crate) fn add_environment(&mut self, variables: impl IntoIterator<Item = (String, String)>) {
        for (variable, text) in variables {
            let Some(rest) = variable.strip_prefix(VARIABLE_PREFIX) else { continue };
            if let Some(key) = KEYS.iter().find(|key| key.variable() == variable) {
                self.set(key, text, Origin::Environment(variable));
            } else if let Some((section, field)) = rest.to_lowercase().split_once('_')
                && KEYS.iter().any(|key| key.section() == section)
            {
                self.unknown(format!("{section}.{field}"), Origin::Environment(variable));
            }
        }
    }

    /// Lays `section.key=value` arguments over what there is.
    pub(crate) fn add_flags(&mut self, arguments: &[String]) {
        for argument in arguments {
            match argument.split_once('=') {
                None => self.problems.push(Problem::MalformedFlag { argument: argument.clone() }),
                Some((name, text)) => match keys::find(name.trim()) {
                    Some(key) => self.set(key, text.to_owned(), Origin::Flag),
                    None => self.unknown(name.trim().to_owned(), Origin::Flag),
                },
            }
        }
    }

    fn add_file_value(&mut self, name: &str, value: &toml::Value, origin: &Origin) {
        let Some(key) = keys::find(name) else {
            return self.unknown(name.to_owned(), origin.clone());
        };
        match text_of(value) {
            Some(text) => self.set(key, text, origin.clone()),
            None => self.problems.push(Problem::Invalid {
                field: key.name,
                value: value.to_string(),
                origin: origin.clone(),
                expected: expected(&key.kind),
            }),
        }
    }

    fn set(&mut self, key: &'static Key, text: String, origin: Origin) {
        self.values.insert(key.name, Written { text, origin });
    }

    fn unknown(&mut self, field: String, origin: Origin) {
        let suggestion = keys::suggestion(&field);
        self.problems.push(Problem::UnknownKey { field, origin, suggestion });
    }
}

/// What a kind accepts, in words.
pub(crate) fn expected(kind: &Kind) -> String {
    match kind {
        Kind::Text => "text".to_owned(),
        Kind::Address => "host:port, such as 127.0.0.1:50051".to_owned(),
        Kind::Integer { min, max } => format!("a whole number from {min} to {max}"),
        Kind::Share { ninths, min, max } => {
            format!("{AUTO}, which is {ninths}/9 of limits.memory_bytes, or a whole number from {min} to {max}")
        }
        Kind::Choice(words) => format!("one of {}", words.join(", ")),
        Kind::Voters => "one or more of NODE_ID=host:port, each node once".to_owned(),
    }
}

/// The one textual form in which file, environment and flags meet.
fn text_of(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Array(items) => {
            let items: Option<Vec<&str>> = items.iter().map(toml::Value::as_str).collect();
            Some(items?.join(","))
        }
        _ => None,
    }
}

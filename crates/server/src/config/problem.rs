//! What can be wrong with a configuration. Each problem names the field, the value and where it came from.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Where a setting came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The table of defaults.
    Default,
    /// The configuration file.
    File(PathBuf),
    /// An environment variable, by name.
    Environment(String),
    /// `--set section.key=value`.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => write!(f, "default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(variable) => write!(f, "environment variable {variable}"),
            Self::Flag => write!(f, "flag --set"),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// A key that doesn't exist.
    UnknownKey {
        /// As written.
        field: String,
        /// Where it was written.
        origin: Origin,
        /// The key that was probably meant.
        suggestion: Option<&'static str>,
    },
    /// A key without default that was given nowhere.
    Missing {
        /// `section.key`.
        field: &'static str,
    },
    /// A value that isn't accepted.
    Invalid {
        /// `section.key`.
        field: &'static str,
        /// As written.
        value: String,
        /// Where it was written.
        origin: Origin,
        /// What would be accepted.
        expected: String,
    },
    /// A `--set` argument that isn't `section.key=value`.
    MalformedFlag {
        /// As written.
        argument: String,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKey { field, origin, suggestion } => {
                write!(f, "{field}: unknown key ({origin})")?;
                match suggestion {
                    Some(name) => write!(f, "; did you mean {name}?"),
                    None => Ok(()),
                }
            }
            Self::Missing { field } => write!(f, "{field}: required, and given neither in the file nor elsewhere"),
            Self::Invalid { field, value, origin, expected } => {
                write!(f, "{field}: {value:?} isn't accepted ({origin}); expected {expected}")
            }
            Self::MalformedFlag { argument } => {
                write!(f, "--set {argument}: expected section.key=value")
            }
        }
    }
}

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("cannot read configuration file {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file isn't TOML.
    #[error("{} isn't valid TOML: {message}", path.display())]
    NotToml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// It was read, and is wrong: all problems at once, so that one look mends them.
    #[error("{}", lines(.0))]
    Problems(Vec<Problem>),
}

fn lines(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

//! What is wrong with a filter, and why one can't say anything about a message.

use std::fmt;

use cel::{ExecutionError, ParseErrors};
use quorate_model::limits::FILTER_BYTES_MAX;

use super::check::FUNCTIONS;
use super::message::VARIABLES;
use crate::limits::FILTER_NESTING_MAX;

/// Longest text of an error: what the library says may quote a message's attributes.
const TEXT_CHARS_MAX: usize = 200;

/// Why an expression can't be a filter.
#[derive(Debug, thiserror::Error)]
#[error("filter{}: {problem}", .place.map(|place| place.to_string()).unwrap_or_default())]
pub(crate) struct FilterError {
    pub(super) problem: Problem,
    pub(super) place: Option<Place>,
}

/// Where something is wrong, counted from 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// What is wrong with an expression.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error("it has {bytes} bytes, the limit is {FILTER_BYTES_MAX}")]
    TooLong { bytes: usize },
    #[error("it is nested more than {FILTER_NESTING_MAX} deep, which is the limit")]
    TooDeep,
    #[error("{0}")]
    Syntax(String),
    #[error("it can't be read")]
    Unreadable,
    #[error("there is no variable {0:?}; there are {list}", list = VARIABLES.join(", "))]
    UnknownVariable(String),
    #[error("there is no function {0:?}; there are has, {list}", list = FUNCTIONS.join(", "))]
    UnknownFunction(String),
    #[error("there are no loops: all, exists, exists_one, map and filter can't be used")]
    Loop,
    #[error("{0} can't be constructed")]
    Construction(String),
    #[error("{0}")]
    Kinds(FilterFailure),
}

/// Why an expression says nothing about a message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilterFailure {
    #[error("{}", shortened(.0))]
    Execution(#[from] ExecutionError),
    #[error("it says {kind} instead of true or false")]
    NotBool { kind: String },
    #[error("evaluating it broke down")]
    Panicked,
}

impl FilterError {
    /// The first of the parser's errors. They come in the order of the text.
    pub(super) fn syntax(errors: &ParseErrors) -> Self {
        // The parser gives this one a place in another unit, and wraps it.
        if errors.errors.iter().any(|error| error.msg.contains("Recursion limit")) {
            return Problem::TooDeep.into();
        }
        let Some(first) = errors.errors.first() else { return Problem::Unreadable.into() };
        let number = |number: isize| usize::try_from(number).ok();
        let place = number(first.pos.0).zip(number(first.pos.1)).map(|(line, column)| Place { line, column });
        Self { problem: Problem::Syntax(shortened(&first.msg.replace('\n', " "))), place }
    }
}

impl FilterError {
    /// Facts for a program: the field, where in it, and the value and limit where there is one.
    pub(crate) fn metadata(&self) -> Vec<(&'static str, String)> {
        let mut facts = vec![("field", "filter".to_owned())];
        if let Some(Place { line, column }) = self.place {
            facts.extend([("line", line.to_string()), ("column", column.to_string())]);
        }
        match self.problem {
            Problem::TooLong { bytes } => {
                facts.extend([("value", bytes.to_string()), ("limit", FILTER_BYTES_MAX.to_string())]);
            }
            Problem::TooDeep => facts.push(("limit", FILTER_NESTING_MAX.to_string())),
            _ => {}
        }
        facts
    }
}

impl From<Problem> for FilterError {
    fn from(problem: Problem) -> Self {
        Self { problem, place: None }
    }
}

impl FilterFailure {
    /// Whether it fails because of the kinds of what it looks at, rather than of their values.
    pub(super) fn is_about_kinds(&self) -> bool {
        match self {
            Self::NotBool { .. } => true,
            Self::Execution(error) => matches!(
                error,
                ExecutionError::NoSuchOverload(_)
                    | ExecutionError::UndeclaredReference(_)
                    | ExecutionError::UnexpectedType { .. }
                    | ExecutionError::UnsupportedBinaryOperator(..)
                    | ExecutionError::ValuesNotComparable(..)
                    | ExecutionError::UnsupportedKeyType(_)
            ),
            Self::Panicked => false,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ", line {}, column {}", self.line, self.column)
    }
}

fn shortened(text: &impl fmt::Display) -> String {
    let text = text.to_string();
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

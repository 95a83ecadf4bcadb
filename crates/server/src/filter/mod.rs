//! Which messages a subscription gets: a CEL expression over a message's attributes and system fields that says true or
//! false. docs/filters.md is its reference.
//!
//! Whoever can make a subscription has the leader run what he wrote, for every message. So all of it is bounded before
//! it runs: the length and the nesting of the text, and by them the stack; no loops, no regular expressions, no functions
//! but the ones that are listed, so that nothing is evaluated twice and a message costs no more than the text is long.

mod check;
mod error;
mod message;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use cel::common::types::CelBool;
use cel::parser::Expression;
use cel::{Context, Env, Value};
use quorate_model::limits::FILTER_BYTES_MAX;

use self::error::Problem;
pub(crate) use self::error::{FilterError, FilterFailure};
pub(crate) use self::message::Message;
use crate::limits::FILTER_NESTING_MAX;

/// The functions that expressions may use; those that [`check`] doesn't list can't be reached.
static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib().with_optional_support(false)));

/// A compiled expression.
#[derive(Debug)]
pub(crate) struct Filter {
    expression: Expression,
}

impl Filter {
    /// Reads an expression, and refuses what can't be evaluated or couldn't ever match.
    pub(crate) fn compile(text: &str) -> Result<Self, FilterError> {
        if text.len() > FILTER_BYTES_MAX {
            return Err(Problem::TooLong { bytes: text.len() }.into());
        }
        let parser = ENVIRONMENT.parser().max_recursion_depth(FILTER_NESTING_MAX);
        // The parser is somebody else's, and the text anybody's: should it panic, the caller is refused and no more.
        let parsed = catch_unwind(AssertUnwindSafe(|| parser.parse_with_source_info(text)));
        let (expression, source) =
            parsed.map_err(|_| Problem::Unreadable)?.map_err(|errors| FilterError::syntax(&errors))?;
        let attributes = check::expression(&expression, &source)?;
        let filter = Self { expression };
        filter.try_on(&Message::sample(&Default::default()))?;
        filter.try_on(&Message::sample(&message::record_with(attributes)))?;
        Ok(filter)
    }

    /// Whether a message is wanted. One for which the expression fails isn't; the caller counts it.
    pub(crate) fn matches(&self, message: &Message<'_>) -> Result<bool, FilterFailure> {
        catch_unwind(AssertUnwindSafe(|| self.evaluate(message))).unwrap_or(Err(FilterFailure::Panicked))
    }

    fn evaluate(&self, message: &Message<'_>) -> Result<bool, FilterFailure> {
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        context.set_variable_resolver(message);
        let value = Value::resolve_val(&self.expression, &context)?;
        match value.downcast_ref::<CelBool>() {
            Some(verdict) => Ok(*verdict.inner()),
            None => Err(FilterFailure::NotBool { kind: value.get_type().name().to_owned() }),
        }
    }

    /// What fails for the kinds of its operands fails for every message: variables have one kind each.
    fn try_on(&self, sample: &Message<'_>) -> Result<(), FilterError> {
        match self.matches(sample) {
            Err(failure) if failure.is_about_kinds() => Err(Problem::Kinds(failure).into()),
            _ => Ok(()),
        }
    }
}

//! Lists in pages: in the order of names, each page after the last name of the one before.

use std::fmt::Display;
use std::ops::Bound;
use std::str::FromStr;

use quorate_model::Reason;

use super::error::ApiError;
use crate::limits::{PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX};

/// Tells page tokens from anything else that someone may pass.
const TOKEN_PREFIX: &str = "after:";

/// Which page is asked for.
pub(super) struct Paging<Name> {
    size: usize,
    after: Option<Name>,
}

impl<Name: FromStr + Display + Ord> Paging<Name> {
    pub(super) fn of(page_size: u32, page_token: &str) -> Result<Self, ApiError> {
        let size = size_of(page_size)?;
        let after = match page_token {
            "" => None,
            token => Some(name_in(token)?),
        };
        Ok(Self { size, after })
    }

    /// Where in the order of names the page begins.
    pub(super) fn from(&self) -> Bound<&Name> {
        self.after.as_ref().map_or(Bound::Unbounded, Bound::Excluded)
    }

    /// The page out of what follows from there on, and the token of the next one.
    pub(super) fn cut<T: Copy>(&self, mut rest: impl Iterator<Item = T>, name: impl Fn(T) -> Name) -> (Vec<T>, String) {
        let page: Vec<T> = rest.by_ref().take(self.size).collect();
        let next = match (rest.next(), page.last()) {
            (Some(_), Some(last)) => format!("{TOKEN_PREFIX}{}", name(*last)),
            _ => String::new(),
        };
        (page, next)
    }
}

/// How many a page may have.
pub(super) fn size_of(page_size: u32) -> Result<usize, ApiError> {
    match usize::try_from(page_size).unwrap_or(usize::MAX) {
        0 => Ok(PAGE_SIZE_DEFAULT),
        size if size <= PAGE_SIZE_MAX => Ok(size),
        size => {
            let expected = format!("1 to {PAGE_SIZE_MAX}, or 0 for {PAGE_SIZE_DEFAULT}");
            Err(ApiError::invalid(Reason::InvalidArgument, "page_size", &size, &expected))
        }
    }
}

pub(super) fn invalid_token(token: &str) -> ApiError {
    let expected = "next_page_token of an earlier answer";
    ApiError::invalid(Reason::InvalidPageToken, "page_token", token, expected)
}

fn name_in<Name: FromStr>(token: &str) -> Result<Name, ApiError> {
    let name = token.strip_prefix(TOKEN_PREFIX).and_then(|name| name.parse().ok());
    name.ok_or_else(|| invalid_token(token))
}

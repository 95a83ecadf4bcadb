//! Why a measurement could not be made: a sentence for the person who asked for it.

use quorate_client::ClientError;
use std::fmt;
use std::io;

/// See the module.
#[derive(Debug)]
pub struct Failure(String);

impl Failure {
    /// Says what happened.
    pub fn new(what: impl Into<String>) -> Failure {
        Failure(what.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure(error.to_string())
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        Failure(error.to_string())
    }
}

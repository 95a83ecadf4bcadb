//! How a command ends badly: an exit code, what went wrong, and what to do next.

use quorate_client::{Cause, ClientError, Executed};
use std::fmt;
use std::io;
use std::process::ExitCode;

/// Why a command did not succeed. `what` is a fact, `advice` what the reader can do about it.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: Kind,
    what: String,
    advice: Option<String>,
}

/// What scripts can tell apart by the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Whoever read the output has had enough (`quorate read … | head`): not worth a word.
    ReaderLeft,
    Failed,
    Usage,
    Unhealthy,
}

impl Failure {
    pub(crate) fn new(what: impl Into<String>) -> Failure {
        Failure { kind: Kind::Failed, what: what.into(), advice: None }
    }

    /// The command line itself makes no sense.
    pub(crate) fn usage(what: impl Into<String>) -> Failure {
        Failure { kind: Kind::Usage, ..Failure::new(what) }
    }

    /// The question was answered, and the answer is that something is wrong with the cluster.
    pub(crate) fn unhealthy(what: impl Into<String>) -> Failure {
        Failure { kind: Kind::Unhealthy, ..Failure::new(what) }
    }

    pub(crate) fn advise(self, advice: impl Into<String>) -> Failure {
        Failure { advice: Some(advice.into()), ..self }
    }

    /// Puts what was being done before what went wrong.
    pub(crate) fn during(self, doing: impl fmt::Display) -> Failure {
        Failure { what: format!("{doing}: {}", self.what), ..self }
    }

    /// Says it on standard error.
    pub(crate) fn report(&self) -> ExitCode {
        if self.kind != Kind::ReaderLeft {
            eprintln!("{self}");
        }
        ExitCode::from(match self.kind {
            Kind::ReaderLeft => 0,
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::Unhealthy => 10,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.kind == Kind::Unhealthy { "unhealthy" } else { "error" };
        write!(f, "{word}: {}", self.what)?;
        match &self.advice {
            Some(advice) => write!(f, "\n  next: {advice}"),
            None => Ok(()),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        let failure = Failure::new(error.to_string());
        let advice = match error.cause() {
            Cause::Known(reason) => Some(format!("{} (`quorate explain {reason}`)", reason.advice())),
            Cause::Unreachable => Some(
                "check the address given with --server, QUORATE_SERVER or `quorate context use`; \
                 `quorate dev` starts a local cluster"
                    .to_owned(),
            ),
            Cause::Deadline | Cause::ConnectionLost => Some("see `quorate cluster health`, then try again".to_owned()),
            _ => None,
        };
        // Only what the broker doesn't explain itself needs the warning.
        let advice = match (advice, error.executed()) {
            (Some(advice), Executed::Maybe) if !matches!(error.cause(), Cause::Known(_)) => {
                Some(format!("{advice}; the request may have been carried out, so look before repeating it"))
            }
            (advice, _) => advice,
        };
        Failure { advice, ..failure }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure { kind: Kind::ReaderLeft, ..Failure::new("") },
            _ => Failure::new(error.to_string()),
        }
    }
}

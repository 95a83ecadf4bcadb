//! Logs, to standard error: people read it, and standard output belongs to commands.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `log.level` isn't a list of directives.
    #[error(
        "log.level: {level:?} isn't accepted ({why}); expected a level or directives such as `info,quorate_server=debug`"
    )]
    Level {
        /// As configured.
        level: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Checks `log.level`.
///
/// # Errors
/// [`TelemetryError::Level`].
pub(crate) fn filter(config: &LogConfig) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::builder()
        .parse(&config.level)
        .map_err(|error| TelemetryError::Level { level: config.level.clone(), why: error.to_string() })
}

/// Sets up the logs of this process. If they are set up already, leaves them as they are.
///
/// # Errors
/// [`TelemetryError::Level`].
pub fn install(config: &LogConfig) -> Result<(), TelemetryError> {
    let logs = tracing_subscriber::fmt().with_env_filter(filter(config)?).with_writer(std::io::stderr);
    let installed = match config.format {
        LogFormat::Human => {
            let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            logs.with_ansi(colours).try_init()
        }
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    };
    // An embedding program that logs in its own way keeps it.
    let _ = installed;
    Ok(())
}

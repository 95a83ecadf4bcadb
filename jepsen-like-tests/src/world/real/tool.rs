//! Programs of the system: `ip`, `nft`, `mount` and their like.

use std::process::{Command, Stdio};

/// Runs a command line and returns what it printed.
///
/// # Errors
/// The command line and what it complained of.
pub(crate) fn run(words: &[&str]) -> Result<String, String> {
    let shown = words.join(" ");
    let mut command = Command::new(words.first().copied().unwrap_or_default());
    let output = command.args(words.get(1..).unwrap_or_default()).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("`{shown}` can't be started: {error}"))?;
    if !output.status.success() {
        return Err(format!("`{shown}`: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether there is a program of this name.
pub(crate) fn is_there(name: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| folder.join(name).is_file())
}

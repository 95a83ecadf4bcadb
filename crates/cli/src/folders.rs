//! Where this user's files are, by the XDG conventions.

use crate::failure::Failure;
use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Contexts: where clusters are reached.
pub(crate) fn config_file() -> Result<PathBuf, Failure> {
    Ok(folder("XDG_CONFIG_HOME", ".config")?.join("config.toml"))
}

/// The development cluster that is running: which processes, where.
pub(crate) fn dev_state_file() -> Result<PathBuf, Failure> {
    Ok(folder("XDG_STATE_HOME", ".local/state")?.join("dev.json"))
}

/// Data of a development cluster that outlives it.
pub(crate) fn dev_data() -> Result<PathBuf, Failure> {
    Ok(folder("XDG_DATA_HOME", ".local/share")?.join("dev"))
}

/// Replaces a file as a whole: whoever reads it sees the old text or the new one.
pub(crate) fn replace_file(path: &Path, text: &str) -> Result<(), Failure> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let write = || {
        fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(text.as_bytes())?;
        file.persist(path).map_err(|error| error.error)
    };
    match write() {
        Ok(_) => Ok(()),
        Err(error) => {
            Err(Failure::new(format!("{} can't be written: {error}", path.display()))
                .advise("check the folder's rights"))
        }
    }
}

fn folder(variable: &str, below_home: &str) -> Result<PathBuf, Failure> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let root = set(variable).or_else(|| set("HOME").map(|home| home.join(below_home)));
    let root = root.ok_or_else(|| Failure::new("there is no home folder").advise(format!("set HOME or {variable}")))?;
    Ok(root.join("quorate"))
}

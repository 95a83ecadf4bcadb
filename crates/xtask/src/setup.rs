//! What the machine must have, and the environment in which cargo runs.

use crate::steps::{Done, Failure, run};
use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Debian packages. Building RocksDB needs a C++ compiler, libclang for its bindings, and a compiler cache, because its
/// C++ takes minutes; faults of the real world need networks, disks, clocks and system calls that can be meddled with.
const PACKAGES: [&str; 12] = [
    "libclang-dev",
    "clang",
    "g++",
    "ccache",
    "pkg-config",
    "make",
    "iproute2",
    "nftables",
    "ethtool",
    "strace",
    "faketime",
    "e2fsprogs",
];

/// Where Debian's ccache keeps compilers that go through it. First in PATH, they are found without
/// setting CC or CXX, which would change the build's fingerprint.
const CCACHE_COMPILERS: &str = "/usr/lib/ccache";

/// The environment of every command that a task starts.
pub(crate) struct Workshop {
    pub(crate) root: PathBuf,
    target: PathBuf,
    path: OsString,
}

impl Workshop {
    pub(crate) fn find() -> Result<Workshop, Failure> {
        let root = workspace_root()?;
        let target = target_folder(&root);
        let inherited = env::var_os("PATH").unwrap_or_default();
        let path = with_compiler_cache(&inherited)?;
        Ok(Workshop { root, target, path })
    }

    /// A cargo that runs at the root of the workspace, through the compiler cache, in the warm
    /// target folder if there is one.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> Command {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(arguments).current_dir(&self.root).env("PATH", &self.path).env("CARGO_TARGET_DIR", &self.target);
        for variable in set_by_cargo_run() {
            command.env_remove(variable);
        }
        command
    }

    /// The `quorate` binary that `cargo build` makes.
    pub(crate) fn quorate(&self) -> PathBuf {
        self.built("debug", "quorate")
    }

    /// A binary of a folder that is named after its profile, whether it was built or not.
    pub(crate) fn built(&self, profile: &str, name: &str) -> PathBuf {
        self.target.join(profile).join(name)
    }
}

/// Installs what is missing, or says which command does.
pub(crate) fn install_packages() -> Result<Done, Failure> {
    if !Path::new("/usr/bin/dpkg-query").exists() {
        println!("  not a Debian system: expecting {} or their like to be installed", PACKAGES.join(", "));
        return Ok(Done::Skipped("no dpkg here".to_owned()));
    }
    let missing = missing_packages()?;
    if missing.is_empty() {
        println!("  all there: {}", PACKAGES.join(", "));
        return Ok(Done::Passed);
    }
    println!("  missing: {}", missing.join(", "));
    let by_hand =
        format!("Run `apt-get update && apt-get install --yes {}` as root, then this again.", missing.join(" "));
    let Some(prefix) = become_root() else {
        return Err(Failure::new("System packages are missing, and installing them needs root or sudo.", by_hand));
    };
    // A fresh machine has no package lists; a used one may have stale ones.
    run(&mut apt_get(prefix, &["update"]), &by_hand)?;
    let mut install = vec!["install", "--yes", "--no-install-recommends"];
    install.extend(&missing);
    run(&mut apt_get(prefix, &install), &by_hand)
}

/// Fails unless everything is there; changes nothing.
pub(crate) fn check_packages() -> Result<Done, Failure> {
    if !Path::new("/usr/bin/dpkg-query").exists() {
        return Ok(Done::Skipped("no dpkg here".to_owned()));
    }
    let missing = missing_packages()?;
    if missing.is_empty() {
        return Ok(Done::Passed);
    }
    Err(Failure::new(
        format!("System packages are missing: {}.", missing.join(", ")),
        "Run `cargo xtask setup`, then this again.",
    ))
}

fn missing_packages() -> Result<Vec<&'static str>, Failure> {
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"])
        .args(PACKAGES)
        .stderr(Stdio::null())
        .output()
        .map_err(|error| {
            Failure::new(format!("dpkg-query could not be started: {error}."), "Check the Debian installation.")
        })?;
    // dpkg-query exits with 1 when it doesn't know a package: that is an answer, not a failure.
    Ok(not_installed(&String::from_utf8_lossy(&output.stdout)))
}

fn not_installed(listing: &str) -> Vec<&'static str> {
    let installed = |package: &str| listing.lines().any(|line| line.split_once(' ') == Some((package, "installed")));
    PACKAGES.into_iter().filter(|package| !installed(package)).collect()
}

/// The words to put before a command so that it runs as root; `None` if that can't be.
fn become_root() -> Option<&'static [&'static str]> {
    // The owner of the process is who runs it.
    if fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
        return Some(&[]);
    }
    let sudo = Command::new("sudo").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    sudo.is_ok_and(|status| status.success()).then_some(&["sudo"])
}

fn apt_get(prefix: &[&str], arguments: &[&str]) -> Command {
    let mut words = prefix.iter().chain(&["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]).chain(arguments);
    let mut command = Command::new(words.next().expect("the command has at least its own words"));
    command.args(words);
    command
}

fn workspace_root() -> Result<PathBuf, Failure> {
    let advice = "Run it as `cargo xtask`, inside the repository.";
    let manifest =
        env::var_os("CARGO_MANIFEST_DIR").ok_or_else(|| Failure::new("The repository was not found.", advice))?;
    let root = Path::new(&manifest).ancestors().nth(2);
    root.map(Path::to_path_buf).ok_or_else(|| Failure::new("The repository was not found.", advice))
}

/// The folder asked for, else the one kept warm outside the clone, else cargo's own.
fn target_folder(root: &Path) -> PathBuf {
    if let Some(asked) = env::var_os("CARGO_TARGET_DIR").filter(|value| !value.is_empty()) {
        return root.join(asked);
    }
    let home_cache = || env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let cache = env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()).map(PathBuf::from).or_else(home_cache);
    match cache.map(|cache| cache.join("quorate").join("target")) {
        Some(warm) if warm.is_dir() => {
            println!("using the warm target folder {}", warm.display());
            warm
        }
        _ => root.join("target"),
    }
}

fn with_compiler_cache(path: &OsString) -> Result<OsString, Failure> {
    let cache = PathBuf::from(CCACHE_COMPILERS);
    let rest = env::split_paths(path).filter(|entry| *entry != cache);
    env::join_paths(std::iter::once(cache.clone()).chain(rest)).map_err(|error| {
        Failure::new(format!("PATH can't be extended: {error}."), "Remove the entry with a colon from PATH.")
    })
}

/// Variables that `cargo run` sets for this program alone. Handed down to another cargo, they would
/// describe the wrong package.
fn set_by_cargo_run() -> Vec<String> {
    let describes_a_package = |name: &String| {
        name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") || name.starts_with("CARGO_BIN_")
    };
    env::vars().map(|(name, _)| name).filter(describes_a_package).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_installed_packages_count_as_there() {
        let listing = PACKAGES.map(|package| match package {
            "libclang-dev" => String::new(),
            "ccache" => "ccache config-files\n".to_owned(),
            package => format!("{package} installed\n"),
        });
        assert_eq!(not_installed(&listing.concat()), ["libclang-dev", "ccache"]);
    }

    #[test]
    fn the_compiler_cache_comes_first_and_once() {
        let path = OsString::from("/usr/bin:/usr/lib/ccache:/bin");
        let extended = with_compiler_cache(&path).expect("the path is well formed");
        assert_eq!(extended, "/usr/lib/ccache:/usr/bin:/bin");
    }

    #[test]
    fn apt_get_runs_through_sudo_when_asked() {
        let command = apt_get(&["sudo"], &["update"]);
        assert_eq!(crate::steps::shown(&command), "sudo env DEBIAN_FRONTEND=noninteractive apt-get update");
    }
}

//! The tasks, each a list of steps.

use crate::sabotage;
use crate::setup::{self, Workshop};
use crate::steps::{Done, Failure, Steps, run};
use crate::tidy;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

pub(crate) const BUILD_ADVICE: &str =
    "Mend the first error above; if a system library is missing, run `cargo xtask setup`.";
const LOCKED_ADVICE: &str = "Mend the first error above; if Cargo.lock is out of date, run `cargo xtask fix`.";

/// The binary, with the same features of shared crates as all other builds here: another choice of
/// packages would build half of them twice.
const BUILD_QUORATE: [&str; 5] = ["build", "--locked", "--workspace", "--bin", "quorate"];

/// The page that is generated from the table of errors in `quorate-model`.
const ERRORS_PAGE: &str = "docs/errors.md";

/// A workspace of its own: comparing with other brokers needs their clients, which nothing else here does.
const PEERS: [&str; 2] = ["--manifest-path", "benches/peers/Cargo.toml"];

pub(crate) fn set_up() -> Result<(), Failure> {
    let mut steps = Steps::new(1);
    steps.run("system packages", setup::install_packages)?;
    steps.finish("setup", "")
}

pub(crate) fn dev(arguments: &[String]) -> Result<(), Failure> {
    let workshop = Workshop::find()?;
    let mut steps = Steps::new(3);
    steps.run("system packages", setup::install_packages)?;
    steps.run("build (RocksDB takes several minutes the first time)", || {
        run(&mut workshop.cargo(&BUILD_QUORATE), LOCKED_ADVICE)
    })?;
    let mut command = Command::new(workshop.quorate());
    command.arg("dev").args(arguments);
    steps.run("cluster", || {
        // The cluster takes this process's place, so that Ctrl-C reaches it and nothing else.
        let error = command.exec();
        Err(Failure::new(format!("`quorate dev` could not be started: {error}."), BUILD_ADVICE))
    })
}

pub(crate) fn test() -> Result<(), Failure> {
    let workshop = Workshop::find()?;
    let cargo = |arguments: &[&str], advice: &str| run(&mut workshop.cargo(arguments), advice);
    let mut steps = Steps::new(5);
    steps.run("system packages", setup::install_packages)?;
    steps.run("build (RocksDB takes several minutes the first time)", || {
        cargo(&["build", "--locked", "--workspace"], LOCKED_ADVICE)
    })?;
    steps.run("build the tests, the examples and the benchmarks", || {
        cargo(&["test", "--locked", "--workspace", "--all-targets", "--no-run"], BUILD_ADVICE)
    })?;
    steps.check("tests, among them clusters of real processes", || {
        let advice = "Look for the first `panicked at` above; repeat one test with `cargo test --package CRATE NAME`.";
        cargo(&["test", "--locked", "--workspace", "--tests", "--no-fail-fast"], advice)
    });
    steps.check("examples in the documentation", || {
        cargo(&["test", "--locked", "--workspace", "--doc"], "Mend the example named above.")
    });
    steps.finish("test", "The step's own last line above says what to do.")
}

pub(crate) fn verify() -> Result<(), Failure> {
    let workshop = Workshop::find()?;
    let mut steps = Steps::new(10);
    steps.check("system packages", setup::check_packages);
    steps.check("format", || {
        let advice = "Run `cargo xtask fix`; if rustfmt is missing, `rustup component add rustfmt`.";
        run(&mut workshop.cargo(&["fmt", "--all", "--check"]), advice)
    });
    steps.check("arrows between crates", || tidy::arrows(&workshop.root));
    steps.check("file lengths and names", || tidy::files_and_names(&workshop.root));
    steps.check("planted bugs and what catches them", || sabotage::check(&workshop.root));
    steps.check("links in the documentation", || tidy::links(&workshop.root));
    steps.check("licences, advisories, bans, sources", || deny(&workshop));
    steps.check("lock file of the comparison with other brokers", || {
        let mut resolve = workshop.cargo(&["metadata", "--locked", "--format-version", "1", PEERS[0], PEERS[1]]);
        run(resolve.stdout(Stdio::null()), "Run `cargo xtask fix`.")
    });
    steps.check("clippy (RocksDB takes several minutes the first time)", || {
        let advice = "Mend the warnings above (`cargo xtask fix` mends some); if clippy is missing, `rustup component add clippy`.";
        let arguments = ["clippy", "--locked", "--workspace", "--all-targets", "--", "--deny", "warnings"];
        run(&mut workshop.cargo(&arguments), advice)
    });
    steps.check("generated pages", || {
        let generated = errors_page(&workshop)?;
        let written = fs::read_to_string(workshop.root.join(ERRORS_PAGE)).unwrap_or_default();
        if generated == written {
            return Ok(Done::Passed);
        }
        Err(Failure::new(format!("{ERRORS_PAGE} is not what the table of errors says."), "Run `cargo xtask fix`."))
    });
    steps.finish("verify", "Each failed step's own last line above says what to do.")
}

pub(crate) fn fix() -> Result<(), Failure> {
    let workshop = Workshop::find()?;
    let mut steps = Steps::new(4);
    steps.run("lock file of the comparison with other brokers", || {
        run(&mut workshop.cargo(&["update", "--workspace", PEERS[0], PEERS[1]]), BUILD_ADVICE)
    })?;
    steps.run("clippy's own repairs", || {
        let arguments = ["clippy", "--fix", "--allow-dirty", "--allow-staged", "--workspace", "--all-targets"];
        run(&mut workshop.cargo(&arguments), BUILD_ADVICE)
    })?;
    steps.run("format", || {
        run(&mut workshop.cargo(&["fmt", "--all"]), "Run `rustup component add rustfmt` if it is missing.")
    })?;
    steps.run("generated pages", || {
        write_page(&workshop.root.join(ERRORS_PAGE), &errors_page(&workshop)?)?;
        Ok(Done::Passed)
    })?;
    steps.finish("fix", "")
}

fn deny(workshop: &Workshop) -> Result<Done, Failure> {
    let probe = workshop.cargo(&["deny", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !probe.is_ok_and(|status| status.success()) {
        return Ok(Done::Skipped(
            "cargo-deny is not installed; `cargo install cargo-deny --locked` gets it".to_owned(),
        ));
    }
    let checks = ["deny", "--locked", "check", "bans", "licenses", "sources"];
    run(&mut workshop.cargo(&checks), "Read deny.toml: each rule says why it is there.")?;
    // The advisory database is fetched: without a network the check says nothing about the code.
    let mut advisories = workshop.cargo(&["deny", "--locked", "check", "advisories"]);
    println!("  $ {}", crate::steps::shown(&advisories));
    let output =
        advisories.output().map_err(|error| Failure::new(format!("cargo-deny could not be started: {error}."), ""))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        return Ok(Done::Passed);
    }
    if said.contains("failed to fetch advisory database") || said.contains("failed to load advisory database") {
        println!("  advisories: skipped, the database could not be fetched");
        return Ok(Done::Passed);
    }
    eprint!("{said}");
    Err(Failure::new("An advisory applies.", "Update the crate, or document in deny.toml why it can be ignored."))
}

/// `docs/errors.md` as the built binary says it.
fn errors_page(workshop: &Workshop) -> Result<String, Failure> {
    run(&mut workshop.cargo(&BUILD_QUORATE), LOCKED_ADVICE)?;
    let mut explain = Command::new(workshop.quorate());
    explain.args(["explain", "--all", "--markdown"]);
    let failed = |why: String| Failure::new(format!("`quorate explain --all --markdown` failed: {why}."), BUILD_ADVICE);
    let output = explain.output().map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(output.status.to_string()));
    }
    String::from_utf8(output.stdout).map_err(|error| failed(error.to_string()))
}

fn write_page(path: &Path, text: &str) -> Result<(), Failure> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).and_then(|()| fs::write(path, text)).map_err(|error| {
        Failure::new(format!("{} could not be written: {error}.", path.display()), "Check the folder's rights.")
    })
}

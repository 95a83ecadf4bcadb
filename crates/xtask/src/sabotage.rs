//! `cargo xtask sabotage`: plants one bug after another and expects the test that is named for it to fail, for the right
//! reason and in time. The same test must pass without the bug: one that always fails proves nothing either.
//!
//! - [`rungs`]: which test catches which bug
//! - [`bugs`]: the list of bugs in `quorate-model`, read from its source
//! - [`process`]: a test as a process with a time limit

use crate::setup::Workshop;
use crate::steps::{Done, Failure, Steps, run, shown};
use crate::tidy;
use bugs::Bug;
use clap::Args;
use process::Ended;
use rungs::{ROWS, Row, Rung};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

pub(crate) mod bugs;
mod process;
pub(crate) mod rungs;

const BUILD_ADVICE: &str = "Mend the first error above; if a system library is missing, run `cargo xtask setup`.";

/// Names the bug that is planted in a process.
const VARIABLE: &str = "QUORATE_SABOTAGE";

/// The whole workspace, because another choice of packages would build half of its dependencies twice; of it only what
/// is needed, and nothing that has the name of an honest program.
const FEATURE: [&str; 4] = ["--locked", "--workspace", "--features", "quorate-jepsen/sabotage"];
const SIMULATION: &str = "sim-sabotaged";

#[derive(Args)]
pub(crate) struct Sabotage {
    /// Only this bug, by its name in the table; may be given several times
    #[arg(long, value_name = "BUG")]
    only: Vec<String>,
}

impl Sabotage {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let workshop = Workshop::find()?;
        let bugs = bugs::read(&workshop.root)?;
        let rows = self.rows()?;
        let mut steps = Steps::new(1 + rows.len());
        let mut trial = Trial::new(&workshop)?;
        steps.run("build with planted bugs", || trial.build(&workshop))?;
        let mut lines = Vec::new();
        for row in rows {
            steps.check(&format!("{}: {}", row.bug, row.rung), || {
                let caught = trial.row(row)?;
                println!("  caught by `{}` after {:.1} s{}", row.caught_by, caught.took.as_secs_f64(), caught.seed());
                lines.push(line(row, &caught, &bugs));
                Ok(Done::Passed)
            });
        }
        print_table(&lines);
        steps.finish("sabotage", "A bug that isn't caught is a hole in the tests: strengthen the one that is named.")
    }

    fn rows(&self) -> Result<Vec<&'static Row>, Failure> {
        if let Some(unknown) = self.only.iter().find(|name| ROWS.iter().all(|row| row.bug != **name)) {
            let known: Vec<&str> = ROWS.iter().map(|row| row.bug).collect();
            return Err(Failure::new(
                format!("There is no bug {unknown}."),
                format!("Known are {}.", known.join(", ")),
            ));
        }
        Ok(ROWS.iter().filter(|row| self.only.is_empty() || self.only.iter().any(|name| name == row.bug)).collect())
    }
}

/// A bug that was caught.
struct Caught {
    took: Duration,
    seed: Option<u64>,
}

impl Caught {
    fn seed(&self) -> String {
        self.seed.map_or_else(String::new, |seed| format!(", seed {seed}"))
    }
}

/// The programs, and what is known of them.
struct Trial {
    /// Where the output of every process is kept.
    outputs: PathBuf,
    simulation: PathBuf,
    /// Test programs, by the name of their target.
    tests: BTreeMap<String, PathBuf>,
    /// Whether a test passes without a bug.
    controls: BTreeMap<(&'static str, &'static str), bool>,
}

impl Trial {
    fn new(workshop: &Workshop) -> Result<Trial, Failure> {
        let outputs = workshop.built("sabotage", "");
        fs::create_dir_all(&outputs)
            .map_err(|error| Failure::new(format!("{} could not be made: {error}.", outputs.display()), ""))?;
        let simulation = workshop.built("debug", SIMULATION);
        Ok(Trial { outputs, simulation, tests: BTreeMap::new(), controls: BTreeMap::new() })
    }

    fn build(&mut self, workshop: &Workshop) -> Result<Done, Failure> {
        let mut arguments = vec!["test", "--no-run", "--message-format", "json-render-diagnostics", "--lib"];
        arguments.extend(FEATURE);
        let mut targets: Vec<&str> = ROWS.iter().filter_map(|row| row.rung.integration_test()).collect();
        targets.sort_unstable();
        targets.dedup();
        arguments.extend(targets.iter().flat_map(|target| ["--test", target]));
        let mut command = workshop.cargo(&arguments);
        println!("  $ {}", shown(&command));
        let built = command.stderr(Stdio::inherit()).output();
        let built = built.map_err(|error| Failure::new(format!("cargo could not be started: {error}."), ""))?;
        if !built.status.success() {
            return Err(Failure::new("The tests with planted bugs were not built.", BUILD_ADVICE));
        }
        self.tests = test_programs(&String::from_utf8_lossy(&built.stdout));
        let build = [&["build", "--bin", SIMULATION][..], &FEATURE].concat();
        run(&mut workshop.cargo(&build), BUILD_ADVICE)
    }

    fn row(&mut self, row: &Row) -> Result<Caught, Failure> {
        match row.rung {
            Rung::Test { target, test, .. } => self.test(row, target, test),
            Rung::Simulation { seeds, options } => self.simulate(row, seeds, options),
        }
    }

    fn test(&mut self, row: &Row, target: &'static str, test: &'static str) -> Result<Caught, Failure> {
        let missing = || Failure::new(format!("There is no test program {target}."), "Look at the table of rungs.");
        let program = self.tests.get(target).ok_or_else(missing)?.clone();
        let run = |bug: Option<&str>, outputs: &Path| {
            let mut command = Command::new(&program);
            // Not in the repository: proptest would keep what it has found beside the sources.
            command.args([test, "--exact", "--test-threads=1"]).current_dir(outputs);
            ended(&mut command, bug, row.limit(), &outputs.join(format!("{target}-{}.txt", bug.unwrap_or("honest"))))
        };
        if !self.controls.contains_key(&(target, test)) {
            let control = run(None, &self.outputs)?;
            // With a name that doesn't exist nothing runs, and that passes.
            self.controls.insert((target, test), control.passed && control.output.contains("1 passed"));
        }
        if !self.controls[&(target, test)] {
            let kept = self.outputs.display();
            return Err(Failure::new(format!("{test} fails without any bug."), format!("Its output is in {kept}.")));
        }
        let sabotaged = run(Some(row.bug), &self.outputs)?;
        match judge(&sabotaged, row) {
            Judged::Caught => Ok(Caught { took: sabotaged.took, seed: None }),
            other => Err(other.survived(row, &self.outputs)),
        }
    }

    /// Tries seeds in order until one catches the bug; that one must pass without it.
    fn simulate(&self, row: &Row, seeds: &[u64], options: &[&str]) -> Result<Caught, Failure> {
        let run = |seed: u64, bug: Option<&str>| {
            let mut command = Command::new(&self.simulation);
            command.args(["--seed", &seed.to_string()]).args(options);
            let output = format!("sim-{}-{seed}.txt", bug.map_or_else(|| format!("honest-{}", row.bug), str::to_owned));
            ended(&mut command, bug, row.limit(), &self.outputs.join(output))
        };
        let mut took = Duration::ZERO;
        let mut last = Judged::Passed;
        for seed in seeds {
            let sabotaged = run(*seed, Some(row.bug))?;
            took += sabotaged.took;
            last = judge(&sabotaged, row);
            if matches!(last, Judged::Caught) {
                if run(*seed, None)?.passed {
                    return Ok(Caught { took, seed: Some(*seed) });
                }
                return Err(Failure::new(format!("Seed {seed} fails without any bug."), "That is a bug of its own."));
            }
            println!("  seed {seed}: {}", last.described());
        }
        Err(last.survived(row, &self.outputs))
    }
}

fn ended(command: &mut Command, bug: Option<&str>, limit: Duration, output: &Path) -> Result<Ended, Failure> {
    match bug {
        Some(bug) => command.env(VARIABLE, bug),
        None => command.env_remove(VARIABLE),
    };
    process::run(command, limit, output)
}

/// What a run with a bug shows.
#[derive(Debug, PartialEq, Eq)]
enum Judged {
    Caught,
    Passed,
    /// It failed, and not by what the table says.
    ForAnotherReason,
    OutOfTime,
}

fn judge(ended: &Ended, row: &Row) -> Judged {
    if ended.out_of_time {
        // Not a word on why: a machine that is slow would look alike.
        return Judged::OutOfTime;
    }
    match (ended.passed, ended.output.contains(row.caught_by)) {
        (true, _) => Judged::Passed,
        (false, true) => Judged::Caught,
        (false, false) => Judged::ForAnotherReason,
    }
}

impl Judged {
    fn described(&self) -> &'static str {
        match self {
            Judged::Caught => "caught",
            Judged::Passed => "passed in spite of the bug",
            Judged::ForAnotherReason => "failed for another reason",
            Judged::OutOfTime => "not done in time",
        }
    }

    fn survived(&self, row: &Row, outputs: &Path) -> Failure {
        let what = format!("{} survives: the last run {}.", row.bug, self.described());
        Failure::new(what, format!("`{}` was expected; the output is in {}.", row.caught_by, outputs.display()))
    }
}

/// Where cargo put the test programs, by the names of their targets.
fn test_programs(messages: &str) -> BTreeMap<String, PathBuf> {
    let program = |line: &str| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let executable = message.get("executable")?.as_str()?;
        let name = message.get("target")?.get("name")?.as_str()?;
        Some((name.to_owned(), PathBuf::from(executable)))
    };
    messages.lines().filter_map(program).collect()
}

/// A line of the table, as in docs/testing.md.
fn line(row: &Row, caught: &Caught, bugs: &[Bug]) -> String {
    let bug = bugs.iter().find(|bug| bug.name == row.bug);
    let (what, places) = bug.map_or_else(Default::default, |bug| (bug.sentence.clone(), bug.places.join(", ")));
    let property = row.caught_by.trim_end_matches(':');
    format!(
        "| `{}` | {what} | {places} | {} | {property} | {:.1} s{} |",
        row.bug,
        row.rung,
        caught.took.as_secs_f64(),
        caught.seed()
    )
}

fn print_table(lines: &[String]) {
    println!("\n| bug | what is broken | planted in | rung | caught by | after |\n|---|---|---|---|---|---|");
    lines.iter().for_each(|line| println!("{line}"));
}

/// The table, the list of bugs and the places where they are planted agree.
pub(crate) fn check(root: &Path) -> Result<Done, Failure> {
    let rows: Vec<&str> = ROWS.iter().map(|row| row.bug).collect();
    tidy::conclude(
        &bugs::complaints(&bugs::read(root)?, &rows),
        "Plant the bug where it belongs, and name what catches it in crates/xtask/src/sabotage/rungs.rs.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bug_is_planted_somewhere_and_something_is_named_that_catches_it() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the root of the repository");
        assert!(check(root).is_ok());
    }

    fn ended(passed: bool, out_of_time: bool, output: &str) -> Ended {
        Ended { passed, out_of_time, output: output.to_owned(), took: Duration::ZERO }
    }

    #[test]
    fn a_bug_is_caught_only_by_what_the_table_names() {
        let row = &ROWS[0];
        let named = format!("panicked: {}", row.caught_by);
        assert_eq!(judge(&ended(false, false, &named), row), Judged::Caught);
        assert_eq!(judge(&ended(true, false, &named), row), Judged::Passed);
        assert_eq!(judge(&ended(false, false, "Address already in use"), row), Judged::ForAnotherReason);
        assert_eq!(judge(&ended(false, true, &named), row), Judged::OutOfTime);
    }

    #[test]
    fn test_programs_are_found_among_cargos_messages() {
        let messages = concat!(
            "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"serde\"},\"executable\":null}\n",
            "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"crash\"},\"executable\":\"/t/deps/crash-1\"}\n",
            "{\"reason\":\"build-finished\",\"success\":true}\n",
        );
        let expected = [("crash".to_owned(), PathBuf::from("/t/deps/crash-1"))];
        assert_eq!(test_programs(messages), BTreeMap::from(expected));
    }
}

//! Steps: each is announced, timed, and fails with a sentence that says what to do.

use std::fmt;
use std::process::Command;
use std::time::{Duration, Instant};

/// What went wrong and what the reader should do about it. Both are sentences.
#[derive(Debug)]
pub(crate) struct Failure {
    what: String,
    advice: String,
}

impl Failure {
    pub(crate) fn new(what: impl Into<String>, advice: impl Into<String>) -> Failure {
        Failure { what: what.into(), advice: advice.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.what, self.advice)
    }
}

/// How a check ended that did not fail.
pub(crate) enum Done {
    Passed,
    /// Not run; the reason is shown.
    Skipped(String),
}

/// The steps of one task. Numbers them, and says how long each took.
pub(crate) struct Steps {
    total: usize,
    begun: usize,
    started: Instant,
    failures: Vec<String>,
}

impl Steps {
    pub(crate) fn new(total: usize) -> Steps {
        Steps { total, begun: 0, started: Instant::now(), failures: Vec::new() }
    }

    /// Runs a step that the following ones need: its failure ends the task.
    pub(crate) fn run(&mut self, name: &str, step: impl FnOnce() -> Result<Done, Failure>) -> Result<(), Failure> {
        self.timed(name, step)
    }

    /// Runs a step that stands alone: its failure is kept, so that one run shows every complaint.
    pub(crate) fn check(&mut self, name: &str, step: impl FnOnce() -> Result<Done, Failure>) {
        if let Err(failure) = self.timed(name, step) {
            eprintln!("{failure}");
            self.failures.push(name.to_owned());
        }
    }

    /// Ends the task: says the total time, and fails if a check failed.
    pub(crate) fn finish(self, task: &str, advice: &str) -> Result<(), Failure> {
        debug_assert_eq!(self.begun, self.total, "the task announces as many steps as it takes");
        let elapsed = seconds(self.started.elapsed());
        if self.failures.is_empty() {
            println!("\n{task}: all good after {elapsed}");
            return Ok(());
        }
        Err(Failure::new(format!("{task} failed after {elapsed}: {}.", self.failures.join(", ")), advice))
    }

    fn timed(&mut self, name: &str, step: impl FnOnce() -> Result<Done, Failure>) -> Result<(), Failure> {
        self.begun += 1;
        let position = format!("[{}/{}]", self.begun, self.total);
        println!("\n{position} {name}");
        let started = Instant::now();
        let outcome = step();
        let elapsed = seconds(started.elapsed());
        match outcome {
            Ok(Done::Passed) => println!("{position} {name}: done in {elapsed}"),
            Ok(Done::Skipped(reason)) => println!("{position} {name}: skipped: {reason}"),
            Err(failure) => {
                println!("{position} {name}: FAILED after {elapsed}");
                return Err(failure);
            }
        }
        Ok(())
    }
}

/// Runs a command with its output shown. `advice` completes the failure.
pub(crate) fn run(command: &mut Command, advice: &str) -> Result<Done, Failure> {
    let shown = shown(command);
    println!("  $ {shown}");
    match command.status() {
        Ok(status) if status.success() => Ok(Done::Passed),
        Ok(status) => Err(Failure::new(format!("`{shown}` failed ({status})."), advice)),
        Err(error) => Err(Failure::new(format!("`{shown}` could not be started: {error}."), advice)),
    }
}

/// The command as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|argument| argument.to_string_lossy().into_owned()));
    // cargo is started by its absolute path, which says nothing to the reader.
    if words[0].ends_with("/cargo") {
        words[0] = "cargo".to_owned();
    }
    words.join(" ")
}

fn seconds(duration: Duration) -> String {
    let tenths = duration.as_millis() / 100;
    let (minutes, tenths) = (tenths / 600, tenths % 600);
    match minutes {
        0 => format!("{}.{} s", tenths / 10, tenths % 10),
        _ => format!("{minutes} min {} s", tenths / 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_reads_like_a_person_says_it() {
        assert_eq!(seconds(Duration::from_millis(1_249)), "1.2 s");
        assert_eq!(seconds(Duration::from_millis(59_999)), "59.9 s");
        assert_eq!(seconds(Duration::from_secs(61)), "1 min 1 s");
    }

    #[test]
    fn a_failed_check_lets_the_others_run_and_fails_the_task() {
        let mut steps = Steps::new(2);
        steps.check("first", || Err(Failure::new("It broke.", "Mend it.")));
        let mut second_ran = false;
        steps.check("second", || {
            second_ran = true;
            Ok(Done::Passed)
        });
        let failure = steps.finish("verify", "Run `cargo xtask fix`.").expect_err("one check failed");
        assert!(second_ran);
        assert!(failure.to_string().contains("first"), "{failure}");
        assert!(failure.to_string().ends_with("Run `cargo xtask fix`."), "{failure}");
    }
}

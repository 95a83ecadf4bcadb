//! A program that gets so much time and no more, with its output in a file.

use crate::steps::{Failure, shown};
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How often to look whether it has ended.
const POLL_EVERY: Duration = Duration::from_millis(20);

/// How a program ended.
pub(crate) struct Ended {
    pub(crate) passed: bool,
    pub(crate) out_of_time: bool,
    pub(crate) output: String,
    pub(crate) took: Duration,
}

/// Runs it to its end, or to the end of its time; both of its outputs go to `path` and stay there.
pub(crate) fn run(command: &mut Command, limit: Duration, path: &Path) -> Result<Ended, Failure> {
    let failed =
        |what: &str, error: &dyn std::fmt::Display| Failure::new(format!("{what} {}: {error}.", path.display()), "");
    let output = File::create(path).map_err(|error| failed("No output could be written to", &error))?;
    let errors = output.try_clone().map_err(|error| failed("No output could be written to", &error))?;
    // In a group of its own, so that what it has started ends with it.
    command.stdin(Stdio::null()).stdout(output).stderr(errors).process_group(0);
    let started = Instant::now();
    let mut child = command
        .spawn()
        .map_err(|error| Failure::new(format!("`{}` could not be started: {error}.", shown(command)), ""))?;
    let status = loop {
        let ended = child.try_wait().map_err(|error| failed("Nobody knows what became of", &error))?;
        if ended.is_some() || started.elapsed() > limit {
            break ended;
        }
        thread::sleep(POLL_EVERY);
    };
    let took = started.elapsed();
    if status.is_none() {
        let _ = Command::new("kill").args(["-9", "--", &format!("-{}", child.id())]).status();
        let _ = child.wait();
    }
    let output = fs::read(path).map_err(|error| failed("No output could be read from", &error))?;
    Ok(Ended {
        passed: status.is_some_and(|status| status.success()),
        out_of_time: status.is_none(),
        output: String::from_utf8_lossy(&output).into_owned(),
        took,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration, name: &str) -> Ended {
        let path = std::env::temp_dir().join(format!("xtask-process-{}-{name}", std::process::id()));
        let ended = run(Command::new("sh").args(["-c", script]), limit, &path).expect("a shell");
        fs::remove_file(path).expect("the output stays");
        ended
    }

    #[test]
    fn both_outputs_are_kept_and_the_exit_code_counts() {
        let ended = shell("echo out; echo err >&2; exit 3", Duration::from_secs(60), "fails");
        assert_eq!((ended.passed, ended.out_of_time, ended.output.as_str()), (false, false, "out\nerr\n"));
        assert!(shell("true", Duration::from_secs(60), "passes").passed);
    }

    #[test]
    fn at_the_end_of_its_time_it_is_ended_with_all_that_it_started() {
        let ended = shell("sleep 100 & sleep 100", Duration::from_millis(50), "late");
        assert!(ended.out_of_time && !ended.passed);
        assert!(ended.took < Duration::from_secs(60));
    }
}

//! The simulation, one process per seed: it repeats itself exactly, honest disks pass, and disks that lie are found out.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::process::Command;

/// What one process said.
struct Run {
    passed: bool,
    output: String,
}

fn simulate(seed: u64, options: &[&str]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sim"));
    let output = command.arg("--seed").arg(seed.to_string()).args(options).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Run { passed: output.status.success(), output: text(&output.stdout) + &text(&output.stderr) }
}

impl Run {
    /// The rest of the line that begins with `name`.
    fn line(&self, name: &str) -> &str {
        let lines = self.output.lines();
        let found = lines.filter_map(|line| line.strip_prefix(name)).next();
        found.unwrap_or_else(|| panic!("no {name} in the output:\n{}", self.output))
    }

    fn assert_passed(&self) {
        assert!(self.passed && self.line("verdict: ") == "pass", "{}", self.output);
    }
}

/// Runs several seeds, two at a time.
fn simulate_all(seeds: &[u64], options: &[&str]) -> Vec<Run> {
    let (left, right) = seeds.split_at(seeds.len() / 2);
    let run = |seeds: &[u64]| seeds.iter().map(|seed| simulate(*seed, options)).collect::<Vec<Run>>();
    std::thread::scope(|scope| {
        let left = scope.spawn(|| run(left));
        let right = run(right);
        left.join().unwrap().into_iter().chain(right).collect()
    })
}

#[test]
fn one_seed_gives_one_trace_and_another_seed_another() {
    let runs = simulate_all(&[11, 11, 12], &["--workload", "log"]);
    runs.iter().for_each(Run::assert_passed);
    let trace = |run: usize| runs[run].line("trace: ");
    assert_eq!(trace(0), trace(1), "two runs of one seed");
    assert_eq!(runs[0].output, runs[1].output);
    assert_ne!(trace(0), trace(2), "runs of two seeds");
}

/// A hundred seeds, of which some are run twice: all workloads, all faults, clusters of three and five.
#[test]
fn a_hundred_seeds_pass() {
    let mut sweep = Command::new(env!("CARGO_BIN_EXE_sweep"));
    let output = sweep.args(["--seeds", "100", "--seed", "1", "--no-shrinking", "--seconds", "15"]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

/// Subscriptions: what is published is delivered and settled in all of them, and not again.
#[test]
fn queues_are_emptied_and_nothing_comes_again() {
    for run in simulate_all(&[1, 2, 3, 4, 5, 6], &["--workload", "queue", "--faults", "all", "--seconds", "20"]) {
        run.assert_passed();
    }
}

/// Seeds that once failed, with what they need to: they must not fail again.
#[test]
fn what_was_found_once_stays_mended() {
    // A create whose answer was lost was carried out a second time, after others had removed the topic and its name.
    let found = ["--workload", "metadata", "--seconds", "40", "--faults", "all"];
    for run in simulate_all(&[100, 107, 108], &found) {
        run.assert_passed();
    }
    // A subscriber that closed while it looked for a leader did nothing else, and time stood still. In the other run
    // retention removes messages before they are acknowledged, which nobody must wait for.
    for run in simulate_all(&[33, 21], &["--workload", "queue", "--seconds", "40", "--faults", "all"]) {
        run.assert_passed();
    }
    // A commit that a node heard of after the others had removed the group seemed to be on no majority.
    simulate(20113, &["--seconds", "180"]).assert_passed();
}

/// So that the passes above mean something: a disk that acknowledges before it syncs, and nothing else, is caught.
#[test]
fn disks_that_lie_are_found_out() {
    for run in
        simulate_all(&[1, 2], &["--workload", "log", "--seconds", "15", "--faults", "blackout", "--disk", "lies"])
    {
        assert!(!run.passed && run.line("verdict: ") == "fail", "{}", run.output);
        run.line("  lost write: ");
    }
}

#[test]
fn the_same_faults_do_no_harm_to_honest_disks() {
    simulate(1, &["--workload", "log", "--seconds", "15", "--faults", "blackout"]).assert_passed();
}

#[test]
fn a_run_in_which_too_little_happened_is_no_pass() {
    let run = simulate(1, &["--workload", "log", "--seconds", "0", "--faults", "crash"]);
    assert!(!run.passed && run.line("verdict: ") == "unknown", "{}", run.output);
    assert!(run.output.contains("fault crash never happened"), "{}", run.output);
}

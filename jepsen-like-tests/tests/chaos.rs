//! The real world, in short: processes that are killed and stopped, and, as root, a network that is cut; and a failover.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

fn chaos(arguments: &[&str]) -> (bool, String) {
    run(env!("CARGO_BIN_EXE_chaos"), &[arguments, &["--verbose"]].concat())
}

fn run(program: &str, arguments: &[&str]) -> (bool, String) {
    let quorate = Path::new(program).with_file_name("quorate");
    assert!(quorate.exists(), "build the broker first: cargo build --workspace --bins");
    let output = Command::new(program).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn real_nodes_lose_nothing_when_they_are_killed_and_cut_off() {
    let (_, said) = chaos(&["--list"]);
    let skipped: Vec<&str> = said.lines().filter(|line| line.contains(" skipped: ")).collect();
    println!("{}", skipped.join("\n"));
    // Where everything that faults need is there, none may be skipped: `.ci/run` says so as root.
    assert!(skipped.is_empty() || std::env::var_os("QUORATE_SKIP_NOTHING").is_none(), "{skipped:#?}");
    let faults = if skipped.is_empty() { "kill-leader,power,partition" } else { "kill-leader,pause" };
    let (passed, said) = chaos(&["--faults", faults, "--duration", "25s", "--load", "light"]);
    assert!(passed && said.contains("\nverdict: pass\n"), "{said}");
}

#[test]
fn real_queues_are_emptied_while_leaders_are_killed_and_stopped() {
    let faults = ["--workload", "queue", "--faults", "kill-leader,pause", "--duration", "20s", "--load", "light"];
    let (passed, said) = chaos(&faults);
    assert!(passed && said.contains("\nverdict: pass\n"), "{said}");
}

#[test]
fn a_leader_that_is_killed_is_replaced_before_it_is_back() {
    let (passed, said) = run(env!("CARGO_BIN_EXE_failover"), &["--kills", "1", "--only", "kill", "--seed", "1"]);
    let row = said.lines().find(|line| line.starts_with("| kill-leader")).unwrap_or_default();
    let cells: Vec<&str> = row.split('|').map(str::trim).collect();
    let [_, _, "1", p50, p99, max, "pass", _] = cells[..] else { panic!("{said}") };
    let gap_ms: u64 = max.parse().unwrap();
    // The node stays away for more than seven seconds with this seed.
    assert!(passed && (1..5_000).contains(&gap_ms) && p50 == max && p99 == max, "{said}");
}

#[test]
fn a_fault_that_is_not_known_is_named() {
    let (passed, said) = chaos(&["--faults", "kill,earthquake"]);
    assert!(!passed && said.contains("there is no fault \"earthquake\""), "{said}");
}

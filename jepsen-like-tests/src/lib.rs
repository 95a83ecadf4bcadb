//! Real nodes and real clients with faults, in a simulated world that comes from one seed or in the real one; a history of
//! what clients were told; and checkers that say what in it breaks a promise.
//!
//! ```text
//!  workload ──▶ history ──▶ checker ──▶ verdict: pass, unknown or fail
//!     │            ▲
//!     ▼            │ faults, and whether they took effect
//!  world ◀────── nemesis               everything ──▶ trace: one hash per run
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`world`] | where it takes place: [`world::sim`], turmoil's network and clock with disks that can lose power, or [`world::real`], processes with a network and disks of their own |
//! | [`workload`] | what clients do, one job per file |
//! | [`nemesis`] | faults, one kind per file, of each world |
//! | [`history`] | operations with their beginning and end, as JSON lines |
//! | [`checker`] | properties of a history, one per file, and coverage |
//! | [`trace`] | the hash in which two runs of one seed must agree |
//! | [`report`], [`plot`] | what a run says of itself, and what it looks like |
//! | [`gap`] | how long a partition stood still when its leader was hit |
//! | [`shrink`] | the faults that a failing run needs |
//! | [`run`](mod@run) | one run from beginning to end |
//!
//! The binary `sim` runs one seed per process, `sweep` many of them, and `check` judges a history that was written down; `tests/simulation.rs` runs it for several seeds, for one seed twice, and with
//! disks that lie, which must be found out. It is *not* a test of RocksDB or of the operating system's network: the
//! simulated disk and network stand in for them. The binary `chaos` runs the real world, which is, and
//! `failover` measures in it (see `docs/testing.md`).

#![expect(unexpected_cfgs, reason = "the flag is set for every build, in .cargo/config.toml")]

// rustdoc doesn't get the flags of the compiler, and runs nothing here.
#[cfg(not(any(tokio_unstable, doc, doctest)))]
compile_error!("the simulation needs `--cfg tokio_unstable`, which .cargo/config.toml sets: without it runs differ");

pub mod checker;
pub mod gap;
pub mod history;
pub mod nemesis;
pub mod plot;
pub mod report;
pub mod run;
pub mod shrink;
pub mod trace;
pub mod workload;
pub mod world;

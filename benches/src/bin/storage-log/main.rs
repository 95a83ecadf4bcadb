//! The storage under a load of appends and trims: throughput, processor time, bytes written per byte of
//! payload, and whether the space of what was trimmed or deleted comes back.
//!
//! Drives the same [`Storage`] and [`RaftLog`] as a node does, on one disk and without consensus:
//!
//! ```sh
//! cargo run --release -p quorate-benches --bin storage-log -- --dir /data/bench --total-mib 4096 --after mixed
//! ```
//!
//! Figures are of one process on one machine: compare runs with each other, interleaved.

mod load;
mod meter;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use quorate_storage::{RocksOptions, Storage};

use crate::load::{Load, Trim};
use crate::meter::{Meter, disk_bytes, payload_mib};

/// What to write, what to keep, and what to take away at the end.
#[derive(Debug, Parser)]
struct Arguments {
    /// A folder on the disk to measure; a folder of its own is made in it, and removed at the end.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Replicas that are written to in turn.
    #[arg(long, default_value_t = 12)]
    replicas: u64,
    /// Payload of one entry, random and so incompressible.
    #[arg(long, default_value_t = 65_536)]
    entry_bytes: usize,
    /// Payload to write in all.
    #[arg(long, default_value_t = 2048)]
    total_mib: u64,
    /// Payload that may wait for its fsync at any time.
    #[arg(long, default_value_t = 8 << 20)]
    in_flight_bytes: usize,
    /// Payload that each replica keeps while the load runs; 0: everything.
    #[arg(long, default_value_t = 0)]
    retain_mib: u64,
    /// Every n-th replica keeps everything, whatever the others keep; 0: none does.
    #[arg(long, default_value_t = 0)]
    keep_every: usize,
    /// What goes once everything is written.
    #[arg(long, value_enum, default_value_t = Trim::Nothing)]
    after: Trim,
    /// How long to wait for the space of what went.
    #[arg(long, default_value_t = 60)]
    wait_s: u64,
    /// How long deletions wait for others before their space is taken back.
    #[arg(long, default_value_t = 1000)]
    reclaim_delay_ms: u64,
    /// Memory of the engine for buffers and caches.
    #[arg(long)]
    memory_mib: Option<usize>,
    /// Also close the storage, and measure how long it takes to open it again.
    #[arg(long)]
    reopen: bool,
    /// Words for the line of results.
    #[arg(long, default_value = "")]
    label: String,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let folder = tempfile::Builder::new().prefix("storage-log-").tempdir_in(&arguments.dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let storage = Storage::open_rocks(folder.path(), &options(&arguments))?;

    let meter = Meter::start()?;
    let mut load = runtime.block_on(Load::open(&storage, &arguments))?;
    load.run(&arguments);
    let written = meter.read()?;
    println!(
        "{} | {} replicas of {} B | {:.0} MB/s | cpu {:.2} s/GB, background {:.2} | written {:.2} ({:.2} by calls) | \
         commits p50 {:.1} p99 {:.1} max {:.1} ms",
        arguments.label,
        arguments.replicas,
        arguments.entry_bytes,
        load.written_bytes as f64 / 1e6 / written.elapsed.as_secs_f64(),
        written.cpu_s * 1e9 / load.written_bytes as f64,
        written.background_cpu_s * 1e9 / load.written_bytes as f64,
        written.disk_bytes as f64 / load.written_bytes as f64,
        written.call_bytes as f64 / load.written_bytes as f64,
        load.commit_ms(50),
        load.commit_ms(99),
        load.commit_ms(100),
    );

    if arguments.after != Trim::Nothing {
        give_back(&arguments, &runtime, folder.path(), &storage, &mut load)?;
    }
    println!("  on disk {} MiB for {} MiB kept", disk_bytes(folder.path())? >> 20, payload_mib(load.kept_bytes));
    runtime.block_on(storage.close());

    if arguments.reopen {
        let meter = Meter::start()?;
        let storage = Storage::open_rocks(folder.path(), &options(&arguments))?;
        let opened = meter.read()?;
        println!(
            "  opened in {:.2} s, cpu {:.2} s, {} MiB read from files",
            opened.elapsed.as_secs_f64(),
            opened.cpu_s,
            opened.read_bytes >> 20
        );
        runtime.block_on(storage.close());
    }
    Ok(())
}

fn options(arguments: &Arguments) -> RocksOptions {
    let defaults = RocksOptions::default();
    RocksOptions {
        memory_bytes: arguments.memory_mib.map_or(defaults.memory_bytes, |mib| mib << 20),
        reclaim_delay: Duration::from_millis(arguments.reclaim_delay_ms),
        ..defaults
    }
}

/// Trims or deletes, then watches the folder until it has stopped shrinking.
fn give_back(
    arguments: &Arguments,
    runtime: &tokio::runtime::Runtime,
    folder: &std::path::Path,
    storage: &Storage,
    load: &mut Load,
) -> Result<(), Box<dyn std::error::Error>> {
    let before = disk_bytes(folder)?;
    let meter = Meter::start()?;
    let called = Instant::now();
    let gone = runtime.block_on(load.trim(storage, arguments))?;
    let call = called.elapsed();

    let mut least = before;
    let mut settled = Duration::ZERO;
    while called.elapsed() < Duration::from_secs(arguments.wait_s) {
        std::thread::sleep(Duration::from_millis(250));
        let now = disk_bytes(folder)?;
        if now < least {
            (least, settled) = (now, called.elapsed());
        }
    }
    let after = meter.read()?;
    println!(
        "  {:?}: {} MiB went in {:.1} ms; {} of {} MiB came back, the last after {:.1} s; written {} MiB, cpu {:.2} s",
        arguments.after,
        payload_mib(gone),
        call.as_secs_f64() * 1e3,
        before.saturating_sub(least) >> 20,
        before >> 20,
        settled.as_secs_f64(),
        after.disk_bytes >> 20,
        after.cpu_s,
    );
    Ok(())
}

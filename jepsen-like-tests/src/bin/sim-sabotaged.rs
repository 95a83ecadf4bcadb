//! The simulation with planted bugs: see `quorate_model::sabotage`.

use std::process::ExitCode;

#[path = "sim.rs"]
mod sim;

fn main() -> ExitCode {
    sim::main()
}

//! The development cluster: server processes of this machine, started from this binary.
//!
//! - [`process`]: one process, told apart from any later one with its number
//! - [`layout`]: folders, ports and generated configurations
//! - [`cluster`]: the processes that belong together, remembered in a file between commands
//! - [`readiness`]: waiting until nodes serve

pub(crate) mod cluster;
pub(crate) mod layout;
pub(crate) mod process;
pub(crate) mod readiness;

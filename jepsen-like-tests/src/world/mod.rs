//! Where a run takes place.

pub mod sim;

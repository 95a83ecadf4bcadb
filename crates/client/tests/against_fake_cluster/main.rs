//! The whole client against a cluster in memory, on a clock that runs only while everybody waits.

mod fake_cluster;
mod publishing;
mod reading;
mod subscriptions;

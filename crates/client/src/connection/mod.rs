//! Connections to nodes: how one is made, and the set of those that stand.
//!
//! A node is dialled in the background. Requests use a connection only once it stands, so that an
//! advertised address that can't be reached from here costs nobody a connect timeout.

mod io;
mod links;

pub use io::{BoxIo, Connector, Io, tcp_connector};
pub(crate) use links::{Connection, Links, check_address};

use std::time::Duration;

/// How connections are made and kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionSettings {
    /// Longest attempt to connect. Default 1.5 s.
    pub connect_timeout: Duration,
    /// An HTTP/2 ping goes out after this much silence, on idle connections too. Default 1 s.
    ///
    /// Not an optimisation: a peer that vanished without closing its connection is found in no other way.
    pub keepalive_interval: Duration,
    /// A connection whose ping stays unanswered for this long is dropped. Default 1.5 s.
    pub keepalive_timeout: Duration,
    /// Shortest and longest wait between attempts to reach a node again. Default 50 ms to 2 s.
    pub redial_min: Duration,
    /// See [`redial_min`](Self::redial_min).
    pub redial_max: Duration,
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_millis(1500),
            keepalive_interval: Duration::from_secs(1),
            keepalive_timeout: Duration::from_millis(1500),
            redial_min: Duration::from_millis(50),
            redial_max: Duration::from_secs(2),
        }
    }
}

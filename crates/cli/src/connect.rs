//! How client commands reach the cluster.

use crate::context;
use crate::failure::Failure;
use clap::Args;
use quorate_client::{Client, RetrySettings};
use std::time::Duration;

/// Options of every command that talks to a cluster.
#[derive(Debug, Args)]
pub(crate) struct Connect {
    /// Where the cluster is reached; one node that answers is enough [default: the selected context]
    #[arg(long, global = true, env = "QUORATE_SERVER", value_name = "HOST:PORT", value_delimiter = ',')]
    server: Vec<String>,

    /// How long a request is tried, retries and other nodes included
    #[arg(long, global = true, value_name = "TIME", default_value = "15s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

impl Connect {
    /// A client that connects in the background; within a tokio runtime.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let retry = RetrySettings { total: self.timeout, ..RetrySettings::default() };
        Ok(Client::builder().servers(context::servers(&self.server)?).retry(retry).build()?)
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }
}

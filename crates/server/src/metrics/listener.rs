//! Metrics and probes over plain HTTP, for Prometheus and for whatever supervises the process. Only in
//! production, and only where an address is configured.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::node::Probe;

/// A bound metrics listener.
pub(crate) struct MetricsListener {
    socket: TcpListener,
    address: String,
}

impl MetricsListener {
    /// Binds `address` (`host:port`).
    ///
    /// # Errors
    /// If it can't be bound.
    pub(crate) async fn bind(address: &str) -> io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        let address = socket.local_addr()?.to_string();
        Ok(Self { socket, address })
    }

    /// Where it is bound.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Serves until `stopping` is cancelled.
    pub(crate) async fn serve(self, probe: Probe, stopping: CancellationToken) -> io::Result<()> {
        probe.metrics().observe_process();
        let routes = Router::new()
            .route("/metrics", get(metrics))
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .with_state(Arc::new(probe));
        axum::serve(self.socket, routes).with_graceful_shutdown(stopping.cancelled_owned()).await
    }
}

async fn metrics(State(probe): State<Arc<Probe>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], probe.render().await)
}

async fn readyz(State(probe): State<Arc<Probe>>) -> impl IntoResponse {
    match probe.not_ready() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

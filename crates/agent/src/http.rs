//! The agent's HTTP listeners. One that cannot listen is a problem that is reported and tried again, no reason to stop.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::problems::Problems;

const RETRY: Duration = Duration::from_secs(5);

/// Serves `router` until `stop`.
pub async fn serve(
    name: &str,
    address: SocketAddr,
    router: Router,
    problems: Problems,
    stop: CancellationToken,
) {
    while !stop.is_cancelled() {
        let error = match bind(address).await {
            Ok(listener) => {
                problems.set(name, None);
                info!(name, %address, "listening");
                let serving = axum::serve(listener, router.clone());
                tokio::select! {
                    ended = serving.into_future() => match ended {
                        Ok(()) => return,
                        Err(e) => e,
                    },
                    () = stop.cancelled() => return,
                }
            }
            Err(e) => e,
        };
        problems.set(name, Some(format!("cannot listen on {address}: {error}")));
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// On a machine without IPv6, `[::]` stands for all that there is.
async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(e) if address.is_ipv6() && address.ip().is_unspecified() && no_ipv6(&e) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    }
}

fn no_ipv6(error: &std::io::Error) -> bool {
    use nix::errno::Errno;
    error
        .raw_os_error()
        .is_some_and(|e| [Errno::EAFNOSUPPORT, Errno::EADDRNOTAVAIL].contains(&Errno::from_raw(e)))
}

/// `/metrics` of a registry, in the OpenMetrics text format that Prometheus asks for.
pub fn metrics(registry: Registry) -> Router {
    async fn scrape(State(registry): State<Arc<Registry>>) -> impl IntoResponse {
        let mut text = String::new();
        let headers = [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
        match prometheus_client::encoding::text::encode(&mut text, &registry) {
            Ok(()) => (StatusCode::OK, headers, text),
            Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, headers, e.to_string()),
        }
    }
    Router::new().route("/metrics", get(scrape)).with_state(Arc::new(registry))
}

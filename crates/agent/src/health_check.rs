//! `healthCheckNodePort`: tells load balancers which nodes have endpoints of a Service with `externalTrafficPolicy: Local`
//! (kube-proxy: `pkg/proxy/healthcheck/service_health.go`).

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use eastwest_compile::{HealthCheck, ServiceKey};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::health::Health;
use crate::http;
use crate::problems::Problems;

/// By Service.
pub type Checks = BTreeMap<ServiceKey, HealthCheck>;

/// How many endpoints there are for the load balancer; kube-proxy counts those of one family, which are as many.
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// Serves each Service's port for as long as it has one.
pub async fn run(
    mut checks: watch::Receiver<Checks>,
    health: Arc<Health>,
    problems: Problems,
    stop: CancellationToken,
) {
    let tasks = TaskTracker::new();
    let mut serving: HashMap<(ServiceKey, u16), CancellationToken> = HashMap::new();
    while !stop.is_cancelled() {
        let wanted: Vec<_> = checks.borrow_and_update().iter().map(|(k, c)| (k.clone(), c.port)).collect();
        serving.retain(|served, stop| {
            let keep = wanted.contains(served);
            if !keep {
                stop.cancel();
            }
            keep
        });
        for (key, port) in wanted {
            serving.entry((key.clone(), port)).or_insert_with(|| {
                let stop = stop.child_token();
                let asked = Asked { key, checks: checks.clone(), health: health.clone() };
                tasks.spawn(serve(asked, port, problems.clone(), stop.clone()));
                stop
            });
        }
        tokio::select! {
            changed = checks.changed() => if changed.is_err() { break },
            () = stop.cancelled() => break,
        }
    }
    tasks.close();
    tasks.wait().await;
}

async fn serve(asked: Asked, port: u16, problems: Problems, stop: CancellationToken) {
    let name = format!("healthCheckNodePort of {}", asked.key);
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let router = Router::new().fallback(answer).with_state(asked);
    http::serve(&name, address, router, problems.clone(), stop).await;
    problems.set(&name, None);
}

#[derive(Clone)]
struct Asked {
    key: ServiceKey,
    checks: watch::Receiver<Checks>,
    health: Arc<Health>,
}

/// Whatever the path.
async fn answer(State(asked): State<Asked>) -> Response {
    let local = asked.checks.borrow().get(&asked.key).map_or(0, |check| check.local4.max(check.local6));
    let healthy = asked.health.is_healthy();
    let code = if local > 0 && healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({
        "service": {"namespace": *asked.key.namespace, "name": *asked.key.name},
        "localEndpoints": local,
        "serviceProxyHealthy": healthy,
    });
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (WEIGHT, local.to_string()),
    ];
    (code, headers, body.to_string()).into_response()
}

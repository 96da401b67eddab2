//! kube-proxy's health and CoreDNS' readiness, from what the agent knows of itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use eastwest_dns::Index;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::sync::watch;

use crate::core::Status;
use crate::metrics::SyncMetrics;

/// A change that has waited so long for its programming: the agent is stuck (kube-proxy: twice its sync period).
const STUCK: Duration = Duration::from_secs(60);

/// Whether changes are programmed when they come.
#[derive(Debug)]
pub struct Health {
    metrics: Arc<SyncMetrics>,
    started: Instant,
    /// Milliseconds after `started` since which something waits; 0: nothing does.
    waiting: AtomicU64,
    /// The node is being deleted or scaled away.
    leaving: AtomicBool,
    healthz: Asked,
    livez: Asked,
}

/// Answers by code.
type Asked = Family<[(&'static str, u16); 1], Counter>;

impl Health {
    pub fn new(metrics: Arc<SyncMetrics>) -> Arc<Self> {
        Arc::new(Self {
            metrics,
            started: Instant::now(),
            waiting: AtomicU64::new(0),
            leaving: AtomicBool::new(false),
            healthz: Asked::default(),
            livez: Asked::default(),
        })
    }

    /// Changes are about to be programmed.
    pub fn busy(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        let _ = self.waiting.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// They are.
    pub fn idle(&self) {
        self.waiting.store(0, Ordering::Relaxed);
    }

    /// Whether the node is about to go: load balancers shall send it nothing new.
    pub fn set_leaving(&self, leaving: bool) {
        self.leaving.store(leaving, Ordering::Relaxed);
    }

    pub fn register(&self, registry: &mut Registry) {
        registry.register("kubeproxy_proxy_healthz", "Answers of /healthz by code", self.healthz.clone());
        registry.register("kubeproxy_proxy_livez", "Answers of /livez by code", self.livez.clone());
    }

    pub fn is_healthy(&self) -> bool {
        let since = self.waiting.load(Ordering::Relaxed);
        since == 0 || self.started.elapsed().saturating_sub(Duration::from_millis(since)) < STUCK
    }

    /// `/healthz` and `/livez` as kube-proxy has them (`pkg/proxy/healthcheck/proxy_health.go`): a node that is about to
    /// go fails the first, not the second (KEP-3836).
    pub fn router(self: &Arc<Self>) -> Router {
        Router::new().route("/healthz", get(healthz)).route("/livez", get(livez)).with_state(self.clone())
    }
}

async fn healthz(State(health): State<Arc<Health>>) -> Response {
    let eligible = !health.leaving.load(Ordering::Relaxed);
    answer(&health, eligible, &health.healthz)
}

async fn livez(State(health): State<Arc<Health>>) -> Response {
    answer(&health, true, &health.livez)
}

fn answer(health: &Health, eligible: bool, asked: &Asked) -> Response {
    let now = jiff::Timestamp::now();
    let healthy = health.is_healthy();
    let updated = health.metrics.last_applied().and_then(|t| jiff::Timestamp::try_from(t).ok());
    // Healthy and nothing waits: as up to date as can be, as kube-proxy puts it.
    let updated = if healthy { Some(now) } else { updated };
    let body = json!({
        "lastUpdated": updated.map(|t| t.to_string()),
        "currentTime": now.to_string(),
        "nodeEligible": eligible,
    });
    let code = if healthy && eligible { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    asked.get_or_create(&[("code", code.as_u16())]).inc();
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (code, headers, body.to_string()).into_response()
}

/// `/ready` as CoreDNS' `ready` plugin: names are known, Services programmed, and the end is not near.
pub fn dns_ready(index: Arc<Index>, status: watch::Receiver<Status>, ending: Arc<AtomicBool>) -> Router {
    type Known = (Arc<Index>, watch::Receiver<Status>, Arc<AtomicBool>);
    async fn ready(State((index, status, ending)): State<Known>) -> (StatusCode, &'static str) {
        match (index.synced(), status.borrow().open) {
            _ if ending.load(Ordering::Relaxed) => (StatusCode::SERVICE_UNAVAILABLE, "lameduck"),
            (true, true) => (StatusCode::OK, "OK"),
            (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "kubernetes"),
            (true, false) => (StatusCode::SERVICE_UNAVAILABLE, "programs"),
        }
    }
    Router::new().route("/ready", get(ready)).with_state((index, status, ending))
}

/// `/health` as CoreDNS' `health` plugin.
pub fn dns_health() -> Router {
    Router::new().route("/health", get(async || "OK"))
}

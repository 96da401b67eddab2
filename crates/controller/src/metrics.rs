//! Metrics, under kube-apiserver's names where it has the same thing.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use eastwest_api::{App, Observation, Observer};
use eastwest_store::Flush;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    verb: &'static str,
    resource: String,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Latency {
    verb: &'static str,
    resource: String,
}

/// What is counted.
#[derive(Clone)]
pub struct Metrics {
    requests: Family<Request, Counter>,
    latency: Family<Latency, Histogram>,
    flush: Histogram,
    writes: Counter,
    transactions: Counter,
}

/// Seconds.
const BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

impl Metrics {
    pub fn new(registry: &mut Registry) -> Self {
        let this = Self {
            requests: Family::default(),
            latency: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            flush: Histogram::new(BUCKETS),
            writes: Counter::default(),
            transactions: Counter::default(),
        };
        registry.register("apiserver_request", "Requests by verb, resource and code", this.requests.clone());
        registry.register_with_unit(
            "apiserver_request_duration",
            "Time to answer; watches are not counted",
            Unit::Seconds,
            this.latency.clone(),
        );
        registry.register_with_unit(
            "eastwest_store_flush_duration",
            "Time to make a batch of writes durable",
            Unit::Seconds,
            this.flush.clone(),
        );
        registry.register("eastwest_store_writes", "Objects written or deleted", this.writes.clone());
        registry.register(
            "eastwest_store_transactions",
            "Transactions; many share one flush",
            this.transactions.clone(),
        );
        this
    }

    pub fn observer(&self) -> Observer {
        let this = self.clone();
        Arc::new(move |o: Observation<'_>| {
            let resource = o.resource.to_owned();
            if o.verb != "WATCH" {
                let latency = Latency { verb: o.verb, resource: resource.clone() };
                this.latency.get_or_create(&latency).observe(o.took.as_secs_f64());
            }
            this.requests.get_or_create(&Request { verb: o.verb, resource, code: o.code }).inc();
        })
    }

    pub fn on_flush(&self) -> Arc<dyn Fn(Flush) + Send + Sync> {
        let this = self.clone();
        Arc::new(move |flush| {
            this.flush.observe(flush.took.as_secs_f64());
            this.writes.inc_by(flush.writes as u64);
            this.transactions.inc_by(flush.transactions as u64);
        })
    }
}

/// What is looked up when it is asked for.
struct Now(App);

impl std::fmt::Debug for Now {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Now")
    }
}

impl Collector for Now {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let store = self.0.store();
        for (name, help, value) in [
            ("eastwest_store_revision", "The newest revision", store.revision().0 as i64),
            ("eastwest_store_watchers", "Watches and agent streams that are open", store.watchers() as i64),
            ("eastwest_agents_connected", "Nodes whose agent is connected", self.0.connected_nodes() as i64),
        ] {
            let gauge = ConstGauge::new(value);
            let metric =
                encoder.encode_descriptor(name, help, None, prometheus_client::metrics::MetricType::Gauge)?;
            gauge.encode(metric)?;
        }
        Ok(())
    }
}

/// `/metrics`, `/livez` and `/readyz`, without TLS or token.
pub fn routes(app: App, mut registry: Registry) -> Router {
    registry.register_collector(Box::new(Now(app.clone())));
    let registry = Arc::new(registry);
    Router::new()
        .route("/metrics", get(metrics).with_state(registry))
        .route("/livez", get(|| async { "ok" }))
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready).with_state(app))
}

async fn metrics(State(registry): State<Arc<Registry>>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => {
            let type_ = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, type_)], text).into_response()
        }
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response(),
    }
}

async fn ready(State(app): State<App>) -> Response {
    match app.unready() {
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why).into_response(),
        None => "ok".into_response(),
    }
}

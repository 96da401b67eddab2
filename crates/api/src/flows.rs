//! `/v1/flows`: what agents tell of new connections and of packets that got none, with names put to the addresses. It is
//! kept in memory, the newest only, and told of only while somebody asks for it.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use eastwest_model::{
    EndpointSlice, Flow, FlowList, FlowReport, FlowSampling, Kind, Node, Revision, Service, Workload,
};
use eastwest_store::View;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::{ApiError, App};

/// Flows that are kept.
const KEPT: usize = 10_000;
/// How long a report without flows is answered late, so that an agent hears of it at once when they are wanted.
const WAIT: Duration = Duration::from_secs(10);
/// Longest time for which flows can be asked for.
const LONGEST: u32 = 3600;
/// Names are looked for anew no sooner.
const INDEX: Duration = Duration::from_secs(1);

/// The flows heard of, and who wants to hear.
pub struct Flows {
    kept: Mutex<Kept>,
    wanted: watch::Sender<Wanted>,
    arrived: watch::Sender<u64>,
    names: Mutex<Option<(Instant, Arc<Names>)>>,
}

#[derive(Default)]
struct Kept {
    flows: VecDeque<Arc<Flow>>,
    /// Number of the next one.
    next: u64,
}

#[derive(Clone, Copy, Default)]
struct Wanted {
    sampling: u32,
    until: Option<Instant>,
}

impl Wanted {
    fn now(self) -> u32 {
        if self.until.is_some_and(|until| Instant::now() < until) { self.sampling } else { 0 }
    }
}

impl Default for Flows {
    fn default() -> Self {
        Self {
            kept: Mutex::default(),
            wanted: watch::Sender::new(Wanted::default()),
            arrived: watch::Sender::new(0),
            names: Mutex::default(),
        }
    }
}

impl Flows {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, flows: Vec<Flow>) {
        let mut kept = self.kept();
        kept.next += flows.len() as u64;
        kept.flows.extend(flows.into_iter().map(Arc::new));
        let over = kept.flows.len().saturating_sub(KEPT);
        kept.flows.drain(..over);
        self.arrived.send_replace(kept.next);
    }

    /// Those from number `after` on that fit.
    fn list(&self, after: u64, fits: impl Fn(&Flow) -> bool) -> FlowList {
        let kept = self.kept();
        let first = kept.next - kept.flows.len() as u64;
        let skip = usize::try_from(after.saturating_sub(first)).unwrap_or(usize::MAX);
        let found = kept.flows.iter().skip(skip).filter(|flow| fits(flow));
        FlowList {
            flows: found.map(|flow| Flow::clone(flow)).collect(),
            next: kept.next,
            sampling: self.wanted.borrow().now(),
            missed: if after == 0 { 0 } else { first.saturating_sub(after) },
        }
    }
}

/// Which flows.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct FlowQuery {
    /// From this number on, a former answer's `next`; absent: all that are kept.
    #[serde(default)]
    after: u64,
    /// Of Services, clients or endpoints in this namespace.
    namespace: Option<String>,
    /// Of this Service, NAMESPACE/NAME.
    service: Option<String>,
    /// `opened`, `refused` or `dropped`.
    verdict: Option<String>,
    /// With nothing to tell, answer only when there is something, or after ten seconds.
    #[serde(default)]
    wait: bool,
}

impl FlowQuery {
    fn fits(&self, flow: &Flow) -> bool {
        let inside = |name: &str| {
            self.namespace.as_deref().is_none_or(|ns| name.split_once('/').is_some_and(|(of, _)| of == ns))
        };
        [&flow.service, &flow.client_name, &flow.backend_name].into_iter().any(|name| inside(name))
            && self.service.as_deref().is_none_or(|service| flow.service == service)
            && self.verdict.as_deref().is_none_or(|verdict| flow.verdict == verdict)
    }
}

/// The flows that agents have told of.
#[utoipa::path(
    get,
    path = "/v1/flows",
    tag = "eastwest",
    params(FlowQuery),
    responses(
        (status = 200, description = "The newest that are kept, oldest first", body = FlowList),
        (status = "4XX", description = "The request cannot be served", body = crate::error::Problem,
            content_type = "application/problem+json"),
    )
)]
pub async fn list(
    State(app): State<App>,
    query: Result<Query<FlowQuery>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let Query(query) = match query {
        Ok(query) => query,
        Err(e) => return ApiError::bad_request(e.body_text()).into_problem(),
    };
    let flows = &app.0.flows;
    let mut arrived = flows.arrived.subscribe();
    let end = Instant::now() + WAIT;
    loop {
        arrived.mark_unchanged();
        let found = flows.list(query.after, |flow| query.fits(flow));
        if !query.wait || !found.flows.is_empty() || Instant::now() >= end {
            return Json(found).into_response();
        }
        tokio::select! {
            _ = arrived.changed() => {}
            () = tokio::time::sleep_until(end) => {}
            () = app.0.closing.cancelled() => return Json(found).into_response(),
        }
    }
}

/// Has agents tell of flows, for a time.
#[utoipa::path(
    put,
    path = "/v1/flows",
    tag = "eastwest",
    request_body = FlowSampling,
    responses(
        (status = 200, description = "What is told of from now on", body = FlowSampling),
        (status = "4XX", description = "The request cannot be served", body = crate::error::Problem,
            content_type = "application/problem+json"),
    )
)]
pub async fn sample(
    State(app): State<App>,
    body: Result<Json<FlowSampling>, axum::extract::rejection::JsonRejection>,
) -> Response {
    let Json(asked) = match body {
        Ok(body) => body,
        Err(e) => return ApiError::bad_request(e.body_text()).into_problem(),
    };
    if asked.sampling != 0 && !(1..=LONGEST).contains(&asked.seconds) {
        return ApiError::bad_request(format!("seconds: 1 to {LONGEST}")).into_problem();
    }
    let until = Instant::now() + Duration::from_secs(asked.seconds.into());
    app.0.flows.wanted.send_replace(Wanted { sampling: asked.sampling, until: Some(until) });
    Json(asked).into_response()
}

/// Takes an agent's flows, and answers what it shall tell of: at once while it shall tell of some, else when that changes or
/// after ten seconds.
#[utoipa::path(
    post,
    path = "/v1/agent/flows",
    tag = "agent",
    request_body = FlowReport,
    responses((status = 200, description = "What to tell of", body = FlowSampling))
)]
pub async fn report(
    State(app): State<App>,
    body: Result<Json<FlowReport>, axum::extract::rejection::JsonRejection>,
) -> Response {
    let Json(report) = match body {
        Ok(body) => body,
        Err(e) => return ApiError::bad_request(e.body_text()).into_problem(),
    };
    if !report.flows.is_empty() {
        let at = app.clone();
        let named = tokio::task::spawn_blocking(move || {
            let names = names(&at);
            let mut flows = report.flows;
            flows.iter_mut().for_each(|flow| names.put(flow));
            at.0.flows.add(flows);
        });
        if let Err(e) = named.await {
            return ApiError::internal(e).into_problem();
        }
    }
    let mut wanted = app.0.flows.wanted.subscribe();
    let end = Instant::now() + WAIT;
    loop {
        let now = wanted.borrow_and_update().now();
        // An agent that tells of flows by its own setting is not kept waiting.
        if now != 0 || report.sampling != 0 || Instant::now() >= end {
            return Json(FlowSampling { sampling: now, seconds: 0 }).into_response();
        }
        tokio::select! {
            _ = wanted.changed() => {}
            () = tokio::time::sleep_until(end) => {}
            () = app.0.closing.cancelled() => return Json(FlowSampling::default()).into_response(),
        }
    }
}

/// Who has which address.
#[derive(Default)]
struct Names {
    revision: Option<Revision>,
    services: HashMap<IpAddr, String>,
    /// By port and protocol.
    node_ports: HashMap<(u16, String), String>,
    /// Pods, and nodes.
    holders: HashMap<IpAddr, String>,
}

/// As of a moment ago.
fn names(app: &App) -> Arc<Names> {
    let mut cached = app.0.flows.names.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((at, names)) = &*cached
        && (at.elapsed() < INDEX || names.revision == Some(app.revision()))
    {
        return names.clone();
    }
    let names = Arc::new(app.store().read(|view| Names::read(&view)));
    *cached = Some((Instant::now(), names.clone()));
    names
}

impl Names {
    fn read(view: &View<'_>) -> Self {
        let mut this = Self { revision: Some(view.revision()), ..Self::default() };
        let parse = |text: &str| text.parse::<IpAddr>().ok();
        for object in view.range(Kind::Node, None, None) {
            if let Ok(node) = serde_json::from_slice::<Node>(&object.json) {
                let name = node.metadata.name.clone();
                this.holders.extend(node.internal_ips().map(|ip| (ip, name.clone())));
            }
        }
        for object in view.range(Kind::EndpointSlice, None, None) {
            let Ok(slice) = serde_json::from_slice::<EndpointSlice>(&object.json) else { continue };
            for endpoint in &slice.endpoints {
                let Some(target) = &endpoint.target_ref else { continue };
                let name = format!("{}/{}", slice.metadata.namespace, target.name);
                let all = endpoint.addresses.iter().filter_map(|text| parse(text));
                this.holders.extend(all.map(|ip| (ip, name.clone())));
            }
        }
        for object in view.range(Kind::Workload, None, None) {
            let Ok(workload) = serde_json::from_slice::<Workload>(&object.json) else { continue };
            let name = format!("{}/{}", workload.metadata.namespace, workload.metadata.name);
            for ip in workload.spec.addresses.iter().filter_map(|text| parse(text)) {
                // On the node's network it has the node's address, which says less of who it is.
                this.holders.entry(ip).or_insert_with(|| name.clone());
            }
        }
        for object in view.range(Kind::Service, None, None) {
            let Ok(service) = serde_json::from_slice::<Service>(&object.json) else { continue };
            let name = format!("{}/{}", service.metadata.namespace, service.metadata.name);
            let ingress = service.status.load_balancer.ingress.iter().filter_map(|i| parse(&i.ip));
            let external = service.spec.external_ips.iter().filter_map(|text| parse(text));
            this.services
                .extend(service.cluster_ips().chain(external).chain(ingress).map(|ip| (ip, name.clone())));
            for port in &service.spec.ports {
                if let Some(node_port) = port.node_port {
                    this.node_ports.insert((node_port, format!("{:?}", port.protocol)), name.clone());
                }
            }
        }
        this
    }

    fn put(&self, flow: &mut Flow) {
        let holder = |at: &str| {
            let ip = at.parse::<SocketAddr>().ok()?.ip();
            self.holders.get(&ip).cloned()
        };
        flow.client_name =
            if flow.from == "host" { flow.node.clone() } else { holder(&flow.client).unwrap_or_default() };
        flow.backend_name = holder(&flow.backend).unwrap_or_default();
        if let Ok(asked) = flow.asked.parse::<SocketAddr>() {
            let by_port = || self.node_ports.get(&(asked.port(), flow.protocol.clone()));
            flow.service = self.services.get(&asked.ip()).or_else(by_port).cloned().unwrap_or_default();
        }
    }
}

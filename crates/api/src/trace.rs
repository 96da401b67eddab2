//! `GET /v1/trace`: what a connection would get on a node, and why, from the pure compile alone.

mod ask;
mod path;

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use eastwest_compile::Context;
use eastwest_model::{IpFamily, Kind, Node, NodeState, Revision, Service, Trace, TraceFrom, Workload};
use eastwest_store::{Key, Object};
use serde::Deserialize;

use crate::{ApiError, App};
use ask::{Target, Who};

/// From where to where.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct TraceQuery {
    /// `pod/NAMESPACE/NAME`, `node/NAME` for a process there, `client` or `client/ADDRESS` for one outside.
    from: String,
    /// `tcp://HOST:PORT` (also udp, sctp); HOST is an address, a Service's name as a pod would ask for it, or a node.
    to: String,
    /// Node where the packet of a client outside comes in; absent: the first.
    node: Option<String>,
}

/// What a connection would get, with each endpoint that was considered and why.
#[utoipa::path(
    get,
    path = "/v1/trace",
    tag = "eastwest",
    params(TraceQuery),
    responses(
        (status = 200, description = "What it gets, at the newest revision", body = Trace),
        (status = "4XX", description = "The request cannot be served", body = crate::error::Problem,
            content_type = "application/problem+json"),
    )
)]
pub async fn trace(
    State(app): State<App>,
    query: Result<Query<TraceQuery>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let Query(q) = match query {
        Ok(q) => q,
        Err(e) => return ApiError::bad_request(e.body_text()).into_problem(),
    };
    // Reads every Service: not for the threads that serve others.
    match tokio::task::spawn_blocking(move || answer(&app, &q)).await {
        Ok(Ok(trace)) => Json(trace).into_response(),
        Ok(Err(e)) => e.into_problem(),
        Err(e) => ApiError::internal(e).into_problem(),
    }
}

/// What a trace reads, at one revision.
struct World {
    revision: Revision,
    nodes: Vec<Node>,
    services: Vec<Arc<Object>>,
    slices: Vec<Arc<Object>>,
    splits: Vec<Arc<Object>>,
}

/// Who connects, worked out.
struct Client {
    from: TraceFrom,
    /// Namespace whose names it may shorten.
    namespace: String,
    addresses: Vec<IpAddr>,
    place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Pod,
    Host,
    Outside,
    /// By the NIC, but of the cluster: another node, or a pod there.
    Inside,
}

fn answer(app: &App, q: &TraceQuery) -> Result<Trace, ApiError> {
    let who: Who = q.from.parse().map_err(|e| ApiError::bad_request(format!("query parameter from: {e}")))?;
    let target: Target =
        q.to.parse().map_err(|e| ApiError::bad_request(format!("query parameter to: {e}")))?;
    let world = app.store().read(|view| {
        let all = |kind| view.range(kind, None, None).cloned().collect::<Vec<_>>();
        World {
            revision: view.revision(),
            nodes: all(Kind::Node).iter().filter_map(|o| serde_json::from_slice(&o.json).ok()).collect(),
            services: all(Kind::Service),
            slices: all(Kind::EndpointSlice),
            splits: all(Kind::TrafficSplit),
        }
    });
    let client = world.client(app, &who, q.node.as_deref())?;
    let (name, addresses) = world.resolve(app, &client, &target);
    let known: Vec<bool> = client.addresses.iter().map(IpAddr::is_ipv4).collect();
    let reachable = addresses.iter().filter(|a| known.is_empty() || known.contains(&a.is_ipv4()));
    let state: Option<NodeState> = app
        .realm(Kind::NodeState)
        .store
        .get(&Key::new(Kind::NodeState, "", &client.from.node))
        .and_then(|o| serde_json::from_slice(&o.json).ok());
    let context = Context {
        node: client.from.node.as_str().into(),
        service_cidrs: app.0.config.service_ranges.clone(),
        // What an agent does unless it is told otherwise; the controller does not know its settings.
        node_port_addresses: world
            .node(&client.from.node)
            .map(|n| n.internal_ips().collect())
            .unwrap_or_default(),
        pod_names: false,
    };
    let lookup = path::Lookup::new(app, &world, context, &client, state.as_ref());
    let paths = reachable.map(|addr| lookup.path(*addr, target.port, target.protocol)).collect();
    Ok(Trace { revision: world.revision, from: client.from.clone(), to: q.to.clone(), name, paths })
}

impl World {
    fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|n| n.metadata.name == name)
    }

    fn client(&self, app: &App, who: &Who, enters: Option<&str>) -> Result<Client, ApiError> {
        let no_node = |name: &str| ApiError::bad_request(format!("there is no node {name:?}"));
        match who {
            Who::Pod { namespace, name } => {
                let object = app.store().get(&Key::new(Kind::Workload, namespace, name));
                let workload: Workload = object
                    .and_then(|o| serde_json::from_slice(&o.json).ok())
                    .ok_or_else(|| ApiError::bad_request(format!("there is no pod {namespace}/{name}")))?;
                let node = self.node(&workload.spec.node).ok_or_else(|| no_node(&workload.spec.node))?;
                let addresses = parsed(&workload.spec.addresses);
                let on_host = node.internal_ips().any(|ip| addresses.contains(&ip));
                let place = if on_host { Place::Host } else { Place::Pod };
                Ok(Client::new(
                    place,
                    &format!("{namespace}/{name}"),
                    &node.metadata.name,
                    addresses,
                    namespace,
                ))
            }
            Who::Node(name) => {
                let node = self.node(name).ok_or_else(|| no_node(name))?;
                Ok(Client::new(Place::Host, name, name, node.internal_ips().collect(), "default"))
            }
            Who::Outside(address) => {
                let first = self.nodes.first().map(|n| n.metadata.name.as_str());
                let Some(node) = enters.or(first) else {
                    return Err(ApiError::bad_request("there is no node where a packet could come in"));
                };
                let node = self.node(node).ok_or_else(|| no_node(node))?;
                // Pods of other nodes, and those nodes, are clients of the cluster although they come by the NIC.
                let ours = address.is_some_and(|ip| {
                    let of_node = |n: &Node| n.internal_ips().any(|a| a == ip);
                    let of_pods = |n: &Node| n.spec.pod_cidrs.iter().any(|c| c.contains(&ip));
                    self.nodes.iter().any(|n| of_node(n) || of_pods(n))
                });
                let place = if ours { Place::Inside } else { Place::Outside };
                let addresses = address.iter().copied().collect();
                Ok(Client::new(place, "", &node.metadata.name, addresses, "default"))
            }
        }
    }

    /// What became of the target's name, and its addresses.
    fn resolve(&self, app: &App, client: &Client, target: &Target) -> (Vec<String>, Vec<IpAddr>) {
        let host = target.host.as_str();
        if let Ok(ip) = host.parse() {
            return (Vec::new(), vec![ip]);
        }
        let zone = &app.0.config.zone;
        let mut said = Vec::new();
        for (namespace, name) in ask::services(host, &client.namespace, zone) {
            let full = format!("{name}.{namespace}.svc.{zone}");
            let key = Key::new(Kind::Service, namespace, name);
            let Some(service) = self.services.iter().find(|o| o.key == key) else {
                said.push(format!("{full}: no such Service"));
                continue;
            };
            let Ok(service) = serde_json::from_slice::<Service>(&service.json) else { continue };
            if service.service_type() == eastwest_model::ServiceType::ExternalName {
                said.push(format!("{full}: CNAME {}", service.spec.external_name));
                return (said, Vec::new());
            }
            if service.is_headless() {
                let addresses = self.endpoints(namespace, name, &service);
                said.push(format!("{full}: headless, {} endpoints", addresses.len()));
                return (said, addresses);
            }
            let addresses: Vec<IpAddr> = service.cluster_ips().collect();
            let shown: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            said.push(format!("{full}: {}", shown.join(", ")));
            return (said, addresses);
        }
        if let Some(node) = self.node(host) {
            let addresses: Vec<IpAddr> = node.internal_ips().collect();
            said.push(format!("{host}: the node's addresses"));
            return (said, addresses);
        }
        said.push(format!(
            "{host} is no name of a Service or node; `eastwest dns {host}` asks a node's server"
        ));
        (said, Vec::new())
    }

    /// Addresses that a headless Service's name has.
    fn endpoints(&self, namespace: &str, name: &str, service: &Service) -> Vec<IpAddr> {
        let publish = service.spec.publish_not_ready_addresses == Some(true);
        let mut found: Vec<IpAddr> = Vec::new();
        for slice in path::slices_of(self, namespace, name) {
            let named = slice.endpoints.iter().filter(|e| publish || e.conditions.is_ready());
            found.extend(named.filter_map(|e| e.addresses.first()?.parse::<IpAddr>().ok()));
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

fn parsed(addresses: &[String]) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    for ip in addresses.iter().filter_map(|a| a.parse::<IpAddr>().ok()) {
        if found.iter().all(|other| IpFamily::of(*other) != IpFamily::of(ip)) {
            found.push(ip);
        }
    }
    found
}

impl Client {
    fn new(place: Place, name: &str, node: &str, addresses: Vec<IpAddr>, namespace: &str) -> Self {
        let from = TraceFrom {
            place: match place {
                Place::Pod => "pod",
                Place::Host => "host",
                Place::Outside | Place::Inside => "outside",
            }
            .into(),
            name: name.into(),
            node: node.into(),
            addresses: addresses.iter().map(ToString::to_string).collect(),
        };
        Self { from, namespace: namespace.into(), addresses, place }
    }

    fn address(&self, v4: bool) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|a| a.is_ipv4() == v4)
    }
}

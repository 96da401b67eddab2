//! `GET /v1/topology`: the cluster in one look, for the dashboard and for `eastwest status`.

use std::collections::{BTreeMap, HashMap};

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use eastwest_model::{Kind, LABEL_SERVICE_NAME, Node, NodeState, Revision, Service};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{ApiError, App};

/// The cluster at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Topology {
    pub store_id: String,
    /// The newest revision.
    pub revision: Revision,
    /// DNS zone of cluster names.
    pub zone: String,
    /// Ranges of ClusterIPs.
    #[serde(rename = "serviceCIDRs")]
    pub service_cidrs: Vec<String>,
    pub nodes: Vec<TopologyNode>,
    pub services: Vec<TopologyService>,
}

/// A node and how far its agent is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopologyNode {
    pub name: String,
    pub addresses: Vec<String>,
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<String>,
    /// Whether its agent follows the controller now.
    pub connected: bool,
    /// Absent when its agent has reported nothing, or of another store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applied_revision: Option<Revision>,
    /// Revisions that it has not applied yet.
    pub behind: u64,
    pub programming_latency_us: u64,
    pub agent_version: String,
    /// Devices hooked.
    pub devices: usize,
    pub problems: Vec<String>,
}

/// A Service and its endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopologyService {
    pub namespace: String,
    pub name: String,
    #[serde(rename = "type")]
    pub type_: String,
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Vec<String>,
    /// `80/TCP`.
    pub ports: Vec<String>,
    /// Endpoints that get traffic. One with an address of each family counts once.
    pub ready: usize,
    /// All endpoints.
    pub endpoints: usize,
}

/// Nodes with what they have applied, and Services with the readiness of their endpoints.
#[utoipa::path(
    get,
    path = "/v1/topology",
    tag = "eastwest",
    responses(
        (status = 200, description = "The cluster at the newest revision", body = Topology),
        (status = "4XX", description = "The request cannot be served", body = crate::error::Problem,
            content_type = "application/problem+json"),
    )
)]
pub async fn topology(State(app): State<App>) -> Response {
    // Reads every slice: not for the threads that serve others.
    match tokio::task::spawn_blocking(move || collect(&app)).await {
        Ok(topology) => Json(topology).into_response(),
        Err(e) => ApiError::internal(e).into_problem(),
    }
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Slice {
    endpoints: Vec<Endpoint>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Endpoint {
    addresses: Vec<String>,
    conditions: eastwest_model::EndpointConditions,
    target_ref: Option<eastwest_model::ObjectReference>,
}

fn collect(app: &App) -> Topology {
    let (revision, nodes, services, slices) = app.store().read(|view| {
        let all = |kind| view.range(kind, None, None).cloned().collect::<Vec<_>>();
        (view.revision(), all(Kind::Node), all(Kind::Service), all(Kind::EndpointSlice))
    });
    let mut endpoints: HashMap<(&str, &str), BTreeMap<String, bool>> = HashMap::new();
    for object in &slices {
        let Some(service) = object.labels.get(LABEL_SERVICE_NAME) else { continue };
        let slice: Slice = serde_json::from_slice(&object.json).unwrap_or_default();
        let of = endpoints.entry((&*object.key.namespace, service)).or_default();
        for e in slice.endpoints {
            let id = match e.target_ref {
                Some(target) => target.name,
                None => e.addresses.first().cloned().unwrap_or_default(),
            };
            *of.entry(id).or_default() |= e.conditions.is_ready();
        }
    }
    let services = services
        .iter()
        .filter_map(|o| serde_json::from_slice::<Service>(&o.json).ok())
        .map(|s| {
            let of = endpoints.get(&(s.metadata.namespace.as_str(), s.metadata.name.as_str()));
            TopologyService {
                type_: format!("{:?}", s.service_type()),
                cluster_ips: s.spec.cluster_ips.clone(),
                ports: s.spec.ports.iter().map(|p| format!("{}/{:?}", p.port, p.protocol)).collect(),
                ready: of.map_or(0, |m| m.values().filter(|r| **r).count()),
                endpoints: of.map_or(0, BTreeMap::len),
                namespace: s.metadata.namespace,
                name: s.metadata.name,
            }
        })
        .collect();
    let states: HashMap<String, NodeState> = app.realm(Kind::NodeState).store.read(|view| {
        view.range(Kind::NodeState, None, None)
            .filter_map(|o| Some((o.key.name.to_string(), serde_json::from_slice(&o.json).ok()?)))
            .collect()
    });
    let id = app.store().id().to_owned();
    let nodes = nodes
        .iter()
        .filter_map(|o| serde_json::from_slice::<Node>(&o.json).ok())
        .map(|node| {
            let status = states.get(&node.metadata.name).map(|s| s.status.clone()).unwrap_or_default();
            let applied = (status.store_id == id).then_some(status.applied_revision);
            TopologyNode {
                addresses: node.internal_ips().map(|ip| ip.to_string()).collect(),
                pod_cidrs: node.spec.pod_cidrs.iter().map(ToString::to_string).collect(),
                connected: app.is_connected(&node.metadata.name),
                applied_revision: applied,
                behind: revision.0.saturating_sub(applied.unwrap_or_default().0),
                programming_latency_us: status.programming_latency_us,
                agent_version: status.agent_version,
                devices: status.devices.len(),
                problems: status.problems,
                name: node.metadata.name,
            }
        })
        .collect();
    let config = &app.0.config;
    Topology {
        store_id: id,
        revision,
        zone: config.zone.clone(),
        service_cidrs: config.service_ranges.iter().map(ToString::to_string).collect(),
        nodes,
        services,
    }
}

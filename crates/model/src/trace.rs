//! The answer of `GET /v1/trace`: what a connection from one place to another gets, and why.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Revision;

/// What a connection would get at one revision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Trace {
    pub revision: Revision,
    pub from: TraceFrom,
    /// The target as it was asked for.
    pub to: String,
    /// What became of the target's name; empty when it was an address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub name: Vec<String>,
    /// One for each address that the target has in a family of the client's; none when the name leads nowhere.
    pub paths: Vec<TracePath>,
}

/// Who connects.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TraceFrom {
    /// `pod`, `host` (a process of a node, or a pod on its network) or `outside`.
    pub place: String,
    /// The pod or node; empty for a client outside.
    pub name: String,
    /// The node that decides: where the client runs, or where its packet comes in.
    pub node: String,
    pub addresses: Vec<String>,
}

/// What one address gets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TracePath {
    /// `10.96.0.5:80/TCP`.
    pub address: String,
    /// `namespace/name` of the Service whose address it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frontend: Option<TraceFrontend>,
    /// All endpoints of the Service port, whether they may be chosen or not.
    pub backends: Vec<TraceBackend>,
    pub verdict: TraceVerdict,
    pub reason: String,
    /// Where the packets of the connection are looked at, in their order.
    pub hooks: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum TraceVerdict {
    /// It goes to one of the backends with a share.
    Translated,
    /// No Service has the address: it goes there as it is.
    #[default]
    Direct,
    /// TCP RST, ICMP port unreachable.
    Refused,
    Dropped,
}

/// What stands at the address.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TraceFrontend {
    /// `ClusterIp`, `NodePort`, `ExternalIp` or `LoadBalancer`.
    pub kind: String,
    /// Name of the Service port; empty when it has none.
    pub port: String,
    /// `Cluster` or `Local`: from where this client's endpoints are taken.
    pub policy: String,
    /// Seconds of ClientIP affinity; 0: none.
    pub affinity_seconds: u32,
    pub source_ranges: Vec<String>,
}

/// An endpoint of the Service port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TraceBackend {
    /// `10.244.1.3:8080`.
    pub address: String,
    /// `Pod web-1`; empty when nothing is known to stand behind it.
    pub target: String,
    /// Empty when it is not known.
    pub node: String,
    /// Its part of new connections, 0 to 1.
    pub share: f64,
    /// Why it may be chosen, or not.
    pub reason: String,
    /// The address the backend sees; empty when it is not chosen.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sees: String,
}

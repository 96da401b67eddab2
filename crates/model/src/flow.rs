//! Flows: what the kernel programs tell of new connections, and of packets that got none. Agents tell their controller, which
//! puts names to addresses.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A connection that was opened through a Service, or a packet that was refused or dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Flow {
    /// RFC 3339, when the agent heard of it.
    pub time: String,
    /// The node that decided.
    pub node: String,
    /// `pod`, `host` (a process of the node) or `outside`.
    pub from: String,
    /// `IP:PORT`; empty for a process.
    pub client: String,
    /// The client's pod, `NAMESPACE/NAME`, or node; empty when nobody is known by the address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_name: String,
    /// `IP:PORT` that the client asked for.
    pub asked: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The Service asked for, `NAMESPACE/NAME`; empty when no Service has the address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service: String,
    /// `IP:PORT` of the endpoint that it was given; empty without one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub backend: String,
    /// The endpoint's pod, `NAMESPACE/NAME`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub backend_name: String,
    /// `opened`, `refused` or `dropped`.
    pub verdict: String,
    /// Why not, as the counters of `eastwest_packets_total` name it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// What an agent has to tell, and asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FlowReport {
    pub node: String,
    /// Of so many flows one is told of now; 0: none.
    pub sampling: u32,
    /// Without names.
    pub flows: Vec<Flow>,
}

/// What is to be told of flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FlowSampling {
    /// Of so many flows one is told of; 0: none.
    pub sampling: u32,
    /// For how long, 1 to 3600.
    #[serde(skip_serializing_if = "is_zero")]
    pub seconds: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// The flows that a controller has heard of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FlowList {
    pub flows: Vec<Flow>,
    /// To be given as `after` next time.
    pub next: u64,
    /// Of so many flows one is told of now; 0: none.
    pub sampling: u32,
    /// Flows after `after` that the controller has forgotten since.
    pub missed: u64,
}

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{FieldError, ObjectMeta, Revision};

/// What the agent of a node has programmed. Written by agents, kept in the controller's memory only: a report makes no
/// revision in the store, or each change would cause as many more as there are nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeState {
    pub api_version: String,
    pub kind: String,
    pub metadata: ObjectMeta,
    pub status: NodeStateStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStateStatus {
    /// Identity of the store that `appliedRevision` belongs to.
    pub store_id: String,
    /// Every change up to and including this revision is in the kernel's maps and in the DNS index.
    pub applied_revision: Revision,
    /// From receiving the newest change to its last map write, microseconds.
    pub programming_latency_us: u64,
    pub agent_version: String,
    /// RFC 3339.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub started_at: String,
    pub devices: Vec<DeviceState>,
    pub services: u64,
    pub backends: u64,
    /// Packets dropped or refused by the kernel programs, by reason.
    pub counters: std::collections::BTreeMap<String, u64>,
    /// What does not work and why; empty when all is well.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// Set by the controller: an agent stream of this node is open now.
    pub connected: bool,
}

/// A network device and what is attached to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DeviceState {
    pub name: String,
    pub index: u32,
    /// `pod` or `nic`.
    pub role: String,
    /// `tc`, `clsact`, `xdp-generic` or `xdp-native`.
    pub mode: String,
    /// From the kernel's announcement of the device to the last program attached, microseconds.
    pub hook_latency_us: u64,
    /// Why it is not, or not fully, hooked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl NodeState {
    pub(crate) fn default_fields(&mut self) {}
    pub(crate) fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        crate::validate::dns_subdomain(&mut errors, "metadata.name", &self.metadata.name);
        errors
    }
    pub(crate) fn validate_update(&self, _old: &Self) -> Vec<FieldError> {
        Vec::new()
    }
}

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Condition, FieldError, ObjectMeta, Protocol, validate};

/// Stands for a Pod where there is no Kubernetes: labels select it, its addresses become endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Workload {
    pub api_version: String,
    pub kind: String,
    pub metadata: ObjectMeta,
    pub spec: WorkloadSpec,
    pub status: WorkloadStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadSpec {
    /// At most one address of each family counts, the first; as with a Pod's `podIPs`.
    pub addresses: Vec<String>,
    /// Name of the Node it runs on.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// With `hostname`: the workload gets a name under the headless Service of this name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subdomain: String,
    /// Named ports that a Service's `targetPort` may refer to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<WorkloadPort>,
    /// What makes the workload ready. `Ready` (the default) unless a `Ready` condition in `status` says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readiness: Option<Readiness>,
}

/// The writer's own word on readiness; a `Ready` condition in `status` goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum Readiness {
    Ready,
    NotReady,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadPort {
    pub name: String,
    pub port: u16,
    pub protocol: Protocol,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadStatus {
    /// `Ready` decides whether its endpoints get traffic; absent: `spec.readiness`, else ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

impl Workload {
    /// Whether traffic may be sent to it.
    pub fn ready(&self) -> bool {
        match self.status.conditions.iter().find(|c| c.type_ == "Ready") {
            Some(c) => c.status == "True",
            None => self.spec.readiness != Some(Readiness::NotReady),
        }
    }

    pub(crate) fn default_fields(&mut self) {}

    pub(crate) fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        validate::dns_subdomain(&mut errors, "metadata.name", &self.metadata.name);
        validate::metadata(&mut errors, &self.metadata);
        if self.spec.addresses.is_empty() {
            errors.push(FieldError::required("spec.addresses", "at least one IP address"));
        }
        for (i, a) in self.spec.addresses.iter().enumerate() {
            validate::endpoint_ip(&mut errors, &format!("spec.addresses[{i}]"), a);
        }
        for (field, value) in
            [("spec.hostname", &self.spec.hostname), ("spec.subdomain", &self.spec.subdomain)]
        {
            if !value.is_empty() {
                validate::dns_label(&mut errors, field, value);
            }
        }
        for (i, p) in self.spec.ports.iter().enumerate() {
            validate::port(&mut errors, &format!("spec.ports[{i}].port"), p.port.into());
            if !p.name.is_empty() {
                validate::port_name(&mut errors, &format!("spec.ports[{i}].name"), &p.name);
            }
        }
        errors
    }

    pub(crate) fn validate_update(&self, _old: &Self) -> Vec<FieldError> {
        Vec::new()
    }
}

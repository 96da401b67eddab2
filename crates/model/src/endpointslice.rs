use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{FieldError, LABEL_SERVICE_NAME, ObjectMeta, Protocol, validate};

/// Endpoints of one Service in one address family (`discovery.k8s.io/v1`, KEP-752).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSlice {
    pub api_version: String,
    pub kind: String,
    pub metadata: ObjectMeta,
    pub address_type: AddressType,
    pub endpoints: Vec<Endpoint>,
    pub ports: Vec<EndpointPort>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum AddressType {
    #[default]
    IPv4,
    IPv6,
    /// Deprecated in Kubernetes; carried, never programmed.
    FQDN,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    /// 1 to 100 addresses; only the first is used, as by kube-proxy.
    pub addresses: Vec<String>,
    pub conditions: EndpointConditions,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hints: Option<EndpointHints>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<ObjectReference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub deprecated_topology: Option<crate::Map>,
}

/// `nil` means: `ready` true, `serving` true, `terminating` false (discovery/v1 types.go).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointConditions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serving: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminating: Option<bool>,
}

impl EndpointConditions {
    pub fn is_ready(&self) -> bool {
        self.ready.unwrap_or(true)
    }
    pub fn is_serving(&self) -> bool {
        self.serving.unwrap_or(true)
    }
    pub fn is_terminating(&self) -> bool {
        self.terminating.unwrap_or(false)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointHints {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub for_zones: Vec<HintName>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub for_nodes: Vec<HintName>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HintName {
    pub name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectReference {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field_path: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointPort {
    /// Ties the port to the Service port of the same name; empty for a Service with one unnamed port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Absent means all ports, which nothing programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    pub protocol: Protocol,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
}

impl EndpointSlice {
    /// The Service these endpoints belong to, if any.
    pub fn service_name(&self) -> Option<&str> {
        self.metadata.labels.get(LABEL_SERVICE_NAME).map(String::as_str).filter(|s| !s.is_empty())
    }

    pub(crate) fn default_fields(&mut self) {}

    pub(crate) fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        validate::dns_subdomain(&mut errors, "metadata.name", &self.metadata.name);
        validate::metadata(&mut errors, &self.metadata);
        if self.endpoints.len() > 1000 {
            errors.push(FieldError::too_many("endpoints", self.endpoints.len(), 1000));
        }
        if self.ports.len() > 100 {
            errors.push(FieldError::too_many("ports", self.ports.len(), 100));
        }
        for (i, e) in self.endpoints.iter().enumerate() {
            let field = format!("endpoints[{i}].addresses");
            if e.addresses.is_empty() {
                errors.push(FieldError::required(&field, "1 to 100 addresses"));
            }
            if e.addresses.len() > 100 {
                errors.push(FieldError::too_many(&field, e.addresses.len(), 100));
            }
            for (j, a) in e.addresses.iter().enumerate() {
                let field = format!("{field}[{j}]");
                match self.address_type {
                    AddressType::FQDN => validate::dns_subdomain(&mut errors, &field, a),
                    family => {
                        validate::endpoint_ip(&mut errors, &field, a);
                        if let Ok(ip) = a.parse::<std::net::IpAddr>()
                            && ip.is_ipv4() != (family == AddressType::IPv4)
                        {
                            errors.push(FieldError::invalid(
                                &field,
                                a,
                                "an address of the slice's addressType",
                            ));
                        }
                    }
                }
            }
            if let Some(h) = &e.hostname {
                validate::dns_label(&mut errors, &format!("endpoints[{i}].hostname"), h);
            }
        }
        for (i, p) in self.ports.iter().enumerate() {
            if let Some(port) = p.port {
                validate::port(&mut errors, &format!("ports[{i}].port"), port.into());
            }
        }
        errors
    }

    pub(crate) fn validate_update(&self, old: &Self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if self.address_type != old.address_type {
            errors.push(FieldError::immutable("addressType"));
        }
        errors
    }
}

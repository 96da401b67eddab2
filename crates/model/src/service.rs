use std::collections::HashSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Condition, FieldError, Map, ObjectMeta, validate};

/// A stable virtual address in front of endpoints (`v1` Service).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Service {
    pub api_version: String,
    pub kind: String,
    pub metadata: ObjectMeta,
    pub spec: ServiceSpec,
    pub status: ServiceStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<ServiceType>,
    /// Empty: endpoints are the user's to write.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub selector: Map,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<ServicePort>,
    /// `None` makes the Service headless; empty: the server chooses. The same as the first of `clusterIPs`.
    #[serde(rename = "clusterIP", skip_serializing_if = "String::is_empty")]
    pub cluster_ip: String,
    #[serde(rename = "clusterIPs", skip_serializing_if = "Vec::is_empty")]
    pub cluster_ips: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ip_families: Vec<IpFamily>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_family_policy: Option<IpFamilyPolicy>,
    #[serde(rename = "externalIPs", skip_serializing_if = "Vec::is_empty")]
    pub external_ips: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub external_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_traffic_policy: Option<TrafficPolicy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub internal_traffic_policy: Option<TrafficPolicy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_affinity: Option<SessionAffinity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_affinity_config: Option<SessionAffinityConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publish_not_ready_addresses: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocate_load_balancer_node_ports: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check_node_port: Option<i32>,
    #[serde(rename = "loadBalancerIP", skip_serializing_if = "String::is_empty")]
    pub load_balancer_ip: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancer_class: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub load_balancer_source_ranges: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traffic_distribution: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum ServiceType {
    #[default]
    ClusterIP,
    NodePort,
    LoadBalancer,
    ExternalName,
}

#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
pub enum Protocol {
    #[default]
    TCP,
    UDP,
    SCTP,
}

impl Protocol {
    /// The number in an IP header (IANA protocol numbers).
    pub const fn number(self) -> u8 {
        match self {
            Protocol::TCP => 6,
            Protocol::UDP => 17,
            Protocol::SCTP => 132,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub enum IpFamily {
    IPv4,
    IPv6,
}

impl IpFamily {
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::IPv4 } else { Self::IPv6 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum IpFamilyPolicy {
    SingleStack,
    PreferDualStack,
    RequireDualStack,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum TrafficPolicy {
    Cluster,
    Local,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum SessionAffinity {
    None,
    ClientIP,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionAffinityConfig {
    #[serde(rename = "clientIP", skip_serializing_if = "Option::is_none")]
    pub client_ip: Option<ClientIpConfig>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientIpConfig {
    /// 1 to 86400; 10800 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<i32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    /// May be empty only when the Service has one port.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
    /// A number, or the name of a port of the workload; absent: the same as `port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_port: Option<TargetPort>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
}

/// Kubernetes' IntOrString for `targetPort`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a port number from 1 to 65535 or the name of a port")]
pub enum TargetPort {
    Number(u16),
    Name(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceStatus {
    pub load_balancer: LoadBalancerStatus,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancerStatus {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<LoadBalancerIngress>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancerIngress {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ip: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// `VIP` (the default) or `Proxy` (KEP-1860).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_mode: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Object>)]
    pub ports: Vec<serde_json::Value>,
}

impl Service {
    pub fn service_type(&self) -> ServiceType {
        self.spec.type_.unwrap_or_default()
    }

    /// `clusterIP: None`: the name leads to the endpoints themselves.
    pub fn is_headless(&self) -> bool {
        self.spec.cluster_ip == "None" || self.spec.cluster_ips.first().is_some_and(|ip| ip == "None")
    }

    /// The virtual addresses, parsed; none for headless and ExternalName Services.
    pub fn cluster_ips(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let only = self.spec.cluster_ips.is_empty().then_some(&self.spec.cluster_ip);
        self.spec.cluster_ips.iter().chain(only).filter_map(|ip| ip.parse().ok())
    }

    pub(crate) fn default_fields(&mut self) {
        let spec = &mut self.spec;
        let type_ = *spec.type_.get_or_insert_default();
        spec.session_affinity.get_or_insert(SessionAffinity::None);
        if type_ != ServiceType::ExternalName {
            spec.internal_traffic_policy.get_or_insert(TrafficPolicy::Cluster);
        }
        if matches!(type_, ServiceType::NodePort | ServiceType::LoadBalancer) {
            spec.external_traffic_policy.get_or_insert(TrafficPolicy::Cluster);
        }
        if spec.session_affinity == Some(SessionAffinity::ClientIP) {
            let config = spec.session_affinity_config.get_or_insert_default();
            config.client_ip.get_or_insert_default().timeout_seconds.get_or_insert(10_800);
        }
        for p in &mut spec.ports {
            p.target_port.get_or_insert(TargetPort::Number(p.port));
        }
        if spec.cluster_ip.is_empty() {
            spec.cluster_ip = spec.cluster_ips.first().cloned().unwrap_or_default();
        } else if spec.cluster_ips.is_empty() {
            spec.cluster_ips = vec![spec.cluster_ip.clone()];
        }
    }

    pub(crate) fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let e = &mut errors;
        validate::dns_label(e, "metadata.name", &self.metadata.name);
        validate::metadata(e, &self.metadata);
        let spec = &self.spec;
        let type_ = self.service_type();
        if type_ == ServiceType::ExternalName {
            validate::dns_name(e, "spec.externalName", &spec.external_name);
            if !spec.cluster_ip.is_empty() {
                e.push(FieldError::forbidden("spec.clusterIP", "may not be set when type is ExternalName"));
            }
        } else if spec.ports.is_empty() && !self.is_headless() {
            e.push(FieldError::required("spec.ports", "1 to 100 ports"));
        }
        if spec.ports.len() > 100 {
            e.push(FieldError::too_many("spec.ports", spec.ports.len(), 100));
        }
        self.validate_cluster_ips(e);
        self.validate_ports(e);
        for (key, value) in &spec.selector {
            validate::label(e, "spec.selector", key, value);
        }
        for (i, ip) in spec.external_ips.iter().enumerate() {
            validate::endpoint_ip(e, &format!("spec.externalIPs[{i}]"), ip);
        }
        for (i, range) in spec.load_balancer_source_ranges.iter().enumerate() {
            if range.trim().parse::<ipnet::IpNet>().is_err() {
                let field = format!("spec.loadBalancerSourceRanges[{i}]");
                e.push(FieldError::invalid(&field, range, "a CIDR such as 192.0.2.0/24"));
            }
        }
        if let Some(t) =
            spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref()?.timeout_seconds)
            && !(1..=86_400).contains(&t)
        {
            let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
            e.push(FieldError::invalid(field, t, "1 to 86400 seconds"));
        }
        if let Some(d) = spec.traffic_distribution.as_deref()
            && !["PreferClose", "PreferSameZone", "PreferSameNode"].contains(&d)
        {
            let accepted = "PreferClose, PreferSameZone or PreferSameNode";
            e.push(FieldError::not_supported("spec.trafficDistribution", d, accepted));
        }
        errors
    }

    fn validate_cluster_ips(&self, e: &mut Vec<FieldError>) {
        let spec = &self.spec;
        if !spec.cluster_ips.is_empty() && spec.cluster_ip != spec.cluster_ips[0] {
            e.push(FieldError::invalid(
                "spec.clusterIPs[0]",
                &spec.cluster_ips[0],
                "the same as spec.clusterIP",
            ));
        }
        if spec.cluster_ips.len() > 2 {
            e.push(FieldError::too_many("spec.clusterIPs", spec.cluster_ips.len(), 2));
        }
        let mut families = Vec::new();
        for (i, ip) in spec.cluster_ips.iter().enumerate() {
            if ip == "None" && spec.cluster_ips.len() == 1 {
                continue;
            }
            let field = format!("spec.clusterIPs[{i}]");
            match ip.parse::<IpAddr>() {
                Ok(ip) => families.push(IpFamily::of(ip)),
                Err(_) => e.push(FieldError::invalid(&field, ip, "an IP address, or \"None\" alone")),
            }
        }
        if families.len() == 2 && families[0] == families[1] {
            let accepted = "at most one address of each family";
            e.push(FieldError::invalid("spec.clusterIPs", spec.cluster_ips.join(","), accepted));
        }
        for (i, (family, wanted)) in families.iter().zip(&spec.ip_families).enumerate() {
            if family != wanted {
                let field = format!("spec.clusterIPs[{i}]");
                e.push(FieldError::invalid(
                    &field,
                    &spec.cluster_ips[i],
                    "an address of spec.ipFamilies' family",
                ));
            }
        }
        if spec.ip_families.len() > 2 {
            e.push(FieldError::too_many("spec.ipFamilies", spec.ip_families.len(), 2));
        }
        if spec.ip_families.len() == 2 && spec.ip_families[0] == spec.ip_families[1] {
            e.push(FieldError::duplicate("spec.ipFamilies[1]", format!("{:?}", spec.ip_families[1])));
        }
    }

    fn validate_ports(&self, e: &mut Vec<FieldError>) {
        let (mut names, mut numbers) = (HashSet::new(), HashSet::new());
        for (i, p) in self.spec.ports.iter().enumerate() {
            let field = format!("spec.ports[{i}]");
            validate::port(e, &format!("{field}.port"), p.port.into());
            if p.name.is_empty() {
                if self.spec.ports.len() > 1 {
                    e.push(FieldError::required(
                        &format!("{field}.name"),
                        "a name, as there are several ports",
                    ));
                }
            } else {
                validate::dns_label(e, &format!("{field}.name"), &p.name);
                if !names.insert(&p.name) {
                    e.push(FieldError::duplicate(&format!("{field}.name"), &p.name));
                }
            }
            if !numbers.insert((p.port, p.protocol)) {
                e.push(FieldError::duplicate(&field, format!("{} {:?}", p.port, p.protocol)));
            }
            match &p.target_port {
                Some(TargetPort::Number(n)) => validate::port(e, &format!("{field}.targetPort"), (*n).into()),
                Some(TargetPort::Name(n)) => validate::port_name(e, &format!("{field}.targetPort"), n),
                None => {}
            }
        }
    }

    pub(crate) fn validate_update(&self, old: &Self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let leaves_cluster_ip =
            [self.service_type(), old.service_type()].contains(&ServiceType::ExternalName);
        if !leaves_cluster_ip
            && let Some(primary) = old.spec.cluster_ips.first()
            && self.spec.cluster_ips.first() != Some(primary)
        {
            errors.push(FieldError::immutable("spec.clusterIPs[0]"));
        }
        errors
    }
}

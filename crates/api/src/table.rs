//! `meta.k8s.io/v1` Tables: what `kubectl get` prints.

use eastwest_model::{
    DnsRecord, EndpointSlice, Map, Namespace, Node, NodeState, ObjectMeta, Protocol, Resource, Service,
    ServicePort, ServiceType, TrafficSplit, Workload,
};
use serde_json::{Value, json};

/// One column: name, what it holds, and whether only `-o wide` shows it.
pub type Column = (&'static str, &'static str, bool);

/// A kind as rows of a table. `Name` comes first and `Age` where a kind lists it; both are filled in here.
pub trait Columns: Resource {
    const COLUMNS: &'static [Column];
    /// Cells after `Name`, one for each of [`Self::COLUMNS`].
    fn cells(&self) -> Vec<Value>;
}

const AGE: Column = ("Age", "Time since creation", false);

/// The columns' definitions.
pub fn definitions<T: Columns>() -> Value {
    let name = json!({"name": "Name", "type": "string", "format": "name", "priority": 0,
        "description": "Name, unique within its kind and namespace"});
    let rest = T::COLUMNS.iter().map(|(name, description, wide)| {
        json!({"name": name, "type": "string", "format": "", "description": description,
            "priority": i32::from(*wide)})
    });
    std::iter::once(name).chain(rest).collect()
}

/// One row, with the object's metadata as kubectl wants it.
pub fn row<T: Columns>(object: &T) -> Value {
    let meta = object.metadata();
    let mut cells = vec![Value::from(meta.name.as_str())];
    cells.extend(object.cells());
    json!({"cells": cells, "object": metadata_only(meta)})
}

/// `PartialObjectMetadata` of an object.
pub fn metadata_only(meta: &ObjectMeta) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta})
}

/// As kubectl prints ages: `5s`, `3m20s`, `7h`, `12d`.
pub fn age(meta: &ObjectMeta) -> Value {
    let created = meta.creation_timestamp.as_deref().and_then(|t| t.parse::<jiff::Timestamp>().ok());
    let Some(created) = created else { return "<unknown>".into() };
    let seconds = jiff::Timestamp::now().duration_since(created).as_secs().max(0);
    short_duration(seconds).into()
}

/// apimachinery `duration.HumanDuration`.
fn short_duration(s: i64) -> String {
    let two = |a: i64, unit: char, b: i64, small: char| {
        if b == 0 { format!("{a}{unit}") } else { format!("{a}{unit}{b}{small}") }
    };
    let (m, h, d) = (s / 60, s / 3600, s / 86_400);
    match s {
        0..=119 => format!("{s}s"),
        _ if m < 10 => two(m, 'm', s % 60, 's'),
        _ if h < 3 => format!("{m}m"),
        _ if h < 8 => two(h, 'h', m % 60, 'm'),
        _ if d < 2 => format!("{h}h"),
        _ if d < 8 => two(d, 'd', h % 24, 'h'),
        _ if d < 730 => format!("{d}d"),
        _ => two(d / 365, 'y', d % 365, 'd'),
    }
}

fn or_none(text: String) -> Value {
    if text.is_empty() { "<none>".into() } else { text.into() }
}

/// The first three, and how many more there are.
fn some(items: impl Iterator<Item = String>) -> Value {
    let items: Vec<_> = items.collect();
    match items.len() {
        0 => "<unset>".into(),
        1..=3 => items.join(",").into(),
        n => format!("{} + {} more...", items[..3].join(","), n - 3).into(),
    }
}

fn labels(map: &Map) -> Value {
    or_none(map.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(","))
}

impl Columns for Namespace {
    const COLUMNS: &'static [Column] = &[("Status", "Active or Terminating", false), AGE];
    fn cells(&self) -> Vec<Value> {
        vec![self.status.phase.as_str().into(), age(&self.metadata)]
    }
}

impl Columns for Node {
    const COLUMNS: &'static [Column] = &[
        ("Internal-IP", "Addresses other nodes reach it by", false),
        ("Pod-CIDR", "Address ranges of its pods", false),
        AGE,
    ];
    fn cells(&self) -> Vec<Value> {
        let ips: Vec<_> = self.internal_ips().map(|ip| ip.to_string()).collect();
        let cidrs: Vec<_> = self.spec.pod_cidrs.iter().map(ToString::to_string).collect();
        vec![or_none(ips.join(",")), or_none(cidrs.join(",")), age(&self.metadata)]
    }
}

impl Columns for Service {
    const COLUMNS: &'static [Column] = &[
        ("Type", "ClusterIP, NodePort, LoadBalancer or ExternalName", false),
        ("Cluster-IP", "Its first virtual address", false),
        ("External-IP", "Addresses from outside", false),
        ("Port(s)", "Ports, with NodePorts behind a colon", false),
        AGE,
        ("Selector", "Labels of the workloads behind it", true),
    ];
    fn cells(&self) -> Vec<Value> {
        let external: Vec<String> = match self.service_type() {
            ServiceType::ExternalName => vec![self.spec.external_name.clone()],
            _ => self
                .status
                .load_balancer
                .ingress
                .iter()
                .map(|i| if i.ip.is_empty() { i.hostname.clone() } else { i.ip.clone() })
                .chain(self.spec.external_ips.iter().cloned())
                .collect(),
        };
        let external = match (external.is_empty(), self.service_type()) {
            (true, ServiceType::LoadBalancer) => "<pending>".into(),
            _ => or_none(external.join(",")),
        };
        let port = |p: &ServicePort| match p.node_port {
            Some(n) => format!("{}:{n}/{:?}", p.port, p.protocol),
            None => format!("{}/{:?}", p.port, p.protocol),
        };
        vec![
            format!("{:?}", self.service_type()).into(),
            or_none(self.spec.cluster_ip.clone()),
            external,
            or_none(self.spec.ports.iter().map(port).collect::<Vec<_>>().join(",")),
            age(&self.metadata),
            labels(&self.spec.selector),
        ]
    }
}

impl Columns for EndpointSlice {
    const COLUMNS: &'static [Column] = &[
        ("AddressType", "IPv4, IPv6 or FQDN", false),
        ("Ports", "Ports of every endpoint", false),
        ("Endpoints", "Addresses", false),
        AGE,
    ];
    fn cells(&self) -> Vec<Value> {
        let ports = self.ports.iter().map(|p| {
            let number = p.port.map_or("*".into(), |n| n.to_string());
            if p.protocol == Protocol::TCP { number } else { format!("{number}/{:?}", p.protocol) }
        });
        vec![
            format!("{:?}", self.address_type).into(),
            some(ports),
            some(self.endpoints.iter().flat_map(|e| e.addresses.iter().cloned())),
            age(&self.metadata),
        ]
    }
}

impl Columns for Workload {
    const COLUMNS: &'static [Column] = &[
        ("Ready", "Whether it gets traffic", false),
        ("Addresses", "Its addresses", false),
        ("Node", "Where it runs", false),
        AGE,
        ("Labels", "What Services select it by", true),
    ];
    fn cells(&self) -> Vec<Value> {
        vec![
            if self.ready() { "True" } else { "False" }.into(),
            or_none(self.spec.addresses.join(",")),
            or_none(self.spec.node.clone()),
            age(&self.metadata),
            labels(&self.metadata.labels),
        ]
    }
}

impl Columns for DnsRecord {
    const COLUMNS: &'static [Column] = &[
        ("Record", "Owner name", false),
        ("Type", "Record type", false),
        ("TTL", "Seconds", false),
        ("Values", "Record data", false),
        AGE,
    ];
    fn cells(&self) -> Vec<Value> {
        vec![
            self.spec.name.as_str().into(),
            format!("{:?}", self.spec.type_).into(),
            or_none(self.spec.ttl.map(|t| t.to_string()).unwrap_or_default()),
            some(self.spec.values.iter().cloned()),
            age(&self.metadata),
        ]
    }
}

impl Columns for TrafficSplit {
    const COLUMNS: &'static [Column] = &[
        ("Service", "Whose traffic it divides", false),
        ("Weights", "Parts of its groups, in their order", false),
        ("Accepted", "Whether it takes effect", false),
        AGE,
        ("Groups", "Labels of the groups, in their order", true),
    ];
    fn cells(&self) -> Vec<Value> {
        let accepted = self.status.conditions.iter().find(|c| c.type_ == "Accepted");
        let groups = self.spec.backends.iter().map(|b| {
            let pairs = b.selector.match_labels.iter().map(|(k, v)| format!("{k}={v}"));
            pairs.collect::<Vec<_>>().join(",")
        });
        vec![
            self.spec.service.as_str().into(),
            some(self.spec.backends.iter().map(|b| b.weight.to_string())),
            or_none(accepted.map(|c| c.status.clone()).unwrap_or_default()),
            age(&self.metadata),
            groups.collect::<Vec<_>>().join("; ").into(),
        ]
    }
}

impl Columns for NodeState {
    const COLUMNS: &'static [Column] = &[
        ("Connected", "Whether its agent follows the controller now", false),
        ("Applied", "Newest revision programmed on the node", false),
        ("Services", "Services programmed", false),
        ("Backends", "Backends programmed", false),
        ("Devices", "Network devices hooked", false),
        ("Problems", "What does not work", false),
        ("Agent", "Version of the agent", true),
    ];
    fn cells(&self) -> Vec<Value> {
        let s = &self.status;
        vec![
            if s.connected { "True" } else { "False" }.into(),
            s.applied_revision.to_string().into(),
            s.services.to_string().into(),
            s.backends.to_string().into(),
            s.devices.len().to_string().into(),
            or_none(s.problems.join("; ")),
            or_none(s.agent_version.clone()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_kubectl_prints_them() {
        for (seconds, expected) in [
            (5, "5s"),
            (119, "119s"),
            (120, "2m"),
            (200, "3m20s"),
            (3600, "60m"),
            (4 * 3600 + 120, "4h2m"),
            (30 * 3600, "30h"),
            (3 * 86_400 + 3600, "3d1h"),
            (12 * 86_400, "12d"),
            (800 * 86_400, "2y70d"),
        ] {
            assert_eq!(short_duration(seconds), expected);
        }
    }

    #[test]
    fn a_row_has_a_cell_for_each_column() {
        fn check<T: Columns>() {
            let object: T = serde_json::from_str("{}").unwrap();
            assert_eq!(object.cells().len(), T::COLUMNS.len(), "{:?}", T::KIND);
        }
        check::<Namespace>();
        check::<Node>();
        check::<Service>();
        check::<EndpointSlice>();
        check::<Workload>();
        check::<DnsRecord>();
        check::<TrafficSplit>();
        check::<NodeState>();
    }
}

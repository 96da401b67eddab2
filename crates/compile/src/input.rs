//! Objects in the form that is kept: what the rules read and nothing else, so that 100,000 endpoints stay small.

use std::net::IpAddr;
use std::sync::Arc;

use eastwest_model::{
    AddressType, DnsRecord, EndpointHints, EndpointSlice, FieldError, Kind, LABEL_ZONE, Map, Namespace, Node,
    ObjectMeta, Protocol, Service, ServiceType, SessionAffinity, TrafficPolicy, TrafficSplit, Workload,
    validate,
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{DnsPort, ServiceKey};

/// kube-proxy leaves Services and EndpointSlices with this label to another proxy.
const LABEL_PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// EndpointSlices (and Services) with this label are for names only.
const LABEL_HEADLESS: &str = "service.kubernetes.io/headless";

/// On a Node that the cluster autoscaler is about to remove.
const TAINT_TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

/// For whom to compile.
#[derive(Clone, Debug)]
pub struct Context {
    /// Name of this node, as in `nodeName` of endpoints.
    pub node: Arc<str>,
    /// Ranges of virtual addresses. An endpoint inside them would be a Service in front of a Service: skipped.
    pub service_cidrs: Vec<IpNet>,
    /// Addresses of this node at which NodePorts are served (kube-proxy's `--nodeport-addresses`, worked out).
    pub node_port_addresses: Vec<IpAddr>,
    /// An endpoint without a hostname goes by its pod's name (CoreDNS' `endpoint_pod_names`), not by its address.
    pub pod_names: bool,
}

/// An object in the form that is kept, with its identity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Object {
    Service {
        key: ServiceKey,
        input: Arc<ServiceInput>,
    },
    Slice {
        namespace: Arc<str>,
        name: Arc<str>,
        input: Arc<SliceInput>,
    },
    Namespace {
        name: Arc<str>,
    },
    Record {
        namespace: Arc<str>,
        name: Arc<str>,
        record: Arc<DnsRecord>,
    },
    Pod {
        namespace: Arc<str>,
        name: Arc<str>,
        addresses: Arc<[IpAddr]>,
        labels: Labels,
    },
    Split {
        namespace: Arc<str>,
        name: Arc<str>,
        input: Arc<SplitInput>,
    },
    /// This node.
    Node {
        name: Arc<str>,
        zone: Option<Arc<str>>,
        /// Being deleted, or about to be by the cluster autoscaler: load balancers shall send nothing new (KEP-3836).
        #[serde(default)]
        leaving: bool,
    },
    /// Another node, by the addresses at which others reach it; none while it is not ready.
    Peer {
        name: Arc<str>,
        addresses: Arc<[IpAddr]>,
    },
}

impl Object {
    /// Kind, namespace (empty for kinds without) and name.
    pub fn id(&self) -> (Kind, &str, &str) {
        match self {
            Self::Service { key, .. } => (Kind::Service, &key.namespace, &key.name),
            Self::Slice { namespace, name, .. } => (Kind::EndpointSlice, namespace, name),
            Self::Namespace { name } => (Kind::Namespace, "", name),
            Self::Record { namespace, name, .. } => (Kind::DnsRecord, namespace, name),
            Self::Pod { namespace, name, .. } => (Kind::Workload, namespace, name),
            Self::Split { namespace, name, .. } => (Kind::TrafficSplit, namespace, name),
            Self::Node { name, .. } | Self::Peer { name, .. } => (Kind::Node, "", name),
        }
    }
}

/// What the rules read of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceInput {
    pub mode: ServiceMode,
    pub ports: Vec<DnsPort>,
    /// Seconds of ClientIP affinity; 0: none.
    pub affinity_seconds: u32,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    pub publish_not_ready: bool,
    /// Another proxy programs it: names only.
    pub names_only: bool,
    /// Absent for a Service that has virtual addresses alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<Box<ExternalInput>>,
}

/// How a Service is reached from outside the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalInput {
    /// NodePort of each of the Service's ports; 0: none.
    pub node_ports: Vec<u16>,
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress[].ip` with `ipMode: VIP`.
    pub load_balancer_ips: Vec<IpAddr>,
    /// Without those of a family that lets everyone in.
    pub source_ranges: Vec<IpNet>,
    /// `externalTrafficPolicy: Local`.
    pub local: bool,
    /// 0: none.
    pub health_check_port: u16,
}

/// How a Service is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceMode {
    /// By virtual addresses; none while the server has not chosen any.
    ClusterIp(Vec<IpAddr>),
    Headless,
    ExternalName(Arc<str>),
}

/// What the rules read of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SliceInput {
    /// Name of the Service, in the slice's namespace; empty: of none.
    pub service: Arc<str>,
    pub ports: Arc<[DnsPort]>,
    pub endpoints: Vec<EndpointInput>,
    /// Sets of zones that endpoints are hinted for, which they refer to by index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub zone_hints: Vec<Vec<Arc<str>>>,
    /// Another proxy programs it, or it is for names only.
    pub names_only: bool,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointInput {
    pub addr: IpAddr,
    /// Bits: [`READY`](Self::READY) and the constants after it.
    pub flags: u8,
    /// With [`ZONE_HINTS`](Self::ZONE_HINTS): index in the slice's `zone_hints`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub zones: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<Arc<str>>,
    /// Name of the pod or workload behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Arc<str>>,
}

/// Sorted by key; most pods share theirs with others.
pub type Labels = Arc<[(Arc<str>, Arc<str>)]>;

/// What the rules read of a TrafficSplit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitInput {
    /// Name of the Service, in the split's namespace; empty: the split has no effect.
    pub service: Arc<str>,
    /// Labels of each group, all of which an endpoint's pod must have, and the group's weight.
    pub groups: Vec<(Labels, u32)>,
}

impl SplitInput {
    /// The first group that a pod with these labels belongs to.
    pub fn group(&self, labels: &[(Arc<str>, Arc<str>)]) -> Option<usize> {
        let has = |pair: &(Arc<str>, Arc<str>)| {
            labels.binary_search_by(|l| l.0.cmp(&pair.0)).is_ok_and(|at| labels[at].1 == pair.1)
        };
        self.groups.iter().position(|(wanted, _)| wanted.iter().all(has))
    }
}

fn labels(map: &Map) -> Labels {
    map.iter().map(|(k, v)| (k.as_str().into(), v.as_str().into())).collect()
}

impl EndpointInput {
    pub const READY: u8 = 1;
    /// Serving while it terminates: used where nothing is ready (KEP-1669).
    pub const DRAINING: u8 = 2;
    /// On this node.
    pub const LOCAL: u8 = 4;
    /// Hinted for some nodes (`hints.forNodes`).
    pub const NODE_HINTS: u8 = 8;
    /// This node among them.
    pub const FOR_THIS_NODE: u8 = 16;
    /// Hinted for some zones (`hints.forZones`).
    pub const ZONE_HINTS: u8 = 32;

    pub fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_zero(n: &u16) -> bool {
    *n == 0
}

/// The result of [`Context::decode`].
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// Absent for kinds that the rules do not read.
    pub object: Option<Object>,
    /// Parts of the object that are left out, and why: `EndpointSlice default/web-1: endpoints[0]…`.
    pub problems: Vec<String>,
}

/// An object that is not one of its kind.
#[derive(Debug, thiserror::Error)]
#[error("{kind} from the controller cannot be read: {source}", kind = kind.name())]
pub struct DecodeError {
    pub kind: Kind,
    source: serde_json::Error,
}

impl Context {
    /// Reads an object's JSON into the form that is kept.
    pub fn decode(&self, kind: Kind, json: &str) -> Result<Decoded, DecodeError> {
        fn read<'a, T: Deserialize<'a>>(kind: Kind, json: &'a str) -> Result<T, DecodeError> {
            serde_json::from_str(json).map_err(|source| DecodeError { kind, source })
        }
        Ok(match kind {
            Kind::Service => self.service(&read(kind, json)?),
            Kind::EndpointSlice => self.slice(&read(kind, json)?),
            Kind::Namespace => {
                let object: Namespace = read(kind, json)?;
                Object::Namespace { name: object.metadata.name.into() }.into()
            }
            Kind::DnsRecord => self.record(read(kind, json)?),
            Kind::Workload => {
                let object: Workload = read(kind, json)?;
                let (namespace, name) = (object.metadata.namespace.into(), object.metadata.name.into());
                let addresses = object.spec.addresses.iter().filter_map(|a| a.parse().ok()).collect();
                let labels = labels(&object.metadata.labels);
                Object::Pod { namespace, name, addresses, labels }.into()
            }
            Kind::TrafficSplit => Self::split(&read(kind, json)?),
            Kind::Node => self.node(&read(kind, json)?),
            Kind::NodeState => Decoded { object: None, problems: Vec::new() },
        })
    }

    /// As [`decode`](Self::decode), from the model's form.
    pub fn service(&self, service: &Service) -> Decoded {
        let mut problems = Problems::of(Kind::Service, &service.metadata);
        let spec = &service.spec;
        let mut external = None;
        let mode = if service.service_type() == ServiceType::ExternalName {
            ServiceMode::ExternalName(spec.external_name.trim_end_matches('.').into())
        } else if service.is_headless() {
            ServiceMode::Headless
        } else {
            external = external_input(service, &mut problems);
            let only = spec.cluster_ips.is_empty().then_some(&spec.cluster_ip);
            let texts = spec.cluster_ips.iter().chain(only).map(String::as_str);
            ServiceMode::ClusterIp(virtual_ips("spec.clusterIPs", texts, &mut problems))
        };
        let affinity_seconds = match spec.session_affinity {
            Some(SessionAffinity::ClientIP) => {
                let config = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
                // Kubernetes' default is three hours (DefaultClientIPServiceAffinitySeconds).
                config.and_then(|c| c.timeout_seconds).map_or(10_800, |t| t.clamp(1, 86_400) as u32)
            }
            _ => 0,
        };
        let ports = spec.ports.iter().filter(|p| p.port != 0);
        let input = ServiceInput {
            mode,
            ports: ports
                .map(|p| DnsPort { name: p.name.as_str().into(), protocol: p.protocol, port: p.port })
                .collect(),
            affinity_seconds,
            internal_local: spec.internal_traffic_policy == Some(TrafficPolicy::Local),
            publish_not_ready: spec.publish_not_ready_addresses == Some(true),
            names_only: names_only(&service.metadata),
            external,
        };
        let meta = &service.metadata;
        let key = ServiceKey::new(meta.namespace.as_str(), meta.name.as_str());
        problems.with(Object::Service { key, input: Arc::new(input) })
    }

    fn split(split: &TrafficSplit) -> Decoded {
        let mut problems = Problems::of(Kind::TrafficSplit, &split.metadata);
        let groups: Vec<_> =
            split.spec.backends.iter().map(|b| (labels(&b.selector.match_labels), b.weight)).collect();
        let service = if split.has_weight() { split.spec.service.as_str() } else { "" };
        if service.is_empty() {
            problems.add("all weights are 0: it has no effect".into());
        }
        problems.with(Object::Split {
            namespace: split.metadata.namespace.as_str().into(),
            name: split.metadata.name.as_str().into(),
            input: Arc::new(SplitInput { service: service.into(), groups }),
        })
    }

    /// As [`decode`](Self::decode), from the model's form.
    pub fn node(&self, node: &Node) -> Decoded {
        let name = node.metadata.name.as_str();
        let zone = node.metadata.labels.get(LABEL_ZONE).filter(|z| !z.is_empty());
        let leaving = node.metadata.deletion_timestamp.is_some()
            || node.spec.taints.iter().any(|t| t.key == TAINT_TO_BE_DELETED);
        if *name == *self.node {
            let zone = zone.map(|z| z.as_str().into());
            return Object::Node { name: name.into(), zone, leaving }.into();
        }
        let mut conditions = node.status.conditions.iter().filter(|c| c.type_ == "Ready");
        let ready = !leaving && conditions.all(|c| c.status == "True");
        let addresses = node.internal_ips().filter(|_| ready).collect();
        Object::Peer { name: name.into(), addresses }.into()
    }

    /// As [`decode`](Self::decode), from the model's form.
    pub fn slice(&self, slice: &EndpointSlice) -> Decoded {
        let mut problems = Problems::of(Kind::EndpointSlice, &slice.metadata);
        // Nothing to program; still an object, as it may have been something before.
        let programmed = slice.address_type != AddressType::FQDN;
        let service = slice.service_name().filter(|_| programmed).unwrap_or("");
        let ports = slice.ports.iter().filter_map(|p| {
            // A port of 0, or none ("all ports"), is nothing that could be programmed.
            let port = p.port.filter(|p| *p != 0)?;
            Some(DnsPort { name: p.name.as_deref().unwrap_or("").into(), protocol: p.protocol, port })
        });
        let mut endpoints = Vec::with_capacity(slice.endpoints.len());
        let mut zone_hints = Vec::new();
        for (i, e) in slice.endpoints.iter().enumerate().filter(|_| !service.is_empty()) {
            let Some(address) = e.addresses.first() else {
                problems.add(format!("endpoints[{i}]: no address"));
                continue;
            };
            let addr = match self.endpoint_address(address, slice.address_type) {
                Ok(addr) => addr,
                Err(why) => {
                    problems.add(format!("endpoints[{i}].addresses[0]: {why}"));
                    continue;
                }
            };
            let conditions = &e.conditions;
            let mut flags = 0;
            if conditions.is_ready() {
                flags |= EndpointInput::READY;
            }
            if conditions.is_serving() && conditions.is_terminating() {
                flags |= EndpointInput::DRAINING;
            }
            if e.node_name.as_deref() == Some(&*self.node) {
                flags |= EndpointInput::LOCAL;
            }
            let zones = self.hints(e.hints.as_ref(), &mut flags, &mut zone_hints);
            let behind = e.target_ref.as_ref().filter(|t| !t.name.is_empty());
            let pod = behind.filter(|t| self.pod_names && t.kind == "Pod").map(|t| t.name.as_str());
            let target = behind.filter(|t| t.kind == "Pod" || t.kind == Kind::Workload.name());
            let target = target.map(|t| t.name.as_str().into());
            let hostname = e.hostname.as_deref().filter(|h| !h.is_empty()).or(pod);
            let hostname = hostname.map(Arc::from);
            endpoints.push(EndpointInput { addr, flags, zones, hostname, target });
        }
        let input = SliceInput {
            service: service.into(),
            ports: ports.collect(),
            endpoints,
            zone_hints,
            names_only: names_only(&slice.metadata),
        };
        let meta = &slice.metadata;
        problems.with(Object::Slice {
            namespace: meta.namespace.as_str().into(),
            name: meta.name.as_str().into(),
            input: Arc::new(input),
        })
    }

    /// Sets the flags of an endpoint's hints; returns the index of its zones in `sets`.
    fn hints(&self, hints: Option<&EndpointHints>, flags: &mut u8, sets: &mut Vec<Vec<Arc<str>>>) -> u16 {
        let Some(hints) = hints else { return 0 };
        if !hints.for_nodes.is_empty() {
            *flags |= EndpointInput::NODE_HINTS;
            if hints.for_nodes.iter().any(|n| *n.name == *self.node) {
                *flags |= EndpointInput::FOR_THIS_NODE;
            }
        }
        if hints.for_zones.is_empty() {
            return 0;
        }
        let names = || hints.for_zones.iter().map(|z| z.name.as_str());
        let known = sets.iter().position(|set| set.iter().map(|z| &**z).eq(names()));
        let at = known.unwrap_or_else(|| {
            sets.push(names().map(Arc::from).collect());
            sets.len() - 1
        });
        // A slice has at most 1,000 endpoints; of one that has more, those beyond go without a hint.
        let Ok(at) = u16::try_from(at) else { return 0 };
        *flags |= EndpointInput::ZONE_HINTS;
        at
    }

    fn endpoint_address(&self, text: &str, family: AddressType) -> Result<IpAddr, String> {
        let mut errors: Vec<FieldError> = Vec::new();
        validate::endpoint_ip(&mut errors, "", text);
        if let Some(error) = errors.pop() {
            return Err(error.message);
        }
        let addr: IpAddr = text.parse().map_err(|_| format!("{text:?} is not an IP address"))?;
        if addr.is_ipv4() != (family == AddressType::IPv4) {
            return Err(format!("{addr} is not of the slice's addressType {family:?}"));
        }
        if let Some(range) = self.service_cidrs.iter().find(|r| r.contains(&addr)) {
            return Err(format!("{addr} is a virtual address ({range}), which would lead to itself"));
        }
        Ok(addr)
    }

    fn record(&self, mut record: DnsRecord) -> Decoded {
        let meta = &mut record.metadata;
        let (namespace, name) = (meta.namespace.as_str().into(), meta.name.as_str().into());
        let keep = ObjectMeta {
            name: std::mem::take(&mut meta.name),
            namespace: std::mem::take(&mut meta.namespace),
            ..ObjectMeta::default()
        };
        record.metadata = keep;
        Object::Record { namespace, name, record: Arc::new(record) }.into()
    }
}

fn names_only(meta: &ObjectMeta) -> bool {
    meta.labels.contains_key(LABEL_PROXY_NAME) || meta.labels.contains_key(LABEL_HEADLESS)
}

impl From<Object> for Decoded {
    fn from(object: Object) -> Self {
        Self { object: Some(object), problems: Vec::new() }
    }
}

/// Collects problems of one object; a slice full of the same mistake does not fill the report.
struct Problems {
    object: String,
    found: Vec<String>,
    more: usize,
}

impl Problems {
    const MOST: usize = 4;

    fn of(kind: Kind, meta: &ObjectMeta) -> Self {
        let object = format!("{} {}/{}", kind.name(), meta.namespace, meta.name);
        Self { object, found: Vec::new(), more: 0 }
    }

    fn add(&mut self, what: String) {
        if self.found.len() < Self::MOST {
            self.found.push(format!("{}: {what}", self.object));
        } else {
            self.more += 1;
        }
    }

    fn with(mut self, object: Object) -> Decoded {
        if self.more > 0 {
            self.found.push(format!("{}: and {} more like these", self.object, self.more));
        }
        Decoded { object: Some(object), problems: self.found }
    }
}

/// `None` for a Service that is not reached from outside.
fn external_input(service: &Service, problems: &mut Problems) -> Option<Box<ExternalInput>> {
    let spec = &service.spec;
    let ports = spec.ports.iter().filter(|p| p.port != 0);
    let node_ports: Vec<u16> = ports.map(|p| p.node_port.unwrap_or(0)).collect();
    let texts = spec.external_ips.iter().map(String::as_str);
    let external_ips = virtual_ips("spec.externalIPs", texts, problems);
    let ingress = service.status.load_balancer.ingress.iter();
    let vips = ingress.filter(|i| i.ip_mode.as_deref() != Some("Proxy")).map(|i| i.ip.as_str());
    let load_balancer_ips = virtual_ips("status.loadBalancer.ingress", vips, problems);
    if external_ips.is_empty() && load_balancer_ips.is_empty() && node_ports.iter().all(|p| *p == 0) {
        return None;
    }
    let mut source_ranges: Vec<IpNet> = Vec::new();
    for text in &spec.load_balancer_source_ranges {
        // Kubernetes lets spaces stand around a range.
        match text.trim().parse::<IpNet>() {
            Ok(range) => source_ranges.push(range.trunc()),
            Err(_) => problems.add(format!("spec.loadBalancerSourceRanges: {text:?} is not a CIDR")),
        }
    }
    // A range of everything lets everyone of its family in, as no range does (kube-proxy's `serviceport.go`).
    let open =
        |v4: bool, ranges: &[IpNet]| ranges.iter().any(|r| r.prefix_len() == 0 && r.addr().is_ipv4() == v4);
    let (open4, open6) = (open(true, &source_ranges), open(false, &source_ranges));
    source_ranges.retain(|r| if r.addr().is_ipv4() { !open4 } else { !open6 });
    source_ranges.sort_unstable();
    source_ranges.dedup();
    let local = spec.external_traffic_policy == Some(TrafficPolicy::Local);
    let wants_check = local && service.service_type() == ServiceType::LoadBalancer;
    let health_check_port = spec.health_check_node_port.filter(|_| wants_check);
    let health_check_port = health_check_port.and_then(|p| u16::try_from(p).ok()).unwrap_or(0);
    Some(Box::new(ExternalInput {
        node_ports,
        external_ips,
        load_balancer_ips,
        source_ranges,
        local,
        health_check_port,
    }))
}

/// Addresses of frontends, each once. One that no packet can have as its destination on the wire is left out.
fn virtual_ips<'a>(
    field: &str,
    texts: impl Iterator<Item = &'a str>,
    problems: &mut Problems,
) -> Vec<IpAddr> {
    let mut ips = Vec::new();
    for text in texts.filter(|ip| !ip.is_empty()) {
        let why = match text.parse::<IpAddr>() {
            Ok(IpAddr::V6(ip)) if ip.to_ipv4_mapped().is_some() => "an IPv4-mapped address",
            Ok(ip) if ip.is_loopback() => "a loopback address",
            Ok(ip) if ip.is_unspecified() => "the unspecified address",
            Ok(ip) if ip.is_multicast() => "a multicast address",
            Ok(ip) => {
                if !ips.contains(&ip) {
                    ips.push(ip);
                }
                continue;
            }
            Err(_) => "not an IP address",
        };
        problems.add(format!("{field}: {text:?} is {why}"));
    }
    ips
}

/// Used by the rules: whether a port of a slice is the one that a Service port means.
pub(crate) fn same_port(slice: &DnsPort, name: &str, protocol: Protocol) -> bool {
    slice.protocol == protocol && &*slice.name == name
}

//! What `compile` makes of a Service on one node. The dataplane and the DNS index both read this and nothing else.

use std::net::IpAddr;
use std::sync::Arc;

use eastwest_model::Protocol;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A Service's namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServiceKey {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl ServiceKey {
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl std::fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One Service as this node serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledService {
    pub key: ServiceKey,
    /// For the kernel; empty for headless and ExternalName Services.
    pub frontends: Vec<Frontend>,
    /// For DNS.
    pub dns: DnsService,
}

/// What a client may ask for, in the order (address, port, protocol).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrontendKey {
    pub addr: IpAddr,
    pub port: u16,
    pub protocol: Protocol,
}

/// A frontend and where its traffic goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontend {
    pub key: FrontendKey,
    /// Name of the Service port; empty when it has none.
    pub port_name: Arc<str>,
    pub kind: FrontendKind,
    /// What clients inside the cluster get: pods and processes of this node, and pods of others that come by a NIC.
    pub inside: Targets,
    /// What clients outside get, who come by a NIC.
    pub outside: Targets,
    /// Seconds of ClientIP affinity; 0: none.
    pub affinity_seconds: u32,
    /// `loadBalancerSourceRanges` of the key's family: a client whose address is in none of them is dropped, inside the
    /// cluster too (a process of the node counts as the node's address). Empty: everyone is let in.
    pub source_ranges: Arc<[IpNet]>,
}

impl Frontend {
    /// A virtual IP that gives all clients the same backends, without affinity.
    pub fn cluster_ip(
        key: FrontendKey,
        port_name: impl Into<Arc<str>>,
        backends: impl Into<Arc<[Backend]>>,
    ) -> Self {
        let targets = Targets { backends: backends.into(), drop: false };
        Self {
            key,
            port_name: port_name.into(),
            kind: FrontendKind::ClusterIp,
            inside: targets.clone(),
            outside: targets,
            affinity_seconds: 0,
            source_ranges: Arc::default(),
        }
    }
}

/// Which of a Service's addresses a frontend stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FrontendKind {
    /// `spec.clusterIPs`: the address belongs to the Service, so its other ports are refused.
    ClusterIp,
    /// `nodePort` at one of this node's own addresses: its other ports are the node's.
    NodePort,
    /// `spec.externalIPs`: may be an address of this node, whose other ports are then the node's.
    ExternalIp,
    /// `status.loadBalancer.ingress[].ip` with `ipMode: VIP`.
    LoadBalancer,
}

/// Where a frontend's traffic goes. Without backends the kernel refuses at once, or drops where it says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// Sorted by (address, port), without duplicates. Shared by frontends that have the same ones.
    pub backends: Arc<[Backend]>,
    /// No backends by policy (`Local` without a usable one on this node) while other nodes have some: drop instead of
    /// refusing.
    pub drop: bool,
}

/// One address and port that serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Backend {
    pub addr: IpAddr,
    pub port: u16,
    /// On this node.
    pub local: bool,
    /// Share of new flows, relative to the other backends of the same [`Targets`]: 1 each unless a TrafficSplit says
    /// otherwise; 0 gets none.
    pub weight: u32,
}

/// What a Service's `healthCheckNodePort` tells load balancers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// TCP port, at the addresses that serve NodePorts.
    pub port: u16,
    /// Ready IPv4 endpoints on this node.
    pub local4: usize,
    /// Ready IPv6 endpoints on this node.
    pub local6: usize,
}

/// What DNS needs of a Service; answers are made from it when asked (kubernetes/dns specification 1.1.0).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsService {
    /// A/AAAA to the virtual addresses; SRV for each named port. Its endpoints have names and PTR of their own, as
    /// CoreDNS gives them.
    ClusterIp { ips: Vec<IpAddr>, ports: Vec<DnsPort>, endpoints: Vec<DnsEndpoint> },
    /// A/AAAA to each published endpoint; SRV to their names.
    Headless { endpoints: Vec<DnsEndpoint> },
    /// CNAME.
    ExternalName { target: Arc<str> },
}

/// A port as SRV names it: `_name._protocol`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DnsPort {
    /// Empty: no SRV under a name.
    pub name: Arc<str>,
    pub protocol: Protocol,
    pub port: u16,
}

/// A published endpoint of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsEndpoint {
    pub addr: IpAddr,
    /// The endpoint's `hostname`; absent: the address with dashes stands for it.
    pub hostname: Option<Arc<str>>,
    /// Shared by endpoints of one slice.
    pub ports: Arc<[DnsPort]>,
}

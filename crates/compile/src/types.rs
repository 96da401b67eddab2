//! What `compile` makes of a Service on one node. The dataplane and the DNS index both read this and nothing else.

use std::net::IpAddr;
use std::sync::Arc;

use eastwest_model::Protocol;
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

/// A frontend and where its traffic goes. Without backends the kernel refuses at once, or drops where it says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontend {
    pub key: FrontendKey,
    /// Name of the Service port; empty when it has none.
    pub port_name: Arc<str>,
    /// Sorted by (address, port), without duplicates. Shared by frontends that have the same ones.
    pub backends: Arc<[Backend]>,
    /// Seconds of ClientIP affinity; 0: none.
    pub affinity_seconds: u32,
    /// It has no backends by policy (`Local` without a usable one on this node) while other nodes have some: drop
    /// instead of refusing.
    pub drop: bool,
}

/// One address and port that serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Backend {
    pub addr: IpAddr,
    pub port: u16,
    /// On this node.
    pub local: bool,
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

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    DnsRecord, EndpointSlice, FieldError, Namespace, Node, NodeState, ObjectMeta, Service, TrafficSplit,
    Workload,
};

/// What the API server must know about a kind, in Kubernetes' words.
pub trait Resource:
    Serialize + DeserializeOwned + Clone + std::fmt::Debug + PartialEq + Send + Sync + 'static
{
    const KIND: Kind;

    fn metadata(&self) -> &ObjectMeta;
    fn metadata_mut(&mut self) -> &mut ObjectMeta;
    /// Fills what the user may leave out, before validation. The server's own allocation is not done here.
    fn default_fields(&mut self) {}
    /// Everything wrong with the object by itself, each with its field path.
    fn validate(&self) -> Vec<FieldError>;
    /// What may not change between two versions. `self` is the new one.
    fn validate_update(&self, _old: &Self) -> Vec<FieldError> {
        Vec::new()
    }
    /// Whether `spec` (or what stands for it) differs: decides `metadata.generation`.
    fn same_spec(&self, old: &Self) -> bool;
}

/// The kinds there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Kind {
    Namespace,
    Node,
    Service,
    EndpointSlice,
    Workload,
    DnsRecord,
    TrafficSplit,
    NodeState,
}

impl Kind {
    /// All kinds, in the order in which a client should read them: what others refer to first.
    pub const ALL: [Kind; 8] = [
        Kind::Namespace,
        Kind::Node,
        Kind::Service,
        Kind::EndpointSlice,
        Kind::Workload,
        Kind::DnsRecord,
        Kind::TrafficSplit,
        Kind::NodeState,
    ];

    /// The `kind` of a manifest.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Namespace => "Namespace",
            Kind::Node => "Node",
            Kind::Service => "Service",
            Kind::EndpointSlice => "EndpointSlice",
            Kind::Workload => "Workload",
            Kind::DnsRecord => "DnsRecord",
            Kind::TrafficSplit => "TrafficSplit",
            Kind::NodeState => "NodeState",
        }
    }

    /// The resource's name in a path.
    pub const fn plural(self) -> &'static str {
        match self {
            Kind::Namespace => "namespaces",
            Kind::Node => "nodes",
            Kind::Service => "services",
            Kind::EndpointSlice => "endpointslices",
            Kind::Workload => "workloads",
            Kind::DnsRecord => "dnsrecords",
            Kind::TrafficSplit => "trafficsplits",
            Kind::NodeState => "nodestates",
        }
    }

    /// As kubectl also accepts it.
    pub const fn singular(self) -> &'static str {
        match self {
            Kind::Namespace => "namespace",
            Kind::Node => "node",
            Kind::Service => "service",
            Kind::EndpointSlice => "endpointslice",
            Kind::Workload => "workload",
            Kind::DnsRecord => "dnsrecord",
            Kind::TrafficSplit => "trafficsplit",
            Kind::NodeState => "nodestate",
        }
    }

    /// kubectl's abbreviations.
    pub const fn short_names(self) -> &'static [&'static str] {
        match self {
            Kind::Namespace => &["ns"],
            Kind::Node => &["no"],
            Kind::Service => &["svc"],
            Kind::EndpointSlice => &[],
            Kind::Workload => &["wl"],
            Kind::DnsRecord => &["dr"],
            Kind::TrafficSplit => &["ts"],
            Kind::NodeState => &["nst"],
        }
    }

    /// The API group; empty for the core group.
    pub const fn group(self) -> &'static str {
        match self {
            Kind::Namespace | Kind::Node | Kind::Service => "",
            Kind::EndpointSlice => "discovery.k8s.io",
            Kind::Workload | Kind::DnsRecord | Kind::TrafficSplit | Kind::NodeState => "eastwest.dev",
        }
    }

    /// `apiVersion` of a manifest.
    pub const fn api_version(self) -> &'static str {
        match self {
            Kind::Namespace | Kind::Node | Kind::Service => "v1",
            Kind::EndpointSlice => "discovery.k8s.io/v1",
            Kind::Workload | Kind::DnsRecord | Kind::TrafficSplit | Kind::NodeState => "eastwest.dev/v1",
        }
    }

    pub const fn namespaced(self) -> bool {
        match self {
            Kind::Namespace | Kind::Node | Kind::NodeState => false,
            Kind::Service | Kind::EndpointSlice | Kind::Workload | Kind::DnsRecord | Kind::TrafficSplit => {
                true
            }
        }
    }

    /// The kind of a manifest's `apiVersion` and `kind`.
    pub fn of(api_version: &str, kind: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|k| k.api_version() == api_version && k.name() == kind)
    }
}

macro_rules! resource {
    ($ty:ident, |$new:ident, $old:ident| $same:expr) => {
        impl Resource for $ty {
            const KIND: Kind = Kind::$ty;
            fn metadata(&self) -> &ObjectMeta {
                &self.metadata
            }
            fn metadata_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
            fn default_fields(&mut self) {
                $ty::default_fields(self)
            }
            fn validate(&self) -> Vec<FieldError> {
                $ty::validate(self)
            }
            fn validate_update(&self, old: &Self) -> Vec<FieldError> {
                $ty::validate_update(self, old)
            }
            fn same_spec(&self, old: &Self) -> bool {
                let ($new, $old) = (self, old);
                $same
            }
        }
    };
}

resource!(Namespace, |a, b| a.spec == b.spec);
resource!(Node, |a, b| a.spec == b.spec);
resource!(Service, |a, b| a.spec == b.spec);
resource!(EndpointSlice, |a, b| a.endpoints == b.endpoints && a.ports == b.ports);
resource!(Workload, |a, b| a.spec == b.spec);
resource!(DnsRecord, |a, b| a.spec == b.spec);
resource!(TrafficSplit, |a, b| a.spec == b.spec);
resource!(NodeState, |_a, _b| true);

//! The domain of eastwest: Services, EndpointSlices, Workloads, Nodes, Namespaces, DnsRecords and TrafficSplits, with their
//! validation, and the messages that the controller and the agents exchange about them.
//!
//! Names and JSON follow Kubernetes (`v1`, `discovery.k8s.io/v1`), so that a manifest can be applied as it is; kinds of
//! our own live in `eastwest.dev/v1`. This crate knows no store, no network and no clock. Everything else builds on it.

mod dnsrecord;
mod endpointslice;
mod flow;
mod meta;
mod namespace;
mod node;
mod nodestate;
mod resource;
mod selector;
mod service;
pub mod stream;
mod trace;
mod trafficsplit;
pub mod validate;
mod workload;

pub use dnsrecord::*;
pub use endpointslice::*;
pub use flow::*;
pub use meta::*;
pub use namespace::*;
pub use node::*;
pub use nodestate::*;
pub use resource::*;
pub use selector::*;
pub use service::*;
pub use trace::*;
pub use trafficsplit::*;
pub use validate::{FieldError, Reason};
pub use workload::*;

/// The DNS zone that cluster names live in unless configured otherwise.
pub const DEFAULT_ZONE: &str = "cluster.local";
/// The label that names the zone of a Node.
pub const LABEL_ZONE: &str = "topology.kubernetes.io/zone";
/// The EDNS option by which a node's DNS is asked how it came to its answer, and tells (RFC 6891 §9: 65001 to 65534 are
/// for local use). Empty in the question; lines of text in the answer. Over TCP only.
pub const DNS_EXPLAIN: u16 = 65_311;
/// The label that ties an EndpointSlice to its Service (KEP-752).
pub const LABEL_SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label that names the controller which owns an EndpointSlice.
pub const LABEL_MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// The label of objects that were not written through our own API; its value says where they come from.
pub const LABEL_SOURCE: &str = "eastwest.dev/source";
/// The value of [`LABEL_SOURCE`] for objects mirrored from a Kubernetes API server.
pub const SOURCE_KUBERNETES: &str = "kubernetes";
/// Our value of [`LABEL_MANAGED_BY`].
pub const MANAGED_BY: &str = "endpointslice-controller.eastwest.dev";
